"""Ctrl-C, SIGTERM and a hangup: in this process with a loop that computes nothing, and in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from rsir.cli import signals
from rsir.cli.main import main
from rsir.cli.signals import Stop
from rsir.data import Sequences, batches, read
from rsir.data.io import formats
from rsir.errors import Interrupted
from rsir.runtime import memory
from rsir.runtime.interrupts import deferred
from tests.cli.fake_loop import Loop

BOTH = pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
SMALL = ["--rounds", "1", "--simulation.num_users", "60", "--simulation.num_items", "40"]
SMALL += ["--training.max_evaluations", "1", "--model.dim", "8"]


@pytest.fixture(autouse=True)
def _not_ignored() -> Iterator[None]:
    """A job in the background of a shell ignores SIGINT."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    inherited = [
        signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.signal(signal.SIGTERM, signal.SIG_DFL),
    ]
    yield
    for number, handler in zip(numbers, inherited, strict=True):
        signal.signal(number, handler)


@BOTH
def test_a_signal_asks_the_loop_to_stop(
    loop: Loop, capfd: pytest.CaptureFixture[str], number: int, status: int
) -> None:
    before = signal.getsignal(number)
    loop.work = lambda stop: [stop(), signal.raise_signal(number), stop()]
    assert main(["--out", "run"]) == status
    error = capfd.readouterr().err
    assert "Saving what has been computed; once more ends at once" in error
    assert error.endswith("Interrupted. Resume with: rsir --out run --resume\n")
    assert signal.getsignal(number) is before


@BOTH
def test_a_signal_before_there_is_anything_to_save_ends_at_the_next_safe_point(
    loop: Loop, number: int, status: int
) -> None:
    loop.work = lambda stop: [signal.raise_signal(number), memory.release(), 1 / 0]
    assert main(["--out", "run"]) == status


def test_a_safe_point_is_none_where_the_loop_asks_itself(loop: Loop) -> None:
    loop.work = lambda stop: [stop(), signal.raise_signal(signal.SIGINT), memory.release(), stop()]
    assert main(["--out", "run"]) == 130


@BOTH
def test_a_second_signal_ends_the_process_as_it_would_without_us(number: int, status: int) -> None:
    child = os.fork()
    if not child:
        signals._ONCE = 0
        with Stop(says=False) as stop:
            stop()
            signal.raise_signal(number)
            if stop():
                signal.raise_signal(number)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number


def test_two_signals_at_once_are_one() -> None:
    """As timeout(1) sends them: to its child, and to the child's group."""
    with Stop(says=False) as stop:
        stop()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop()


def test_an_ignored_signal_stays_ignored(loop: Loop) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.work = lambda stop: [stop(), signal.raise_signal(signal.SIGINT), stop()]
    assert main(["--out", "run"]) == 0


def test_a_hangup_does_not_end_a_run(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGHUP)
    loop.work = lambda stop: [stop(), signal.raise_signal(signal.SIGHUP), stop()]
    assert main(["--out", "run"]) == 0
    assert signal.getsignal(signal.SIGHUP) is before


def test_signals_are_deferred_to_the_end_of_a_block() -> None:
    done = []

    def work() -> None:
        with deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("how", ["command line", "library"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_arrow_imports_pandas_is_not_lost(tmp_path: Path, how: str, number: int) -> None:
    """Arrow imports pandas from compiled code; here a pandas swallows what a handler raises, as that can."""
    fake = tmp_path / "pandas"
    fake.mkdir()
    (fake / "__init__.py").write_text(
        "import signal\n"
        "try:\n"
        f"    signal.raise_signal({int(number)})\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
        "raise ImportError\n"
    )
    code = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    if how == "library":
        code += "import rsir\nrsir.run(rounds=0, **{'simulation.num_users': 60, 'training.max_evaluations': 1})\n"
    else:
        code += f"from rsir.cli.main import main\nsys.exit(main({[*SMALL, '--out', 'run']}))\n"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if how == "library":
        assert ended.returncode in (-number, 128 + number)
        assert number == signal.SIGTERM or "KeyboardInterrupt" in ended.stderr
    else:
        assert ended.returncode == 128 + number, ended.stderr
        assert ended.stderr.endswith("Interrupted before the run began; nothing was written.\n")
        assert not (tmp_path / "run").exists()


def test_what_arrow_cancels_is_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(*_: object, **__: object) -> None:
        raise pa.ArrowCancelled("Operation cancelled")

    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id\n1,2\n")
    monkeypatch.setitem(formats.FORMATS, "csv", replace(formats.FORMATS["csv"], read=cancelled))
    with pytest.raises(Interrupted):
        read(path)


def test_waiting_for_batches_that_nobody_builds_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has died without a word, or is stuck while the user asks to end."""
    monkeypatch.setattr(batches, "_PATIENCE", 0.1)
    made = batches.Batches(
        Sequences.from_lists([[1, 2, 3]] * 4),
        2,
        4,
        2,
        seed=0,
        device=torch.device("cpu"),
        generator=torch.Generator(),
    )
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    monkeypatch.setattr(threading.Thread, "join", lambda thread, timeout=None: None)
    with pytest.raises(RuntimeError, match="the thread that builds training batches has ended"):
        next(made.stream())
    monkeypatch.setattr(threading.Thread, "is_alive", lambda thread: True)
    with Stop(says=False):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            next(made.stream())

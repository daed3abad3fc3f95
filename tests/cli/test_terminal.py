"""A run ends with its files wherever what it prints goes."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rsir.cli.main import main
from rsir.cli.terminal import Lasting
from rsir.runs.directory import RunDirectory
from tests.cli.fake_loop import Loop

SMALL = ["--out", "run", "--rounds", "0", "--simulation.num_users", "60", "--simulation.num_items", "40"]
SMALL += ["--training.max_evaluations", "1", "--model.dim", "8"]


class Refusing:
    """A stream that takes nothing."""

    def __init__(self, cause: Exception) -> None:
        self._cause = cause

    def write(self, text: str) -> int:
        raise self._cause

    def flush(self) -> None:
        raise self._cause

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError(errno.EBADF, "no descriptor")


@pytest.mark.parametrize(
    "cause",
    [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.EIO, "Input/output error"), ValueError("closed")],
)
def test_a_run_goes_on_without_stdout_and_stderr(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing(cause))
    monkeypatch.setattr(sys, "stderr", Refusing(cause))
    assert main(["--out", "run"]) == 0
    assert RunDirectory.open(tmp_path / "run").config == loop.config
    monkeypatch.setattr(sys, "stdout", None)  # of a process started without
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["--out", "other"]) == 0
    assert RunDirectory.open(tmp_path / "other").config == loop.config


def test_a_full_disk_is_said_where_the_output_is_all_there_is(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(sys, "stdout", Refusing(full))
    assert main(["--print-config"]) == 2
    assert capsys.readouterr().err == "rsir: error: stdout: cannot be written: No space left on device\n"
    assert main(["datasets", "list"]) == 2
    capsys.readouterr()
    assert main(["--out", "run"]) == 0
    assert capsys.readouterr().err.endswith("rsir: note: stdout: cannot be written: No space left on device\n")
    monkeypatch.setattr(sys, "stdout", Refusing(BrokenPipeError()))
    assert main(["datasets", "list"]) == 0  # | head
    assert capsys.readouterr().err == ""


def test_a_stream_is_left_alone_after_its_first_refusal() -> None:
    texts: list[str] = []

    class Once(Refusing):
        def write(self, text: str) -> int:
            texts.append(text)
            return super().write(text)

    stream = Lasting(Once(BrokenPipeError()))
    print("a", "b", file=stream)
    assert texts == ["a"]
    assert not stream.isatty()


@pytest.mark.parametrize("where", ["a pipe that nobody reads", "a full disk", "nowhere"])
def test_a_process_ends_with_its_files_and_0(tmp_path: Path, where: str) -> None:
    def close() -> None:
        os.close(1)
        os.close(2)

    command = [sys.executable, "-m", "rsir", *SMALL]
    options: dict[str, Any] = {"cwd": tmp_path}
    if where == "a pipe that nobody reads":
        reading, writing = os.pipe()
        os.close(reading)
        status = subprocess.run(command, stdout=writing, stderr=writing, timeout=600, **options).returncode
        os.close(writing)
    elif where == "a full disk":
        with open("/dev/full", "w") as full:
            status = subprocess.run(command, stdout=full, stderr=full, timeout=600, **options).returncode
    else:
        status = subprocess.run(command, preexec_fn=close, timeout=600, **options).returncode
    assert status == 0
    assert RunDirectory.open(tmp_path / "run").finished_rounds() == 1


def test_a_run_survives_its_terminal(tmp_path: Path) -> None:
    """The terminal is closed after the first line: the kernel sends a hangup, and writing fails from then on."""
    child, master = pty.fork()
    if not child:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, "-m", "rsir", *SMALL])
    shown = b""
    while b"events" not in shown:
        shown += os.read(master, 1000)
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert RunDirectory.open(tmp_path / "run").finished_rounds() == 1


def test_what_a_terminal_has_no_character_for_is_escaped(tmp_path: Path) -> None:
    with open(tmp_path / "ascii", "w", encoding="ascii") as narrow:
        stream = Lasting(narrow)
        print("\u00fc \udcff \t\x1b[2J", file=stream)
        assert stream.failure is None
        print("\r50%", file=stream.raw)
    assert (tmp_path / "ascii").read_bytes() == b"\\xfc \\udcff \t\\x1b[2J\n\r50%\n"

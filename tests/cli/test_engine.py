"""A run by processes that Ray starts: the bytes that torchrun's processes write, also when one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import tiny

ROOT = Path(__file__).parents[2]
OPTIONS = [*tiny.OPTIONS, "--rounds", "1"]
KILLS = """
import os, signal
from rsir.runtime import resume
from rsir.training.loop import TrainingLoop

resume.EVERY = 0.0
gradients = TrainingLoop._gradients

def dying(self, whole, negatives, step, generator):
    if os.environ.get("RANK") == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return gradients(self, whole, negatives, step, generator)

TrainingLoop._gradients = dying
"""

NEVER_COMES = """
import os, signal
from rsir.cli import engine

engine._GRACE = 2.0
if os.environ.get("RANK") == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What two processes of torchrun write."""
    pytest.importorskip("ray")
    out = tmp_path_factory.mktemp("torchrun") / "run"
    by = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rsir"]
    done = command(*by, *OPTIONS, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return tiny.contents(out)


def test_two_workers_write_what_torchrun_writes(expected: dict[str, str], tmp_path: Path) -> None:
    done = command("-m", "rsir", "run", "--engine", "ray", "--workers", "2", *OPTIONS, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert tiny.contents(tmp_path / "run") == expected
    assert "rsir run --engine ray --workers 2 --out" in done.stdout
    assert "round 1:" in done.stderr


def test_a_killed_worker_is_started_again_to_the_same_bytes(expected: dict[str, str], tmp_path: Path) -> None:
    plugin = tmp_path / "kills.py"
    plugin.write_text(KILLS)
    out = tmp_path / "run"
    done = command("-m", "rsir", "--plugins", str(plugin), "run", "--engine=ray", *OPTIONS, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "a process was lost; 3 starts are left" in done.stderr.replace("rsir: ", "")
    assert '"resume"' in (out / "log.jsonl").read_text()
    assert tiny.contents(out) == expected


def test_a_worker_that_is_killed_before_it_meets_the_others(expected: dict[str, str], tmp_path: Path) -> None:
    plugin = tmp_path / "never_comes.py"
    plugin.write_text(NEVER_COMES)
    out = tmp_path / "run"
    done = command("-m", "rsir", "--plugins", str(plugin), "run", "--engine=ray", *OPTIONS, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "a process was lost; 3 starts are left" in done.stderr
    assert tiny.contents(out) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "--workers: goes with --engine ray"),
        (["--address", "auto"], "--address: goes with --engine ray"),
        (["--engine", "ray"], "--out: --engine ray needs it"),
        (["--engine", "ray", "--workers", "0", "--out", "x"], "--workers: expected at least 1, got 0"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str, tmp_path: Path) -> None:
    options = [str(tmp_path / word) if word == "x" else word for word in options]
    done = command("-m", "rsir", "run", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []

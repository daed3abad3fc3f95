"""A short run of the fuzzer of everything that reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.harness import fuzz


def test_only_documented_errors_come_back() -> None:
    counts = fuzz.fuzz(26 * 70, seed=2)
    targets = {name for name, _ in counts}
    assert len(targets) == 26
    assert all(counts[name, False] > 0 for name in targets - {"state"})  # a state that cannot be used is left out
    read = {name for name in targets if name.startswith("log ")} - {"log .csv.gz"}  # which seldom unpacks
    assert all(counts[name, True] > 0 for name in (*read, "settings values", "bindings", "state"))


def dies_at_the_third(inputs: int, seed: int, first: int, reached: Any) -> None:
    for number in range(first, first + inputs):
        reached.value = number
        if number == first + 2:
            os.kill(os.getpid(), signal.SIGSEGV)


def test_the_death_of_the_reader_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.watched(dies_at_the_third, 5, 7, 40) == signal.SIGSEGV
    assert "--seed 7, input 42: ended the process by signal 11" in capsys.readouterr().err
    assert fuzz.watched(dies_at_the_third, 2, 7, 40) == 0


def test_the_command_prints_its_counts() -> None:
    command = [sys.executable, "-m", "tests.harness", "fuzz", "--inputs", "26", "--first", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "26 inputs, documented errors only" in done.stdout

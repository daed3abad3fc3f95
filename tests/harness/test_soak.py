"""A short run of the soak test; the process of the tests itself is too lively to be measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_rounds_leave_nothing_behind() -> None:
    command = [sys.executable, "-m", "tests.harness", "soak", "--rounds", "9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert "9 rounds: memory" in done.stdout

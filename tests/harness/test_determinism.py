"""A short run of the harness; this process has threads and cannot be forked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_run_is_the_same_at_any_number_of_threads_and_slots() -> None:
    command = [sys.executable, "-m", "tests.harness", "determinism", "--models", "sasrec"]
    command += ["--threads", "1", "2", "4", "--slots", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert "sasrec: 4 runs, the same bytes in all 8 files at any number of threads" in done.stdout

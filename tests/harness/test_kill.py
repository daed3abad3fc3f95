"""Short runs of the harnesses that kill runs and let the disk fail; this process has threads and cannot be forked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_and_failed_runs_end_as_the_one_that_nothing_befell() -> None:
    code = "from tests.harness import faults, kill; kill.harness(6, seed=1); faults.harness(every=120)"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # it forks
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 kills survived" in done.stdout
    assert "faults survived" in done.stdout

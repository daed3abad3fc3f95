"""Short runs of the harnesses that kill runs and let the disk fail; this process has threads and cannot be forked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_killed_and_failed_runs_end_as_the_one_that_nothing_befell() -> None:
    command = [sys.executable, "-c", "import kill, faults; kill.harness(6, seed=1); faults.harness(every=120)"]
    tests = Path(__file__).parent
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 kills survived" in done.stdout
    assert "faults survived" in done.stdout

"""Short runs of the harnesses that kill runs and let the disk fail; this process has threads and cannot be forked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HARNESSES = ["import kill; kill.harness(6, seed=1)", "import faults; faults.harness(every=120)"]


@pytest.mark.parametrize("code", HARNESSES, ids=["killed", "failed"])
def test_a_run_ends_as_the_one_that_nothing_befell(code: str) -> None:
    command = [sys.executable, "-c", code]
    tests = Path(__file__).parent
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "survived" in done.stdout

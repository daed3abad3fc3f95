"""A short run of the harness, in a process whose memory nothing else has had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak")
def test_a_full_ranking_takes_little_memory() -> None:
    command = [sys.executable, "-m", "tests.harness", "ranking"]
    command += ["--items", "30000", "--users", "1000", "--mib", "16"]  # the logits alone would take 114
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "1,000 users, 30,000 items: all ranks and the first 20 places took" in done.stdout

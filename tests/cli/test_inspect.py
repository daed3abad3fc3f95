"""``rsir inspect`` on a run that is under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.cli.main import main
from rsir.config import DataConfig, RecursionConfig
from rsir.runs.directory import RunDirectory


def test_a_run_that_has_only_begun_is_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder holds a manifest, and its data are not written yet."""
    with RunDirectory.create(tmp_path / "run", RecursionConfig(data=DataConfig(path="gone.csv")), "ab" * 32):
        assert main(["inspect", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    assert "no round is finished yet" in output
    assert "gone.csv: not written yet" in output
    assert "Files:    every checksum holds" in output

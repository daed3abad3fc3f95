"""Power cuts, on a disk that keeps what was fsynced and nothing else; and that the harness can fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rsir import files
from tests.harness import power


def test_nothing_that_was_reported_is_lost(tmp_path: Path) -> None:
    lines: list[str] = []
    power.harness(tmp_path, lines.append)
    assert "every round reported is there, whole" in lines[0]


def test_a_folder_whose_name_is_not_on_the_disk_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "make_folder", lambda path: os.makedirs(path, exist_ok=True))
    with pytest.raises(AssertionError, match="after a power cut"):
        power.harness(tmp_path)

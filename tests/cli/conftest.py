"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

import rsir.recursion.loop
from tests.cli.fake_loop import Loop


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loop:
    """In an empty folder, with the recursion replaced."""
    fake = Loop()
    monkeypatch.setattr(rsir.recursion.loop, "recurse", fake)
    monkeypatch.chdir(tmp_path)
    return fake

"""A short run of the harness, and one setting that nothing checks before it is used."""

from __future__ import annotations

import pytest

from tests.harness import settings


def test_accepted_settings_do_not_crash() -> None:
    counts = settings.settings(12, seed=1)
    assert counts.total() == 12
    assert counts["came through"] > 4


def test_a_crash_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(settings, "recurse", crash)
    with pytest.raises(ZeroDivisionError):
        settings.settings(12, seed=1)
    assert "--seed 1, run " in capsys.readouterr().err

"""A successor that is worse than the best round before it by more than the noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rsir.recursion.loop
from rsir.config import ItemKnnConfig
from rsir.recursion.loop import recurse
from tests.harness.small import metrics, small

NETWORKS = ItemKnnConfig(vote="off")
"""Networks recommend alone; the item-kNN's vote would hide what becomes of one."""


@pytest.fixture
def collapsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Successors lose what they learned."""
    real = rsir.recursion.loop.fit

    def fit(*arguments: Any, **options: Any) -> Any:
        trained = real(*arguments, **options)
        if not arguments[2].is_real.all():
            with torch.no_grad():
                trained.model.items.weight[1:] = trained.model.items.weight[1:].flip(0).clone()
        return trained

    monkeypatch.setattr(rsir.recursion.loop, "fit", fit)


def test_a_collapsed_successor_is_refused(collapsing: None, tmp_path: Path) -> None:
    run = recurse(small(itemknn=NETWORKS), out=tmp_path / "run")
    assert [result.worse for result in run.rounds] == [False, True]
    assert run.best == 0
    assert run.rounds[0].against_best == {}
    against = run.rounds[1].against_best
    values = [result.validation["ndcg@20"] for result in run.rounds]
    assert (against["round"], against["difference"]) == (0, pytest.approx(values[1] - values[0]))
    assert against["low"] < against["difference"] < against["high"] < 0
    # Resuming ends it again, and what is refused is a matter of the numbers, not of what was in memory.
    assert metrics(recurse(small(itemknn=NETWORKS), out=tmp_path / "run", resume=True)) == metrics(run)
    assert metrics(recurse(small(itemknn=NETWORKS))) == metrics(run)


def test_the_guard_is_as_patient_as_seeds_are_said_to_differ(collapsing: None) -> None:
    run = recurse(small(rounds=1, guard_noise=0.9, itemknn=NETWORKS))
    assert run.rounds[1].against_best["high"] > 0
    assert not run.rounds[1].worse


def test_without_the_guard_a_collapse_goes_on(collapsing: None, tmp_path: Path) -> None:
    recurse(small(itemknn=NETWORKS), out=tmp_path / "run")
    on = recurse(small(guard=False, itemknn=NETWORKS), out=tmp_path / "run", resume=True)
    assert [result.worse for result in on.rounds] == [False, True, True]
    assert on.rounds[2].against_best["round"] == on.best == 0
    assert metrics(on) == metrics(recurse(small(guard=False, itemknn=NETWORKS)))

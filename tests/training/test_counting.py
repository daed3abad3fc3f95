"""The search of the item-kNN's parameters, and runs whose item-kNN was searched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsir
from rsir.cli.main import main
from rsir.config import ItemKnnConfig
from rsir.config.counting import FIXED
from rsir.data import Sequences, leave_one_out
from rsir.data.sequences import item_popularity
from rsir.data.splits import EvaluationSet, Split
from rsir.evaluation import evaluate
from rsir.models import ItemKnn, Popularity, WithItemKnn
from rsir.recursion.baselines import counted
from rsir.recursion.counts import Counts
from rsir.runtime.runtime import RUNTIME
from rsir.training import counting, voting
from rsir.training.counting import GRID, searched
from tests.cli.fake_loop import result

SMALL: dict[str, Any] = {
    "rounds": 1,
    "model": {"dim": 8, "layers": 1, "heads": 1, "feedforward": 8},
    "training": {"max_evaluations": 1},
    "fidelity": {"tau": 10},
    "simulation": {"num_users": 80, "num_items": 50},
}


def _parts(seed: int = 5) -> Split:
    rng = np.random.default_rng(seed)
    walks = (rng.integers(1, 31) + np.cumsum(rng.integers(0, 4, rng.integers(5, 20))) for _ in range(80))
    return leave_one_out(Sequences.from_lists([walk % 30 + 1 for walk in walks], 30))


def _value(config: ItemKnnConfig, parts: Split) -> float:
    return evaluate(ItemKnn.fit(parts.train, config), parts.validation).metrics["ndcg@20"]


def test_what_is_found_is_the_best_of_what_is_tried() -> None:
    parts = _parts()
    found = searched(ItemKnnConfig(), parts.train, parts.validation)
    assert _value(found, parts) > _value(ItemKnnConfig(), parts)
    assert all(getattr(found, name) in GRID[name] for name in FIXED)
    for name in GRID:
        one = searched(ItemKnnConfig(**found.parameters() | {name: None}), parts.train, parts.validation)
        values = {value: _value(replace(found, **{name: value}), parts) for value in GRID[name]}
        assert values[getattr(one, name)] == max(values.values())


def test_what_is_given_stays() -> None:
    parts = _parts()
    given = ItemKnnConfig(window=3, age_decay=0.7, newest=7)
    found = searched(given, parts.train, parts.validation)
    assert (found.window, found.age_decay, found.newest) == (3, 0.7, 7)
    assert found.decay != FIXED["decay"] or found.backward != FIXED["backward"]
    whole = ItemKnnConfig().filled()
    assert searched(replace(whole, search="auto"), parts.train, parts.validation) == whole


@pytest.mark.parametrize("repeats", ["excluded", "included", "targets"])
def test_trials_are_evaluated_as_recommenders_are(repeats: Any) -> None:
    parts = _parts()
    tasks = replace(parts.validation, repeats=repeats)  # walks come back to where they were
    assert tasks.known().any()
    for config in (ItemKnnConfig(), ItemKnnConfig(window=2, backward=0.0, age_decay=0.3)):
        knn = ItemKnn.fit(parts.train, config)
        every_second = np.arange(0, len(tasks), 2)
        found = counting._ranks(knn, tasks, every_second, None)
        expected = evaluate(knn, tasks).ranks[every_second]
        listed = found > 0
        assert listed.mean() > 0.5
        assert found[listed].tolist() == expected[listed].tolist()


def test_of_many_tasks_some_are_taken_at_even_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, picked = _parts(), []
    monkeypatch.setattr(counting, "_TASKS", 20)

    def ranks(knn: ItemKnn, tasks: EvaluationSet, rows: np.ndarray, threads: int | None) -> np.ndarray:
        picked.append(rows.tolist())
        return np.ones(len(rows), np.int64)

    monkeypatch.setattr(counting, "_ranks", ranks)
    assert searched(ItemKnnConfig(), parts.train, parts.validation) == ItemKnnConfig().filled()  # none is better
    assert picked[0] == list(range(0, 80, 4))


def test_parameters_that_are_known_are_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = _parts()
    knn = counted(parts, ItemKnnConfig())
    assert knn is not None
    assert knn.config == searched(ItemKnnConfig(), parts.train, parts.validation)
    monkeypatch.delattr(counting, "_Trials")
    again = counted(parts, ItemKnnConfig(), known=knn.config.parameters())
    assert again is not None
    assert again.config == knn.config


@pytest.mark.parametrize("prefers", ["fixed", "found"])
def test_the_base_chooses_which_count_votes(prefers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voting, "WEIGHTS", (0.5,))  # so that one votes, whatever a network so small is worth
    ranks = voting.ranks_by_weight

    def partial(network: Any, knn: ItemKnn, tasks: EvaluationSet, **more: Any) -> np.ndarray:
        is_fixed = knn.config == ItemKnnConfig().filled()
        return (
            ranks(network, knn, tasks, **more) if is_fixed == (prefers == "fixed") else np.zeros((1, len(tasks)), int)
        )

    monkeypatch.setattr(voting, "ranks_by_weight", partial)
    run = rsir.run(out=tmp_path / "whole", **SMALL)
    found = run.baselines["item-kNN"]["parameters"]
    votes = run.rounds[0].itemknn
    assert found != FIXED
    assert votes == (FIXED if prefers == "fixed" else found)
    assert run.rounds[1].itemknn == votes
    again = rsir.load(tmp_path / "whole")
    assert isinstance(again.model, WithItemKnn)
    assert again.model.knn.config.parameters() == votes
    assert rsir.evaluate(again).metrics == run.rounds[run.best].test
    rsir.run(out=tmp_path / "parts", **{**SMALL, "rounds": 0})
    monkeypatch.delattr(counting, "_Trials")  # not searched again
    rsir.run(out=tmp_path / "parts", resume=True, rounds=1)
    for name in ("metrics.jsonl", "baselines.json", "round-01/model.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    served = run.refit(tmp_path / "refit")
    assert served.model.knn.config.parameters() == votes
    assert rsir.load(tmp_path / "refit").model.knn.config.parameters() == votes
    labels = run.data.item_labels.to_pylist()
    counts = ItemKnn.fit(run.data, ItemKnnConfig().filled(votes))
    assert served.similar(labels[0], 3, by="count") == [
        (labels[item - 1], pytest.approx(score, rel=1e-6)) for item, score in _nearest(counts, 1, 3)
    ]


def test_what_the_base_has_chosen_votes_whatever_is_measured() -> None:
    parts, config = _parts(), rsir.RecursionConfig()
    measured = ItemKnn.fit(parts.train, ItemKnnConfig(window=5).filled())  # a search of another version, say
    networks = Popularity(item_popularity(parts.train))
    for chosen in (FIXED, FIXED | {"window": 5}, FIXED | {"window": 2}):
        base = replace(result(0), vote=0.5, itemknn=chosen)
        voting = Counts(config, parts, measured, None, [base], RUNTIME).beside(networks, 0)
        assert voting.knn.config.parameters() == chosen


def _nearest(knn: ItemKnn, item: int, k: int) -> list[tuple[int, float]]:
    found = knn.shares(np.array([item], np.int32), np.array([0, 1]))
    pairs = [(int(i), float(value)) for i, value in zip(found.ids, found.values, strict=True) if i != item]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]


def test_a_run_says_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = rsir.run(out=tmp_path / "run", **{**SMALL, "rounds": 0})
    assert main(["inspect", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    found = run.baselines["item-kNN"]["parameters"]
    name, value = next((name, value) for name, value in found.items() if value != FIXED[name])
    assert f"{name} {value:g}" in next(
        line for line in shown.splitlines() if line.startswith("Count:     The item-kNN")
    )
    assert "which a search on validation found" in (tmp_path / "run" / "report.html").read_text()
    fixed = rsir.run(itemknn={"search": "off"}, **{**SMALL, "rounds": 0})
    assert fixed.baselines["item-kNN"]["parameters"] == FIXED == fixed.rounds[0].itemknn

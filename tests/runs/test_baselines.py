"""Baselines of a run, and what is remarked on rounds that stand beside them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import rsir
import rsir.evaluation
from rsir.cli.main import main
from rsir.cli.show import rounds_table
from rsir.config.counting import FIXED
from rsir.data import leave_one_out
from rsir.data.sequences import item_popularity
from rsir.errors import ConfigError, DataWarning, RunError
from rsir.evaluation import evaluate
from rsir.models import ItemKnn, Popularity
from rsir.recursion.baselines import baselines, counted
from rsir.report.page import Report
from rsir.runs.baselines import remarks, said_of_the_search
from rsir.runtime.memory import Budget, memory_limit
from rsir.training.counting import searched
from tests.cli.fake_loop import result

BESIDE = {
    "item-kNN": {
        "validation": {"ndcg@20": 0.0720, "recall@10": 0.1, "ndcg@10": 0.06},
        "test": {"recall@10": 0.09, "ndcg@10": 0.05},
    }
}
SMALL: dict[str, Any] = {
    "rounds": 1,
    "model": {"dim": 8, "layers": 1, "heads": 1, "feedforward": 8},
    "training": {"max_evaluations": 1},
    "fidelity": {"tau": 10},
    "simulation": {"num_users": 80, "num_items": 50},
}


def test_rounds_below_a_baseline_are_named() -> None:
    assert remarks([result(0, 0.0721), result(1, 0.0733)], BESIDE) == []
    assert remarks([result(0, 0.0711), result(1, 0.0733)], BESIDE) == [
        "Round 0 is below item-kNN on validation (NDCG@20 0.0711 against 0.0720)."
    ]
    assert remarks([result(0, 0.0711), result(1, 0.0702)], BESIDE) == [
        "Rounds 0, 1 are below item-kNN on validation (NDCG@20 0.0711, 0.0702 against 0.0720)."
    ]
    assert remarks([result(0, 0.0)], {}) == []  # of a run that an earlier version wrote


@pytest.mark.parametrize(("coverage", "said"), [(0.05, []), (0.009, ["0.9% of the catalogue"])])
def test_a_round_that_recommends_little_of_the_catalogue_is_named(coverage: float, said: list[str]) -> None:
    narrow = result(0, 0.09)
    narrow = dataclasses.replace(narrow, validation=narrow.validation | {"coverage@10": coverage})
    found = remarks([narrow], BESIDE)
    assert len(found) == len(said)
    assert all(text in sentence for text, sentence in zip(said, found, strict=True))


@pytest.mark.parametrize(("best_step", "validations", "said"), [(30, 12, True), (40, 12, False), (30, 9, False)])
def test_a_training_that_stopped_within_its_first_validations_is_named(
    best_step: int, validations: int, said: bool
) -> None:
    steps = [10.0 * number for number in range(1, validations + 1)]
    early = dataclasses.replace(result(0, 0.09), best_step=best_step, history={"step": steps})
    assert ("within the first 3 validations" in " ".join(remarks([early], BESIDE))) == said


def test_the_table_has_a_row_for_each() -> None:
    table = rounds_table([result(0)], 0, BESIDE)
    values = ["0.0720", "0.1000", "0.0600", "0.0900", "0.0500"]
    assert "   kNN  " + "           ".join(values) in table.splitlines()


def test_a_run_measures_them_and_keeps_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = rsir.run(out=tmp_path / "run", **SMALL)
    parts = leave_one_out(run.data)
    popularity = item_popularity(parts.train)
    for name, model in (
        ("item-kNN", ItemKnn.fit(parts.train, searched(run.config.itemknn, parts.train, parts.validation))),
        ("popularity", Popularity(popularity)),
    ):
        for part in ("validation", "test"):
            found = evaluate(model, getattr(parts, part), popularity=popularity).metrics
            assert run.baselines[name][part] == found
    assert rsir.load(tmp_path / "run").baselines == run.baselines
    assert main(["inspect", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "\n   kNN  " in shown
    assert "\n  pop.  " in shown
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Beside the baselines" in page
    assert f"{run.baselines['item-kNN']['test']['ndcg@10']:.4f}" in page
    (tmp_path / "run" / "baselines.json").unlink()
    assert rsir.load(tmp_path / "run").baselines == {}


def test_the_page_says_what_is_remarked() -> None:
    data = rsir.Sequences.from_lists([[1, 2, 3], [2, 3, 4]], 4)
    report = Report(rsir.RecursionConfig(rounds=0), data, data, BESIDE)
    report.add(result(0, 0.07), None)
    assert "Round 0 is below item-kNN on validation" in report.page("run", {})


def test_a_count_that_might_not_stay_within_the_limit_on_memory_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rsir.Sequences.from_lists([[1, 2, 3, 4]] * 10, 4)
    parts, config = leave_one_out(data), rsir.ItemKnnConfig(search="off")
    popularity, needs = item_popularity(parts.train), []

    def left(self: Budget, asked: dict[str, int]) -> int:
        needs.append(asked)
        if len(needs) > 1:
            raise ConfigError("memory: expected more")
        return 0

    monkeypatch.setattr(Budget, "left", left)
    with memory_limit(2**40, tmp_path):
        assert set(baselines(parts, popularity, counted(parts, config))) == {"item-kNN", "popularity"}
        assert needs == [{"the item-kNN": 16 * 20 + 16 * min(40 * 20, 500 * 4)}]
        with pytest.warns(DataWarning, match="not compared with an item-kNN: memory: expected more"):
            assert set(baselines(parts, popularity, counted(parts, config))) == {"popularity"}


def test_popularity_recommends_what_occurs_most() -> None:
    data = rsir.Sequences.from_lists([[1, 2, 3], [3, 2], [3, 4, 1]], 4)
    best = rsir.evaluation.recommend(Popularity(item_popularity(data)), data.lists, 2).ids
    assert best.tolist() == [[4, 0], [1, 4], [2, 0]]


def test_without_memory_for_a_search_the_fixed_values_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = leave_one_out(rsir.Sequences.from_lists([[1, 2, 3, 4]] * 10, 400))
    needs: list[int] = []

    def left(self: Budget, asked: dict[str, int]) -> int:
        needs.append(asked["the item-kNN"])
        if len(needs) == 1:
            raise ConfigError("memory: expected more")
        return 0

    monkeypatch.setattr(Budget, "left", left)
    with memory_limit(2**40, tmp_path), pytest.warns(DataWarning, match="are not searched and have their fixed values"):
        knn = counted(parts, rsir.ItemKnnConfig())
    assert knn is not None
    assert knn.config == rsir.ItemKnnConfig().filled()
    assert needs == [16 * 20 + 24 * 2 * 50 * 20, 16 * 20 + 16 * 2 * 20 * 20]  # two counts of a window of up to 50


@pytest.mark.parametrize(
    ("found", "votes", "said"),
    [
        (
            {},
            {},
            "No values of the item-kNN's parameters were found that are better on validation than the fixed ones.",
        ),
        ({"window": 50}, {"window": 50}, "The item-kNN has window 50, which a search on validation found."),
        (
            {"window": 50, "decay": 0.95},
            {},
            "The item-kNN has window 50, decay 0.95, which a search on validation found; the vote beside the networks "
            "has the fixed values, with which the base is at least as good.",
        ),
    ],
)
def test_what_a_search_came_to_is_said(found: dict[str, float], votes: dict[str, float], said: str) -> None:
    config = rsir.ItemKnnConfig()
    fixed = config.parameters()
    base = dataclasses.replace(result(0), itemknn=fixed | votes)
    beside = {"item-kNN": {**BESIDE["item-kNN"], "parameters": fixed | found}}
    assert said_of_the_search([base], beside, config) == said
    assert said_of_the_search([base], BESIDE, config) == ""  # of a run that an earlier version wrote
    assert said_of_the_search([base], beside, config.filled()) == ""


def test_damaged_parameters_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    rsir.run(out=out, **{**SMALL, "rounds": 0})
    beside = json.loads((out / "baselines.json").read_text())
    wrong = ({"other": 1}, {"window": "20"}, {"window": -4}, {"decay": None})
    said = r"baselines\.json: is damaged; put the original back"
    for parameters in ([1, 2], {"window": 5}, *({**FIXED, **one} for one in wrong)):
        beside["item-kNN"]["parameters"] = parameters
        (out / "baselines.json").write_text(json.dumps(beside))
        with pytest.raises(RunError, match=said):
            rsir.load(out)
        with pytest.raises(RunError, match=said):
            rsir.run(out=out, resume=True, rounds=1)
        assert main(["inspect", str(out)]) == 2
        assert "baselines.json: is damaged" in capsys.readouterr().err

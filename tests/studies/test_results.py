"""The page of results: its tables from lines written here, and docs/results.md from those in docs/results."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from rsir.config.counting import FIXED
from rsir.studies.lines import Lines
from rsir.studies.results import page, write
from rsir.studies.tables import holm

DOCS = Path(__file__).parents[2] / "docs"


def test_docs_have_the_page_that_their_lines_make(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = write(DOCS / "results", tmp_path / "results.md").read_text()
    assert made == (DOCS / "results.md").read_text(), "run: rsir studies results docs/results --out docs/results.md"


def test_the_default_s_page_says_what_validation_chooses_and_what_it_is_compared_with(tmp_path: Path) -> None:
    """Of a seed whose rounds lose on validation, the base's test metrics."""
    study = Lines(tmp_path / "default.jsonl")
    place = {"data": "amazon-beauty", "backbone": "bsarec", "seed": 0, "settings": "x"}

    def put(arm: str, round_: int, validation: float, test: float, **extra: Any) -> None:
        metrics = [dict.fromkeys(("recall@10", "ndcg@10", "ndcg@20"), value) for value in (validation, test)]
        line = {"kind": "training", **place, "arm": arm, "round": round_, "seconds": 60.0 * (1 + round_), **extra}
        study.put({**line, "validation": metrics[0], "test": metrics[1] | {"coverage@10": 0.5}})

    put("count", 0, 0.1, 0.2)
    put("base", 0, 0.1, 0.3)
    put("base + count", 0, 0.4, 0.4, vote=2.0)
    put("rsir, all + count", 1, 0.3, 0.5, vote=1.0)
    put("base, two seeds + count", 0, 0.3, 0.45, vote=0.5)
    test = {"difference": 0.1, "low": 0.05, "high": 0.15, "p_value": 0.001}
    compared = {**place, "arm": "rsir, all + count", "round": 1, "seeds": [0]}
    tests = dict.fromkeys(("validation/ndcg@20", "recall@10", "ndcg@10"), test)
    study.put({"kind": "comparison with the count", **compared, "against": "base + count", **tests})
    study.put({"kind": "comparison with as many bases", **compared, "against": "base, two seeds + count", **tests})
    text = page({"default": study})
    both = "{0:.4f} / {0:.4f}".format
    cells = [both(0.2), both(0.3), both(0.4), both(0.5), both(0.45), "", "", f"{both(0.4)} (+0.0% / +0.0%)", "120"]
    assert f"| amazon-beauty | bsarec | 1 |  | {' | '.join(cells)} |" in text
    gain = "+25.0% (+12.5% to +37.5%)"
    assert f"| round 1: all networks + count | 1 | 1 | 0.3000 | {gain} | 0.5000 | {gain} | 0.5000 | {gain} |" in text
    assert "| round 1 over 2 bases + count | 1 | +33.3% (+16.7% to +50.0%) | +22.2% (+11.1% to +33.3%) |" in text
    assert "| amazon-beauty | BSARec | 0.1008 | 0.0611 | [arXiv 2312.10325]" in text
    put("rsir, all + count", 1, 0.5, 0.5, vote=1.0)
    assert f"{both(0.5)} (+25.0% / +25.0%) | 120 |" in page({"default": study})
    doubtful = test | {"p_value": 0.03}
    study.put(
        {"kind": "comparison with the count", **compared, "against": "base + count", **tests, "recall@10": doubtful}
    )
    assert f"| 0.5000 | {gain} | 0.5000 | {gain} | 0.5000 | {gain} |" in page({"default": study})  # one among six
    study.put({"kind": "comparison", **compared, "arm": "rsir", "against": "base", "recall@10": doubtful})
    assert f"| 0.5000 | {gain} | 0.5000 | {gain}° | 0.5000 | {gain} |" in page({"default": study})  # above 0.05 / 2


def test_tests_hold_among_many_by_holm_s_rule() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]  # 0.03 is above 0.05 / 2, which ends it
    assert holm([0.01, 0.02, 0.04]) == [True, True, True]
    assert holm([]) == []


def test_the_page_names_what_the_search_found_and_who_votes(tmp_path: Path) -> None:
    study = Lines(tmp_path / "default.jsonl")
    for seed, voter in ((0, "found"), (1, "fixed"), (2, "found")):
        place = {"kind": "training", "data": "d", "backbone": "bsarec", "seed": seed, "round": 0, "settings": "x"}
        metrics = dict.fromkeys(("recall@10", "ndcg@10", "ndcg@20", "coverage@10"), 0.5)
        both = {"validation": metrics, "test": metrics, "seconds": 1.0}
        study.put({**place, "arm": "count", **both, "parameters": FIXED | {"window": 50, "decay": 0.95}})
        study.put({**place, "arm": "base", **both})
        study.put({**place, "arm": "base + count", **both, "vote": 1.0, "voter": voter})
    said = "The count: `window` 50, `decay` 0.95 found; beside the networks vote the found values (seed 0, 2)"
    assert f"{said} and the fixed ones (seed 1)." in page({"default": study})


def test_the_page_has_the_figures_of_the_paper_beside_ours(tmp_path: Path) -> None:
    study = Lines(tmp_path / "main.jsonl")
    for seed, arm, round_, recall in ((0, "base", 0, 0.05), (1, "base", 0, 0.07), (0, "rsir", 1, 0.06)):
        metrics = {"recall@10": recall, "ndcg@10": 0.5, "ndcg@20": 0.5}
        place = {"data": "yelp", "backbone": "sasrec", "arm": arm, "round": round_, "seed": seed, "settings": "x"}
        study.put({"kind": "training", **place, "validation": metrics, "test": metrics})
    text = page({"main": study})
    # the gain is over the base of the same seeds
    assert "| yelp | 0.0379 | 0.0399 (+5.3%) | 0.0420 (+10.8%) | 0.0600 | 0.0600 (+20.0%) (1) |  |  |  |  |" in text
    assert "| amazon-toys |" not in text


def test_p_values_are_of_the_seeds_they_stand_beside(tmp_path: Path) -> None:
    study = Lines(tmp_path / "main.jsonl")
    place = {"data": "toys", "backbone": "sasrec"}
    for seed, arm, round_ in itertools.product((0, 1), ("base", "rsir"), (0, 1)):
        if (arm == "base") == (round_ == 0):
            metrics = dict.fromkeys(("recall@10", "ndcg@10", "ndcg@20"), 0.5 + 0.1 * round_)
            training = {"kind": "training", **place, "arm": arm, "round": round_, "seed": seed, "settings": "x"}
            study.put({**training, "validation": metrics, "test": metrics})
    compared = {"kind": "comparison", **place, "arm": "rsir", "round": 1, "against": "base"}
    tests = {"recall@10": {"p_value": 0.01}, "ndcg@10": {"p_value": None}}  # none: nothing differs
    for seeds, summary, p in (([1], "+20.0% / +20.0%", ""), ([0, 1], "**+20.0%** / +20.0%", "0.0100")):
        study.put({**compared, "seeds": seeds, **tests})
        text = page({"main": study})
        assert f"| toys | sasrec | 2 | {summary} |" in text
        (row,) = (row for row in text.splitlines() if row.startswith("| rsir | 1 |"))
        assert [cell.strip() for cell in row.split("|")][9:13:3] == [p, ""]


def test_the_page_shows_what_else_was_measured(tmp_path: Path) -> None:
    study = Lines(tmp_path / "landscape.jsonl")
    place = {"data": "toys", "backbone": "sasrec", "arm": "base", "round": 0}
    for seed, value in ((0, 1.0), (1, 3.0)):
        study.put({"kind": "measurement", **place, "seed": seed, "settings": "x", "sharpness": value, "loss": None})
        metrics = {"recall@10": 0.5, "ndcg@10": 0.5, "ndcg@20": 0.5}
        study.put({"kind": "training", **place, "seed": seed, "settings": "x", "validation": metrics, "test": metrics})
    text = page({"landscape": study})
    assert "| arm | round | seeds | sharpness | loss |" in text
    assert "| base | 0 | 2 | 2.000 ± 1.414 |  |" in text

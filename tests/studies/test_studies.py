"""Studies on simulated users, tiny: what they record, and that they go on where they ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsir.config import ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig
from rsir.evaluation import evaluate, paired_test
from rsir.models import Ensemble, checkpoint
from rsir.recursion import load_data
from rsir.studies import lab as module
from rsir.studies.__main__ import main
from rsir.studies.lab import Lab, Lines
from rsir.studies.main import inserted, reordered

TINY = [
    *("--simulation.num_users", "150", "--simulation.num_items", "80"),
    *("--model.dim", "16", "--model.feedforward", "16", "--model.layers", "1"),
    *("--training.max_evaluations", "2", "--training.negatives", "32", "--generation.m", "2"),
]
CONFIG = RecursionConfig(
    simulation=SimulationConfig(num_users=150, num_items=80),
    model=ModelConfig(dim=16, feedforward=16, layers=1),
    training=TrainingConfig(max_evaluations=2, negatives=32),
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    assert main(["main", "--seeds", "0", "1", "--rounds", "2", "--out", str(folder), *TINY]) == 0
    return folder


def test_main_has_every_arm_for_every_seed(out: Path) -> None:
    found = [line for line in lines(out / "main.jsonl") if line["kind"] == "training"]
    arms = {(line["arm"], line["round"]) for line in found}
    assert arms == {
        ("base", 0),
        ("base, two seeds", 0),
        *((arm, k) for arm in ("rsir", "rsir, pair", "paper") for k in (1, 2)),
        ("paper, fine-tuned", 1),
        ("reordering", 1),
        ("insertion", 1),
    }
    assert len(found) == 2 * len(arms)
    for line in found:
        assert 0 <= line["test"]["recall@10"] <= 1
        assert line["validation"] != line["test"]


def test_comparisons_are_paired_over_users_after_averaging_seeds(out: Path) -> None:
    comparison = next(
        line
        for line in lines(out / "main.jsonl")
        if line["kind"] == "comparison" and (line["arm"], line["round"]) == ("rsir, pair", 2)
    )
    assert comparison["seeds"] == [0, 1]
    parts = Lab("simulated", load_data(CONFIG), CONFIG, Lines(out / "none"), out / "work", print).parts
    gains = []
    for seed in (0, 1):
        runs = out / "work" / "runs"
        (rounds,) = runs.glob(f"simulated-sasrec-rsir-{seed}-*")
        models = [checkpoint.load(rounds / f"round-{k:02d}") for k in range(3)]
        before, after = (evaluate(model, parts.test).gains("ndcg@10") for model in (models[0], Ensemble(models[1:])))
        gains.append((before, after))
    before, after = np.mean(gains, axis=0)
    assert comparison["ndcg@10"] == vars(paired_test(before, after))


def test_finished_work_is_not_done_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (out / "main.jsonl").read_bytes()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("rsir.recursion.fit", never)
    monkeypatch.setattr(module, "fit", never)
    assert main(["main", "--seeds", "0", "1", "--rounds", "2", "--out", str(out), *TINY]) == 0
    assert (out / "main.jsonl").read_bytes() == before


@pytest.mark.parametrize("study", ["rounds", "weak-to-strong"])
def test_the_other_studies_run(study: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsir.studies.weak_to_strong.WIDTHS", (8,))
    monkeypatch.setattr("rsir.studies.weak_to_strong.BACKBONES", ())
    assert main([study, "--seeds", "0", "--rounds", "2", "--out", str(out), *TINY]) == 0
    arms = {line["arm"] for line in lines(out / f"{study}.jsonl")}
    expected = {"rounds": {"base", "rsir", "paper", "rsir, no fidelity", "paper, no fidelity"}}
    assert arms == expected.get(study, {"base", "sasrec d 8 alone", "from sasrec d 8"})


def test_reordering_and_insertion_enlarge_the_data_and_keep_the_items() -> None:
    lab = Lab("simulated", load_data(CONFIG), CONFIG, Lines(Path("none")), Path("none"), print)
    train = lab.parts.train
    shuffled = reordered(train, 0)
    assert (shuffled.source == np.arange(len(train))).all()
    assert not shuffled.is_real.any()
    assert [sorted(shuffled[row]) for row in range(len(train))] == [sorted(train[row]) for row in range(len(train))]
    assert any(shuffled[row].tolist() != train[row].tolist() for row in range(len(train)))


def test_insertion_puts_neighbours_after_a_fifth_of_the_items(tmp_path: Path) -> None:
    lab = Lab("simulated", load_data(CONFIG), CONFIG, Lines(tmp_path / "lines"), tmp_path, print)
    train = lab.parts.train
    longer = inserted(train, lab, 0)
    assert (longer.lengths == train.lengths + np.maximum(1, train.lengths // 5)).all()
    table = lab.base().model.item_embeddings().detach().numpy()[1:]
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    nearest = (table @ table.T - 2 * np.eye(len(table))).argmax(1) + 1
    for row in range(len(train)):
        real, new = train[row].tolist(), longer[row].tolist()
        assert _is_insertion(real, new, nearest)


def _is_insertion(real: list[int], new: list[int], nearest: np.ndarray) -> bool:
    """Whether `new` is `real` with the nearest neighbours of some items put in after them."""
    if not real or not new:
        return real == new
    if real[0] != new[0]:
        return False
    with_neighbour = len(new) > 1 and new[1] == nearest[real[0] - 1] and _is_insertion(real[1:], new[2:], nearest)
    return with_neighbour or _is_insertion(real[1:], new[1:], nearest)


def test_an_unknown_option_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["main", "--out", str(tmp_path), "--generation.mm", "3"]) == 2
    assert "--generation.mm: unknown option; did you mean" in capsys.readouterr().err


def test_lines_replace_those_of_the_same_training(tmp_path: Path) -> None:
    kept = Lines(tmp_path / "a.jsonl")
    kept.put({"kind": "training", "arm": "a", "seed": 0, "value": 1})
    kept.put({"kind": "training", "arm": "b", "seed": 0, "value": 2})
    kept.put({"kind": "training", "arm": "a", "seed": 0, "value": 3})
    assert [line["value"] for line in Lines(tmp_path / "a.jsonl")] == [3, 2]

"""Studies on simulated users, tiny: what they record, and that they go on where they ended."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsir.config import ModelConfig, RecursionConfig, TrainingConfig
from rsir.data import Sequences
from rsir.data.load import load_data
from rsir.evaluation import evaluate, paired_test
from rsir.models import Ensemble, ItemKnn, checkpoint
from rsir.models.itemknn import with_vote
from rsir.recursion.loop import recurse
from rsir.studies import lab as module
from rsir.studies.data import approximate_entropy, density, popularity_share
from rsir.studies.lab import Lab, spent
from rsir.studies.landscape import along, sharpness
from rsir.studies.lines import Lines
from rsir.studies.main import inserted, reordered
from rsir.studies.noise import noisy
from rsir.studies.results import page
from rsir.training.counting import searched
from rsir.training.voting import best_vote, vote_weight
from tests.studies.small import CONFIG, TINY, lines, main

MAIN = ["main", "--models", "sasrec", "--seeds", "0", "1", "--rounds", "2"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    assert main([*MAIN, "--out", str(folder), *TINY]) == 0
    return folder


def test_main_has_every_arm_for_every_seed(out: Path) -> None:
    found = [line for line in lines(out / "main.jsonl") if line["kind"] == "training"]
    arms = {(line["arm"], line["round"]) for line in found}
    networks = {
        ("base", 0),
        ("base, two seeds", 0),
        ("base, four seeds", 0),
        *((arm, k) for arm in ("rsir", "rsir, pair", "rsir, all") for k in (1, 2)),
        ("one round, two seeds", 1),
        ("paper", 1),
        ("paper, fine-tuned", 1),
        ("reordering", 1),
        ("insertion", 1),
    }
    assert arms == {("count", 0), *networks, *((f"{arm} + count", k) for arm, k in networks)}
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
        (rounds,) = (run for run in runs.glob(f"simulated-sasrec-recursion-{seed}-*") if (run / "round-02").exists())
        models = [checkpoint.load(rounds / f"round-{k:02d}") for k in range(3)]
        before, after = (evaluate(model, parts.test).gains("ndcg@10") for model in (models[0], Ensemble(models[1:])))
        gains.append((before, after))
    before, after = np.mean(gains, axis=0)
    assert comparison["ndcg@10"] == vars(paired_test(before, after))


def test_the_count_votes_in_arms_of_its_own(out: Path) -> None:
    """Beside the networks of the arm, with the best weight on validation, against the base and that vote."""
    study, name = Lines(out / "main.jsonl"), "one round, two seeds + count"
    found = {(line["arm"], line["round"], line["seed"]): line for line in study if line["kind"] == "training"}
    config = dataclasses.replace(CONFIG, seed=0)
    parts = Lab("simulated", load_data(CONFIG), config, Lines(out / "none"), out / "work", print).parts
    fixed, networks = ItemKnn.fit(parts.train), []
    knn = ItemKnn.fit(parts.train, searched(config.itemknn, parts.train, parts.validation))
    for seed in (0, 1):
        (own,) = (
            run
            for run in (out / "work" / "runs").glob(f"simulated-sasrec-recursion-{seed}-*")
            if (run / "round-02").exists()
        )
        networks += [checkpoint.load(own / f"round-{k:02d}") for k in (0, 1)]
    four, line = Ensemble(networks), found[name, 1, 0]
    voter, _ = best_vote(networks[0], [fixed, knn], parts.validation)
    assert line["vote"] == vote_weight(four, voter, parts.validation)
    assert line["test"] == evaluate(with_vote(four, voter, line["vote"]), parts.test).metrics
    assert found["one round, two seeds", 1, 0]["test"] == evaluate(four, parts.test).metrics
    assert found["count", 0, 0]["test"] == evaluate(knn, parts.test).metrics
    compared = {(line["arm"], line["round"]): line for line in study if line["kind"] == "comparison with the count"}
    assert compared[name, 1]["against"] == "base + count"
    assert ("base + count", 0) not in compared
    assert not [arm for arm, _ in compared if not arm.endswith(" + count")]
    gain = np.mean([found[name, 1, seed]["validation"]["ndcg@20"] for seed in (0, 1)]) - np.mean(
        [found["base + count", 0, seed]["validation"]["ndcg@20"] for seed in (0, 1)]
    )
    assert compared[name, 1]["validation/ndcg@20"]["difference"] == pytest.approx(gain)
    text = page({"main": study})
    (row,) = (row for row in text.split("gains are over the base and that vote")[1].splitlines() if "| one r" in row)
    test = compared[name, 1]["validation/ndcg@20"]
    before = np.mean([found["base + count", 0, seed]["validation"]["ndcg@20"] for seed in (0, 1)])
    low, high = (f"{test[end] / before:+.1%}" for end in ("low", "high"))
    assert f"({low} to {high})" in row.split("|")[6]


def test_rounds_are_compared_with_the_one_before_and_with_as_many_bases(out: Path) -> None:
    study = Lines(out / "main.jsonl")
    found = {(line["arm"], line["round"], line["seed"]): line for line in study if line["kind"] == "training"}
    for kind, round_, against in (
        ("the round before", 2, ("rsir, all + count", 1)),
        ("as many bases", 1, ("base, two seeds + count", 0)),
    ):
        (line,) = (line for line in study if line["kind"] == f"comparison with {kind}")
        assert (line["arm"], line["round"], line["against"]) == ("rsir, all + count", round_, against[0])
        for part, metric, name in (
            ("validation", "ndcg@20", "validation/ndcg@20"),
            ("test", "recall@10", "recall@10"),
        ):
            after, before = (
                np.mean([found[(*place, seed)][part][metric] for seed in (0, 1)])
                for place in (("rsir, all + count", round_), against)
            )
            assert line[name]["difference"] == pytest.approx(after - before)


def test_the_page_shows_means_gains_and_the_command(out: Path) -> None:
    study = Lines(out / "main.jsonl")
    text = page({"main": study}, {"notes": "What was found.", "main": "Of one backbone."})
    assert text.startswith("# Results\n\nWhat was found.\n\n## What the recursion gains\n\nOf one backbone.\n\n")
    assert "\n\n## Of one backbone\n\nSmall.\n\nChange of test" in page(
        {"main": study}, {"main": "## Of one backbone\n\nSmall."}
    )
    assert f"rsir studies {' '.join([*MAIN, *TINY])}\n" in text
    trained = [line for line in study if line["kind"] == "training"]
    found = [line["test"]["recall@10"] for line in trained if (line["arm"], line["round"]) == ("rsir, all", 2)]
    base = [line["test"]["recall@10"] for line in trained if line["arm"] == "base"]
    (row,) = (row for row in text.splitlines() if row.startswith("| rsir, all | 2 |"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2] == "2"
    assert cells[6:8] == [
        f"{np.mean(found):.4f} ± {np.std(found, ddof=1):.4f}",
        f"{np.mean(found) / np.mean(base) - 1:+.1%}",
    ]
    assert 0 <= float(cells[8]) <= 1
    (summary,) = (row for row in text.splitlines() if row.startswith("| simulated | sasrec | 2 |"))
    (head,) = (row for row in text.splitlines() if row.startswith("| data | backbone | seeds |"))
    column = head.split(" | ").index("one round")
    first = [line["test"] for line in trained if (line["arm"], line["round"]) == ("rsir, all", 1)]
    gains = [
        np.mean([test[metric] for test in first])
        / np.mean([line["test"][metric] for line in trained if line["arm"] == "base"])
        - 1
        for metric in ("recall@10", "ndcg@10")
    ]
    shown = summary.split("|")[1 + column].strip().replace("*", "")
    assert shown == " / ".join(f"{gain:+.1%}" for gain in gains)


def test_studies_of_other_seeds_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--rounds", "1", "--arms", "rsir", *TINY]
    for seed in "01":
        assert main(["main", "--seeds", seed, "--out", str(tmp_path / seed), *given]) == 0
    with (tmp_path / "0" / "main.jsonl").open("a") as file:
        file.write((tmp_path / "1" / "main.jsonl").read_text())
    shutil.copytree(tmp_path / "1" / "work", tmp_path / "0" / "work", dirs_exist_ok=True)
    monkeypatch.setattr("rsir.recursion.loop.fit", None)  # nothing is trained
    both = ["main", "--seeds", "0", "1", "--out", str(tmp_path / "0"), *given]
    capsys.readouterr()
    assert main(both) == 2
    assert "base-0-1.npy: is missing" in (said := capsys.readouterr().err)
    assert "copy the ranks of every machine into one folder" in said
    shutil.copytree(tmp_path / "1" / "ranks", tmp_path / "0" / "ranks", dirs_exist_ok=True)
    assert main(both) == 0
    comparisons = [line for line in lines(tmp_path / "0" / "main.jsonl") if line["kind"] == "comparison"]
    assert {line["arm"] for line in comparisons} == {"rsir", "rsir, pair", "rsir, all"}
    assert all(line["seeds"] == [0, 1] for line in comparisons)


def test_what_a_model_took_sums_the_rounds_up_to_it(out: Path) -> None:
    found = {(line["arm"], line["round"]): line for line in lines(out / "main.jsonl") if line.get("seed") == 0}
    took = [found["base", 0], found["rsir", 1], found["rsir", 2]]
    for before, after in itertools.pairwise(took):
        assert before["seconds"] < after["seconds"]
        assert before["operations"] < after["operations"]
    tokens, d = 1000, 4
    config = RecursionConfig(
        model=ModelConfig("sasrec", dim=d, feedforward=3, layers=1, heads=1), training=TrainingConfig(negatives=5)
    )
    queries, negatives, square, wide = (np.zeros(shape) for shape in ((tokens, d), (d, 5), (d, d), (d, 3)))
    products = [(queries, square)] * 4 + [(queries, wide), (queries @ wide, wide.T), (queries, negatives)]
    forward = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in products)
    (result,) = (round_ for round_ in recurse(dataclasses.replace(CONFIG, rounds=0)).rounds)
    cost = spent([dataclasses.replace(result, tokens=tokens)], config)
    assert cost["operations"] == 3 * forward


def test_finished_work_is_not_done_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (out / "main.jsonl").read_bytes()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("rsir.recursion.loop.fit", never)
    monkeypatch.setattr(module, "fit", never)
    assert main([*MAIN, "--out", str(out), *TINY]) == 0
    assert (out / "main.jsonl").read_bytes() == before


def test_more_rounds_go_on_with_the_run_of_fewer(tmp_path: Path) -> None:
    labs = [Lab("simulated", load_data(CONFIG), CONFIG, Lines(tmp_path / name), tmp_path, print) for name in "ab"]
    config = dataclasses.replace(CONFIG, rounds=1, stop_after=1)
    one = labs[0].recursion("one", config)
    two = labs[1].recursion("two", dataclasses.replace(config, rounds=2))
    again = labs[0].recursion("again", config)
    assert one.path == two.path == again.path
    assert [len(run.rounds) for run in (one, two, again)] == [2, 3, 3]
    assert {line["round"] for line in labs[0].lines} == {1}
    assert {line["round"] for line in labs[1].lines} == {1, 2}


@pytest.mark.filterwarnings("ignore:fidelity.tau 50")  # the arm with a fixed tau, on 80 items
@pytest.mark.parametrize("study", ["default", "rounds", "weak-to-strong", "cost", "noise", "data", "landscape"])
def test_the_other_studies_run(study: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsir.studies.weak_to_strong.WIDTHS", (8,))
    monkeypatch.setattr("rsir.studies.weak_to_strong.BACKBONES", ())
    monkeypatch.setattr("rsir.studies.cost.GRID", [("model", "dropout", [0.2])])
    monkeypatch.setattr("rsir.studies.noise.SHARES", (0.2,))
    rounds = [] if study in ("weak-to-strong", "landscape") else ["--rounds", "2"]
    assert main([study, "--seeds", "0", *rounds, "--out", str(out), *TINY]) == 0
    found = lines(out / f"{study}.jsonl")
    runs = {"one round, two seeds", "successors, three seeds"}
    networks = {"base", "rsir", "rsir, all", "base, two seeds", "base, three seeds", *runs}
    expected = {
        "default": {"popularity", "count", *networks, *(f"{arm} + count" for arm in networks)},
        "rounds": {
            "base",
            *("rsir", "rsir, pair", "rsir, all"),
            *("rsir, no fidelity", "rsir, no fidelity, pair", "rsir, no fidelity, all"),
            *("rsir, fixed tau", "rsir, fixed tau, pair", "rsir, fixed tau, all"),
            *("paper", "paper, no fidelity"),
        },
        "weak-to-strong": {"base", "bsarec d 8 alone", "from bsarec d 8"},
        "cost": {"base", "base, dropout 0.2", "base, two seeds", "rsir", "rsir, pair", "rsir, all"},
        "noise": {"base", "rsir"},
        "data": {"base", "rsir", "rsir, fixed tau", "paper"},
        "landscape": {"base", "rsir"},
    }
    assert {line["arm"] for line in found if line["kind"] != "command"} == expected[study]
    measured = [line for line in found if line["kind"] == "measurement"]
    assert len(measured) == {"data": 9, "landscape": 2}.get(study, 0)
    assert {line["data"] for line in found if line["kind"] != "command"} == {
        "simulated +20% noise" if study == "noise" else "simulated"
    }


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


def test_noise_keeps_the_held_out_events_and_the_order_of_the_others() -> None:
    data = load_data(CONFIG)
    changed = noisy(data, 0.3, seed=1)
    added = (changed.lengths - data.lengths).sum() / (data.lengths - 2).sum()
    assert added == pytest.approx(0.3, abs=0.05)
    for row in range(len(data)):
        real, mixed = data[row].tolist(), iter(changed[row].tolist())
        assert changed[row][-2:].tolist() == real[-2:]
        assert all(item in mixed for item in real), "the real items, in their order"


def test_statistics_of_a_training_set() -> None:
    real = Sequences.from_lists([[1, 2, 1, 2], [3]], num_items=4)
    made = Sequences.from_lists([[1, 4, 4]], num_items=4, source=[0], round=[1])
    assert density(real) == 3 / 8
    assert density(Sequences.concat(real, made)) == 4 / 8
    # Runs of two: 12, 21, 12; of one with a next item: 1, 2, 1. The next item is certain.
    assert approximate_entropy(real) == pytest.approx(0)
    either = Sequences.from_lists([[1, 2], [1, 3], [1, 2], [1, 3]], num_items=4)
    assert approximate_entropy(either) == pytest.approx(np.log(2))
    assert popularity_share(Sequences.concat(real, made), real, top=0.25) == 3 / 8


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian() -> None:
    curvature = torch.tensor([3.0, 0.5, 7.0, 1.0])
    model = torch.nn.Linear(4, 1, bias=False)
    before = model.weight.detach().clone()

    def loss() -> torch.Tensor:
        return (0.5 * curvature * model.weight**2).sum() + (0.1 * model.weight**3).sum()

    hessian = curvature + 0.6 * before[0]
    assert sharpness(model, loss, seed=0) == pytest.approx(float(hessian.abs().max()), rel=0.02)
    assert torch.equal(model.weight, before)
    assert along(model, loss, 0.0, seed=0) == float(loss().detach())
    assert along(model, loss, 0.5, seed=0) != float(loss().detach())
    assert torch.equal(model.weight, before)


def test_lines_replace_those_of_the_same_training(tmp_path: Path) -> None:
    kept = Lines(tmp_path / "a.jsonl")
    kept.put({"kind": "training", "arm": "a", "seed": 0, "value": 1})
    kept.put({"kind": "training", "arm": "b", "seed": 0, "value": 2})
    kept.put({"kind": "training", "arm": "a", "seed": 0, "value": 3})
    assert [line["value"] for line in Lines(tmp_path / "a.jsonl")] == [3, 2]

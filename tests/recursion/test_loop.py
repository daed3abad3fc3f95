"""The loop over rounds, on simulated users and a small model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rsir
import rsir.recursion.loop
from rsir.config import (
    AcquisitionConfig,
    DistillationConfig,
    FidelityConfig,
    GenerationConfig,
    ItemKnnConfig,
    ModelConfig,
    TrainingConfig,
)
from rsir.data import Sequences
from rsir.data.load import load_data, split
from rsir.data.sequences import item_popularity
from rsir.errors import ConfigError, DataError, Interrupted, RunError, TrainingError
from rsir.evaluation import evaluate, paired_test
from rsir.generation.enrich import Enricher
from rsir.models import BSARec, Ensemble, ItemKnn, checkpoint, registry
from rsir.models.itemknn import WithItemKnn, with_vote
from rsir.recursion import loop
from rsir.recursion.baselines import counted
from rsir.recursion.loop import recurse
from rsir.runs.results import Run
from rsir.runs.rounds import RoundResult
from rsir.runtime.runtime import Runtime
from rsir.training.voting import best_vote
from tests.harness.small import SMALL, metrics, small

NETWORKS = ItemKnnConfig(vote="off")
"""Networks recommend alone; the item-kNN's vote would hide what becomes of one."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return recurse(SMALL, out=tmp_path_factory.mktemp("runs") / "run")


def files(folder: Path) -> dict[str, bytes]:
    """Every file that must not differ between two runs: all but wall clocks, log and lock."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    free = {"log.jsonl", ".lock", "manifest.json", "report.html"}
    return {n: (folder / n).read_bytes() for n in names if n not in free and not n.endswith("timings.json")}


def test_rounds_count_what_they_train_on(run: Run) -> None:
    base, *later = run.rounds
    assert [result.round for result in run.rounds] == [0, 1, 2]
    assert (base.generated, base.verified, base.acquired, base.sequences) == (0, 0, 0, 120)
    assert np.isnan(base.novel_share)
    for result in later:
        assert result.generated == 240
        assert 0 < result.acquired == result.verified <= 240
        assert result.sequences == 120 + result.acquired  # only the newest round's trajectories
        assert 0 < result.novel_share < 1
        assert result.mean_length >= 3
        assert set(result.seconds) == {"generate", "train", "evaluate"}
        assert set(result.rates) == {"tokens/s", "trajectories/s", "users/s"}
        assert result.rates["trajectories/s"] == pytest.approx(240 / result.seconds["generate"])
        assert result.rates["users/s"] == pytest.approx(240 / result.seconds["evaluate"])
    assert run.best == max(run.rounds, key=lambda result: result.validation["ndcg@20"]).round


def test_seconds_and_rates_are_kept_apart_from_the_metrics(run: Run) -> None:
    assert run.path is not None
    for result in run.rounds:
        folder = run.path / f"round-{result.round:02d}"
        assert json.loads((folder / "timings.json").read_text()) == {"seconds": result.seconds, "rates": result.rates}
        assert not {"seconds", "rates"} & set(json.loads((folder / "metrics.json").read_text()))


def test_metrics_hold_the_training_and_what_it_gains_over_the_base(run: Run) -> None:
    assert run.path is not None
    parts = split(run.data, SMALL.data)
    models = [checkpoint.load(run.path / f"round-{number:02d}") for number in range(3)]
    knn = ItemKnn.fit(parts.train, SMALL.itemknn.filled(run.rounds[0].itemknn))
    base, newest = (
        with_vote(networks, knn, run.rounds[number].vote)
        for networks, number in ((models[0], 0), (Ensemble(models), 2))
    )
    assert run.rounds[0].against_base == {}
    for name, (difference, low, high) in run.rounds[2].against_base.items():
        part, _, metric = name.partition("/")
        before, after = (evaluate(model, getattr(parts, part)).gains(metric) for model in (base, newest))
        assert (difference, low, high) == (lambda t: (t.difference, t.low, t.high))(paired_test(before, after))
    assert set(run.rounds[2].against_base) == {"validation/ndcg@20", "test/recall@10", "test/ndcg@10"}
    for result in run.rounds:
        steps, values = result.history["step"], result.history["ndcg@20"]
        assert len(steps) == len(values) == len(result.history["loss"]) == 3
        assert steps[-1] == result.steps
        assert steps[values.index(max(values))] == result.best_step
        assert max(values) == pytest.approx((result.alone or result.validation)["ndcg@20"])


def test_profiling_writes_traces_and_changes_nothing_else(run: Run, tmp_path: Path) -> None:
    again = recurse(SMALL, out=tmp_path / "run", runtime=Runtime(profile=True))
    assert metrics(again) == metrics(run)
    assert run.path is not None
    written = files(tmp_path / "run")
    traces = {name: written.pop(name) for name in list(written) if name.startswith("profile/")}
    assert written == files(run.path)
    phases = ["round-00-train", "round-01-generate", "round-01-train", "round-02-generate", "round-02-train"]
    assert sorted(traces) == [f"profile/{phase}.json" for phase in phases]
    for content in traces.values():
        assert len(content) < 50e6
        names = {event.get("name", "") for event in json.loads(content)["traceEvents"]}
        assert any(name.startswith("aten::") for name in names)
    # The traces are not part of what a resumed run is checked against.
    (tmp_path / "run" / "profile" / "round-00-train.json").unlink()
    assert metrics(recurse(SMALL, out=tmp_path / "run", resume=True, runtime=Runtime(profile=True))) == metrics(run)


def test_profiling_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="profile: traces are written into the run's folder, expected out, got None"):
        recurse(SMALL, runtime=Runtime(profile=True))


def test_a_run_holds_what_its_models_were_trained_on(run: Run) -> None:
    assert run.path is not None
    assert not (run.path / "round-00" / "trajectories.parquet").exists()
    trajectories = Sequences.load(run.path / "round-01" / "trajectories.parquet")
    assert len(trajectories) == run.rounds[1].acquired
    assert (trajectories.round == 1).all()
    for row in range(len(trajectories)):
        source = run.data[int(trajectories.source[row])][:-2].tolist()  # leave-one-out keeps the last two out
        made = trajectories[row].tolist()
        assert made[0] == source[0]
        assert len(set(made)) == len(made)
        assert made != source[: len(made)]
    assert checkpoint.load(run.path / f"round-{run.best:02d}").num_items == 60


def test_without_a_folder_nothing_is_written_and_the_result_is_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = recurse(SMALL)
    assert metrics(again) == metrics(run)
    assert again.best == run.best
    assert again.path is None
    assert list(tmp_path.iterdir()) == []
    history = [run.data.item_labels[:3].to_pylist()]
    assert again.recommend(history, 5) == run.recommend(history, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulate": True, "sources": "all", "successor": "finetune"},
        {"acquisition": AcquisitionConfig("disagreement", cap=1, passes=2), "retention": "all"},
        {
            "distillation": DistillationConfig(share=0.5, k=5),
            "training": dataclasses.replace(SMALL.training, ema=0.9),
        },
    ],
    ids=["default", "as-the-authors", "disagreement-and-retention", "soft-targets-and-ema"],
)
@pytest.mark.parametrize("killed_after", [0, 1])
def test_resuming_gives_the_files_of_an_uninterrupted_run(
    changes: dict[str, object], killed_after: int, tmp_path: Path
) -> None:
    config = small(**changes)
    whole = recurse(config, out=tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(result: RoundResult) -> None:
        if result.round == killed_after:
            raise Killed

    with pytest.raises(Killed):
        recurse(config, out=tmp_path / "killed", on_round=kill)
    resumed = recurse(config, out=tmp_path / "killed", resume=True)
    assert metrics(resumed) == metrics(whole)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("steps", [[3, 9, 30], [20, 2, 5]])
def test_stopping_within_a_round_and_resuming_gives_the_same_files(run: Run, tmp_path: Path, steps: list[int]) -> None:
    """Asked to stop in the middle of trainings and generations."""
    for resume, asked in enumerate(steps):
        left = iter(range(asked, -1, -1))
        runtime = Runtime(stop=lambda left=left: next(left) == 0)
        with pytest.raises(Interrupted):
            recurse(SMALL, out=tmp_path / "run", resume=resume > 0, runtime=runtime)
        saved = list((tmp_path / "run").glob("round-*/partial/*"))
        assert saved
        assert not (saved[0].parents[1] / "DONE").exists()
    assert metrics(recurse(SMALL, out=tmp_path / "run", resume=True)) == metrics(run)
    assert run.path is not None
    assert files(tmp_path / "run") == files(run.path)


def test_a_finished_run_can_be_extended(tmp_path: Path) -> None:
    recurse(small(rounds=1), out=tmp_path / "run")
    longer = recurse(small(rounds=2), out=tmp_path / "run", resume=True)
    assert metrics(longer) == metrics(recurse(small(rounds=2)))


def test_the_authors_variant_accumulates(tmp_path: Path) -> None:
    run = recurse(small(accumulate=True, sources="all"), out=tmp_path / "run")
    first, second = run.rounds[1], run.rounds[2]
    assert second.generated > first.generated  # trajectories are sources too
    assert second.sequences == 120 + first.acquired + second.acquired


@pytest.mark.parametrize(("retention", "oldest"), [("pair", [0, 0, 1]), ("all", [0, 0, 0])])
def test_retention_recommends_with_older_models_beside_the_newest(
    retention: str, oldest: list[int], tmp_path: Path
) -> None:
    unordered = dataclasses.replace(SMALL.simulation, order=0)  # data on which the second round is the best
    network = dataclasses.replace(SMALL.model, name="sasrec")
    config = small(seed=4, retention=retention, itemknn=NETWORKS, simulation=unordered, model=network)
    single = recurse(dataclasses.replace(config, retention="none"))
    paired = recurse(config, out=tmp_path / "run")
    parts = split(paired.data, SMALL.data)
    popularity = item_popularity(parts.train)
    models = [checkpoint.load(tmp_path / "run" / f"round-{number:02d}") for number in range(3)]
    for alone, result in zip(single.rounds, paired.rounds, strict=True):
        # Up to round 1 there is one model to generate with; then the ensemble generates, too.
        assert ((result.acquired, result.steps) == (alone.acquired, alone.steps)) == (result.round < 2)
        assert (result.alone == ({} if result.round == 0 else alone.validation)) == (result.round < 2)
        voters = models[oldest[result.round] : result.round + 1]
        assert result.test == evaluate(Ensemble(voters), parts.test, popularity=popularity).metrics
        own = evaluate(models[result.round], parts.test, popularity=popularity).metrics
        assert result.alone_test == ({} if result.round == 0 else own)
    assert paired.best == 2, "or what follows would not try a pair"
    history = [paired.data.item_labels[:3].to_pylist()]
    in_memory = recurse(config)
    assert paired.recommend(history, 5) == in_memory.recommend(history, 5)
    assert paired.model.item_embeddings().shape == in_memory.model.item_embeddings().shape
    assert in_memory.model.item_embeddings().shape == (61, 16 * (3 - oldest[2]))


def test_a_base_is_taken_over_and_not_trained_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = recurse(small(rounds=0))
    trainings = []
    fit = loop.fit
    monkeypatch.setattr(loop, "fit", lambda *a, **k: trainings.append(1) or fit(*a, **k))
    again = recurse(SMALL, out=tmp_path / "run", start=base)
    assert metrics(again) == metrics(run)
    assert run.path is not None
    assert files(tmp_path / "run") == files(run.path)
    assert len(trainings) == 2


def test_soft_targets_change_successors_alone(run: Run) -> None:
    softened = recurse(small(rounds=1, distillation=DistillationConfig(share=0.5, k=5)))
    assert metrics(softened)[0] == metrics(run)[0]
    assert softened.rounds[1].acquired == run.rounds[1].acquired
    assert softened.rounds[1].validation != run.rounds[1].validation


def test_fidelity_off_keeps_more(run: Run) -> None:
    unfiltered = recurse(small(rounds=1, fidelity=FidelityConfig(policy="off")))
    assert metrics(unfiltered)[0] == metrics(run)[0]
    assert unfiltered.rounds[1].acquired > run.rounds[1].acquired


def test_nearest_neighbour_fidelity_runs() -> None:
    result = recurse(small(rounds=1, fidelity=FidelityConfig(policy="neighbours", neighbours=10))).rounds[1]
    assert 0 < result.acquired < result.generated


@pytest.mark.parametrize("policy", ["itemknn", "rank-itemknn"])
def test_the_count_without_the_user_judges(policy: str) -> None:
    result = recurse(small(rounds=1, fidelity=FidelityConfig(policy=policy, tau=15))).rounds[1]
    assert 0 < result.acquired < result.generated


@pytest.mark.parametrize("vote", ["auto", "off"])
@pytest.mark.parametrize("generator", ["recommender", "itemknn"])
def test_the_count_generates_beside_the_networks_or_alone(run: Run, generator: Any, vote: Any) -> None:
    generation = dataclasses.replace(SMALL.generation, generator=generator)
    result = recurse(small(rounds=1, generation=generation, itemknn=ItemKnnConfig(vote=vote))).rounds[1]
    assert run.path is not None
    parts, network = split(load_data(SMALL), SMALL.data), checkpoint.load(run.path / "round-00")
    fixed, knn = ItemKnn.fit(parts.train), counted(parts, ItemKnnConfig())
    assert knn is not None
    voters = [fixed, knn] if vote == "auto" else [knn]  # the one that was found draws where none votes
    voter, weight = best_vote(network, voters, parts.validation)
    assert weight > 0
    model = with_vote(network, voter, weight) if generator == "recommender" else WithItemKnn.alone(knn)
    bound = Enricher(generation, SMALL.fidelity, SMALL.acquisition).bind(model, 1)
    expected = bound.generate(parts.train).trajectories
    assert (result.acquired, result.mean_length) == (len(expected), expected.lengths.mean())
    assert result.mean_length != run.rounds[1].mean_length


def test_another_seed_is_another_run(run: Run) -> None:
    assert recurse(small(rounds=0, seed=1)).rounds[0].validation != run.rounds[0].validation


def test_the_recursion_ends_when_validation_no_longer_gains() -> None:
    # A learning rate this small makes no model better than another for long.
    run = recurse(small(rounds=9, stop_after=1, training=TrainingConfig(max_evaluations=1, learning_rate=1e-9)))
    assert len(run.rounds) < 10
    assert run.best == run.rounds[-1].round - 1


def test_a_diverging_training_ends_the_run_and_leaves_its_round_unfinished(tmp_path: Path) -> None:
    wild = dataclasses.replace(SMALL.training, learning_rate=1e38)
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d+: expected a finite number"):
        recurse(small(training=wild), out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("round-*/DONE"))
    assert not list((tmp_path / "run").glob("round-*/model.safetensors"))
    with pytest.raises(TrainingError, match="the loss is nan"):
        recurse(small(training=wild), out=tmp_path / "run", resume=True)


def test_a_round_within_the_noise_is_not_refused(run: Run) -> None:
    for result in run.rounds[1:]:
        assert result.against_best["low"] < result.against_best["difference"] < result.against_best["high"]
        assert not result.worse


def test_recommendations_are_labels_new_to_the_user(run: Run) -> None:
    labels = run.data.item_labels.to_pylist()
    histories = [labels[:2], labels[5:9]]
    lists = run.recommend(histories, 7)
    assert [len(items) for items in lists] == [7, 7]
    for history, items in zip(histories, lists, strict=True):
        assert set(items) <= set(labels) - set(history)


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([["genre 1"], []], "none of their items, 'genre 1' for one, is in the catalogue"),
        ([[3.5]], "item: expected a string as in the data, got 3.5"),
        (["genre"], r"history 0: expected a list of items, got 'genre'; write \['genre'\]"),
    ],
)
def test_histories_that_cannot_be_used(run: Run, histories: list[list[object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run.recommend(histories)


def test_another_run_in_the_folder_is_left_alone(run: Run) -> None:
    assert run.path is not None
    before = files(run.path)
    with pytest.raises(RunError, match="holds a run already"):
        recurse(SMALL, out=run.path)
    with pytest.raises(RunError, match=r"cannot resume with another generation\.p"):
        recurse(small(generation=GenerationConfig(p=0.9)), out=run.path, resume=True)
    assert files(run.path) == before


def test_held_out_items_reach_no_training_or_synthetic_byte(tmp_path: Path) -> None:
    data = load_data(SMALL)
    generator = np.random.default_rng(0)
    items = data.items.copy()
    for row in range(len(data)):  # other validation and test items for everybody
        items[data.offsets[row + 1] - 2 : data.offsets[row + 1]] = generator.choice(60, 2, replace=False) + 1
    changed = Sequences(items=items, offsets=data.offsets, num_items=60, item_labels=data.item_labels)
    # One validation, so that the choice of the best weights cannot differ.
    config = small(rounds=1, training=dataclasses.replace(SMALL.training, max_evaluations=1))
    for name, sequences in (("a", data), ("b", changed)):
        recurse(config, data=sequences, out=tmp_path / name)
    for name in ("round-00/model.safetensors", "round-01/model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    a, b = (Sequences.load(tmp_path / name / "round-01" / "trajectories.parquet") for name in ("a", "b"))
    assert a.items.tobytes() == b.items.tobytes()
    assert a.offsets.tobytes() == b.offsets.tobytes()


def test_one_user_to_validate_on_is_enough(tmp_path: Path) -> None:
    """Of one gain there is no interval: none is written, and no round is refused by it."""
    data = Sequences.from_lists([[1, 2], [2, 3], [1, 3], [3, 4], [4, 5, 1, 2, 3]], num_items=6)
    config = small(rounds=1, fidelity=FidelityConfig(tau=2), model=dataclasses.replace(SMALL.model, max_len=6))
    run = recurse(config, data=data, out=tmp_path / "run")
    assert set(run.rounds[1].against_best) == {"round", "difference"}
    assert not run.rounds[1].worse
    again = rsir.load(tmp_path / "run")
    assert metrics(again) == metrics(run)


def test_ending_sooner_disowns_no_round_there_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.path is not None
    monkeypatch.setattr(rsir.recursion.loop, "is_over", lambda config, rounds: True)
    again = recurse(small(stop_after=1), out=run.path, resume=True)
    assert metrics(again) == metrics(run)
    assert again.best == run.best
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == len(run.rounds)


def test_tied_weights_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tied(BSARec):
        def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
            super().__init__(config, num_items, generator)
            self.also_items = self.items

    monkeypatch.setitem(registry.BACKBONES.makers, "tied", Tied)
    monkeypatch.setattr("rsir.runtime.resume.EVERY", 0.0)
    config = small(rounds=1, model=dataclasses.replace(SMALL.model, name="tied"))
    run = recurse(config, out=tmp_path / "run")
    plain = recurse(small(rounds=1))
    assert [result.test for result in run.rounds] == [result.test for result in plain.rounds]
    assert metrics(rsir.load(tmp_path / "run")) == metrics(run)


def test_a_training_that_leads_to_infinity_leaves_no_round(tmp_path: Path) -> None:
    training = dataclasses.replace(SMALL.training, learning_rate=1e38, evaluate_every=1, max_evaluations=1)
    with pytest.raises(TrainingError, match="nan or infinite weights after step 1"):
        recurse(small(rounds=0, training=training), out=tmp_path / "run")
    assert not (tmp_path / "run" / "round-00" / "DONE").exists()

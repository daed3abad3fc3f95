"""A refit: trained on all events for the steps that validation chose; it serves and has no metrics of its own."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

import rsir
from rsir.cli import main as command
from rsir.config import DistillationConfig, ItemKnnConfig, SimulationConfig
from rsir.data import simulate
from rsir.data.load import split
from rsir.errors import ConfigError, RunError, TrainingError
from rsir.metrics import CRITERION
from rsir.models import checkpoint
from rsir.models.itemknn import network_of
from rsir.recursion.loop import recurse
from rsir.runs import refit
from rsir.runs.results import Run, enriched
from rsir.runs.rounds import best_steps
from rsir.training.fit import fit, training_seed
from tests.harness.small import ON_DATA as SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Two rounds whose networks recommend together, beside the count."""
    plain = simulate(SimulationConfig(num_users=80, num_items=50, mean_length=7)).sequences
    data = dataclasses.replace(plain, item_labels=pa.array([f"item {row}" for row in range(50)]))
    config = dataclasses.replace(SMALL, rounds=1, retention="all", itemknn=ItemKnnConfig(vote="auto"))
    made = recurse(config, data=data, out=tmp_path_factory.mktemp("refit") / "run")
    return dataclasses.replace(made, best=1)


def weights(model):
    return {name: value.tolist() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_steps_end_where_validation_did(run, ema):
    """On the same sequences it is the same training: the weights that validation kept, to the bit."""
    config = dataclasses.replace(run.config.training, max_evaluations=3, ema=ema)
    parts = split(run.data, run.config.data)
    validated = fit(run.config.model, config, parts.train, parts.validation, seed=5)
    alone = fit(run.config.model, config, parts.train, None, steps=(validated.best_step, 0), seed=5)
    assert (alone.steps, alone.best_step) == (validated.best_step, validated.best_step)
    assert weights(alone.model) == weights(validated.model)
    assert not alone.model.training
    with pytest.raises(TrainingError, match="steps: expected numbers where there is no validation"):
        fit(run.config.model, config, parts.train, None, seed=5)
    hot = dataclasses.replace(config, learning_rate=1e30)
    with pytest.raises(TrainingError, match="the loss is"):
        fit(run.config.model, hot, parts.train, None, steps=(5, 0), seed=5)


def test_every_network_is_trained_on_all_events(run, tmp_path):
    made = rsir.load(run.path)
    refit = dataclasses.replace(made, best=1).refit(tmp_path / "refit")
    assert refit.refitted
    networks = getattr(refit.model, "network", refit.model)
    assert len(networks.members) == 2
    for round_, member in enumerate(networks.members):
        train = run.data if round_ == 0 else enriched(run, 1, held_out=True)
        steps = run.rounds[round_].best_step, 0
        seed = training_seed(run.config.seed, round_)
        wanted = fit(run.config.model, run.config.training, train, None, steps=steps, seed=seed)
        assert weights(member) == weights(wanted.model)
        card = checkpoint.read_card(tmp_path / "refit" / f"round-{round_:02d}")
        assert card["metrics"] == {}
        assert card["refit"]["steps"] == list(steps)
        assert "no metrics of its own" in card["refit"]["note"]
    again = rsir.load(tmp_path / "refit")
    assert again.refitted
    assert again.recommend(k=5) == refit.recommend(k=5)
    assert again.recommend(k=5).scores == refit.recommend(k=5).scores != run.recommend(k=5).scores
    assert hasattr(again.model, "knn") == (run.rounds[1].vote > 0)
    assert repr(again).startswith("Refit of bsarec on all events of 80 users and 50 items")
    with pytest.raises(ConfigError, match="a refit was trained on its run's validation and test events"):
        rsir.evaluate(again)
    with pytest.raises(RunError, match="this is a refit already"):
        again.refit()
    with pytest.raises(RunError, match="holds a refit, which serves"):
        again.recommend(k=5, round_=0)
    with pytest.raises(RunError, match="expected a new or empty folder"):
        run.refit(tmp_path / "refit")
    with pytest.raises(RunError, match=r"holds a refit.*choose another --out"):
        recurse(run.config, data=run.data, out=tmp_path / "refit")


def test_successors_and_teachers_come_before(run, tmp_path):
    """A run that fine-tunes and is taught by its generator needs the rounds before the best."""
    config = dataclasses.replace(
        SMALL, rounds=1, retention="none", successor="finetune", distillation=DistillationConfig(share=0.5)
    )
    made = recurse(config, data=run.data, out=tmp_path / "run")
    refit = dataclasses.replace(made, best=1).refit()
    assert not hasattr(network_of(refit.model), "members")
    scratch = dataclasses.replace(made, best=1, config=dataclasses.replace(config, successor="scratch")).refit()
    assert weights(scratch.model) != weights(refit.model)
    assert all(torch.isfinite(value).all() for value in refit.model.state_dict().values())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_last_stretch_on_real_sequences_is_repeated(run, ema):
    """On the same sequences, where no step was taken past the best, it ends with the same weights, to the bit."""
    config = dataclasses.replace(run.config.training, max_evaluations=1, ema=ema, real_last=2, real_rate=0.02)
    parts = split(run.data, run.config.data)
    train = enriched(run, 1)
    validated = fit(run.config.model, config, train, parts.validation, seed=5)
    main = validated.history[0].step
    assert validated.best_step > main  # the stretch was worth it: else this tests nothing
    steps = main, validated.best_step - main
    again = fit(run.config.model, config, train, None, steps=steps, seed=5)
    assert again.steps == again.best_step == validated.best_step
    assert weights(again.model) == weights(validated.model)
    short = fit(run.config.model, config, train, None, steps=(main, 0), seed=5)
    assert weights(short.model) != weights(validated.model)
    real = fit(run.config.model, config, parts.train, None, steps=(main, 7), seed=5)
    assert real.steps == main  # nothing but real sequences: no last stretch


@pytest.mark.parametrize(("values", "wanted"), [([1, 5, 2, 3, 4], (20, 0)), ([1, 5, 2, 6, 4], (20, 10)), ([], (7, 0))])
def test_steps_of_a_round(run, values, wanted):
    """The best of the main stretch, and of the last one what was better still."""
    training = dataclasses.replace(run.config.training, real_last=2)
    history = {"step": [10, 20, 30, 40, 50][: len(values)], CRITERION: values}
    best = history["step"][values.index(max(values))] if values else 7
    result = dataclasses.replace(run.rounds[1], history=history, best_step=best)
    assert best_steps(result, run.rounds[0], training) == wanted


def test_networks_take_the_steps_of_both_stretches(run, tmp_path, capsys, monkeypatch):
    training = dataclasses.replace(SMALL.training, real_last=2, real_rate=0.02)
    soft = DistillationConfig(share=0.5, teacher="recommender")
    fixed = ItemKnnConfig(search="off")  # so that the last stretch is worth it
    config = dataclasses.replace(SMALL, rounds=1, training=training, distillation=soft, itemknn=fixed)
    made = dataclasses.replace(recurse(config, data=run.data, out=tmp_path / "run"), best=1)
    history = made.rounds[1].history
    assert len(history["step"]) == SMALL.training.max_evaluations + 2
    main, last = best_steps(made.rounds[1], made.rounds[0], training)
    assert last > 0
    made.refit(tmp_path / "refit")
    assert checkpoint.read_card(tmp_path / "refit" / "round-01")["refit"]["steps"] == [main, last]
    assert checkpoint.read_card(tmp_path / "refit" / "round-00")["refit"]["steps"] == [made.rounds[0].best_step, 0]
    monkeypatch.setattr("rsir.runs.results.load", lambda folder, device: made)
    assert command.main(["refit", str(tmp_path / "run"), "--out", str(tmp_path / "other")]) == 0
    assert f" {main:,} + {last:,}" in capsys.readouterr().out


def test_a_rate_that_falls_does_so_over_the_steps_of_the_run(run, tmp_path, monkeypatch):
    """More events are more steps an epoch: a curve over these would have hardly begun to fall at the best step."""
    training = dataclasses.replace(SMALL.training, evaluate_every=None, schedule="cosine", batch_size=16)
    short = dataclasses.replace(SMALL, rounds=0, training=training)
    made = recurse(short, data=run.data, out=tmp_path / "run")
    seen = []
    monkeypatch.setattr(refit, "fit", lambda *given, **named: (seen.append(given[1]), fit(*given, **named))[1])
    made.refit(tmp_path / "refit")
    assert [config.evaluate_every for config in seen] == [made.rounds[0].history["step"][0]]
    assert made.config.training.evaluate_every is None


def test_a_run_without_a_folder(run):
    base = recurse(dataclasses.replace(SMALL, rounds=0), data=run.data)
    assert base.refit().refitted
    with pytest.raises(RunError, match="made without a folder"):
        dataclasses.replace(run, path=None).refit()


def test_damage_is_noticed(run, tmp_path):
    run.refit(tmp_path / "refit")
    for name, message in (
        ("round-01/model.safetensors", r"model\.safetensors: is not as it was written; make the refit again"),
        ("data.parquet", r"data\.parquet: is not as it was written"),
        ("refit.json", r"refit\.json: is damaged"),
    ):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(tmp_path / "refit", copy)
        content = (copy / name).read_bytes()
        changed = content.replace(b'"best": 1', b'"best": 0') if name == "refit.json" else content[:-1] + b"?"
        assert changed != content
        (copy / name).write_bytes(changed)
        with pytest.raises(RunError, match=message):
            rsir.load(copy)
    (copy / "round-00" / "model.json").unlink()
    (copy / "refit.json").write_bytes((tmp_path / "refit" / "refit.json").read_bytes())
    with pytest.raises(RunError, match=r"model\.json: is missing"):
        rsir.load(copy)


def test_commands(run, tmp_path, capsys):
    out = tmp_path / "refit"
    assert command.main(["refit", str(run.path), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"{out}: round " in shown
    assert "It has no metrics of its own" in shown
    assert command.main(["recommend", str(out), "--history", "item 3", "--k", "2"]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]] == ["1", "2"]
    for arguments, message in (
        (["refit", str(run.path), "--out", str(out)], "expected a new or empty folder for the refit"),
        (["refit", str(run.path), "--out", str(run.path)], "--out: expected another folder than the run's"),
        (["refit", str(out)], "this is a refit already"),
        (["refit", str(tmp_path / "nothing")], "holds no run"),
        (["inspect", str(out)], "holds a refit, which serves and has neither rounds nor metrics of its own; inspect"),
        (["similar", str(run.path), "nothing"], "item 'nothing' is not in the catalogue, which has 'item 0' for one"),
        (["similar", str(run.path), "item 1", "--k", "0"], "k: expected at least 1, got 0"),
    ):
        assert command.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert command.main(["similar", str(run.path), "item 1", "item 2", "--k", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [float(row[-1]) for row in rows[1:4]] == [round(score, 4) for _, score in run.similar("item 1", 3)]


def test_similar_items_are_those_of_the_largest_cosine(run):
    vectors = getattr(run.model, "network", run.model).item_embeddings()[1:].detach().double()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = vectors @ vectors[7]
    cosines[7] = -2
    order = cosines.argsort(descending=True)[:5].tolist()
    found = run.similar("item 7", k=5)
    assert [name for name, _ in found] == [f"item {place}" for place in order]
    assert np.allclose([score for _, score in found], cosines[order], atol=1e-6)
    stock = [f"item {place}" for place in (order[3], order[1], 7)]
    assert [name for name, _ in run.similar("item 7", candidates=stock)] == [f"item {order[1]}", f"item {order[3]}"]
    assert f"item {order[0]}" not in dict(run.similar("item 7", exclude=[f"item {order[0]}"], k=49))
    assert len(run.similar("item 7", k=10**9)) == 49


def test_similar_items_by_the_count(run):
    recommender = run.recommender()
    shares = recommender._knn.shares(np.array([8], np.int32), np.array([0, 1]))
    pairs = sorted((-float(v), int(i)) for i, v in zip(shares.ids, shares.values, strict=True) if i != 8)[:4]
    assert run.similar("item 7", k=4, by="count") == [(f"item {item - 1}", -value) for value, item in pairs]
    with pytest.raises(rsir.RsirError, match="by: expected vectors or count, got 'taste'"):
        run.similar("item 7", by="taste")

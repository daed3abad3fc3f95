"""Item tables in half precision wherever a model scores: generation, fidelity, evaluation, recommendations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rsir import ops
from rsir.config import FidelityConfig, GenerationConfig, ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig
from rsir.data import leave_one_out, simulate
from rsir.data.load import split
from rsir.evaluation import evaluate, recommend
from rsir.generation import fidelity, neighbours
from rsir.generation.enrich import enrich
from rsir.generation.fidelity import Rank, build
from rsir.generation.generate import generate
from rsir.models import build as build_model
from rsir.models import pack_items
from rsir.recursion.loop import recurse
from rsir.runs.results import load
from rsir.serving.output import write
from rsir.serving.recommender import Recommender

SMALL = RecursionConfig(
    rounds=1,
    item_table="float16",
    simulation=SimulationConfig(num_users=80, num_items=60, mean_length=7),
    model=ModelConfig(dim=16, layers=1, heads=2, feedforward=16, max_len=12),
    training=TrainingConfig(batch_size=32, negatives=32, max_evaluations=2, learning_rate=1e-2),
    generation=GenerationConfig(m=2),
    fidelity=FidelityConfig(tau=15),
)


@pytest.fixture(scope="module")
def data():
    return simulate(SimulationConfig(num_users=60, num_items=300)).sequences


@pytest.fixture(scope="module")
def model(data):
    model = build_model(ModelConfig(dim=16, layers=1, heads=1, feedforward=16), data.num_items, seed=1).eval()
    with torch.no_grad():
        model.item_embeddings().mul_(20)
    return model


@pytest.fixture(scope="module")
def tables(model):
    """The model's items in half precision, and what they are rounded to in single precision."""
    return pack_items(model, dtype="float16"), ops.pack(model.item_embeddings().half().float())


def trajectories(model, sources, policy, table=None):
    found = generate(model, sources, GenerationConfig(m=3, k=4), policy, seed=0, round_=1, table=table).trajectories
    return found.items.tolist(), found.offsets.tolist()


def test_everything_is_as_with_the_rounded_items(model, data, tables):
    half, _ = tables
    assert half.dtype == torch.float16
    parts = leave_one_out(data)
    results = [evaluate(model, parts.test, table=table) for table in tables]
    assert np.array_equal(results[0].ranks, results[1].ranks)
    assert results[0].metrics == results[1].metrics
    best = [recommend(model, data.lists, 20, table=table) for table in tables]
    assert torch.equal(best[0].ids, best[1].ids)
    assert torch.equal(best[0].logits, best[1].logits)
    assert not torch.equal(best[0].logits, recommend(model, data.lists, 20).logits)
    whole = [enrich(parts.train, model, fidelity=FidelityConfig(tau=30), table=table) for table in tables]
    assert whole[0].items.tolist() == whole[1].items.tolist()
    kept = [trajectories(model, parts.train, Rank(30), table) for table in tables]
    assert kept[0] == kept[1]
    assert len(kept[0][0]) > 20


def test_an_index_proves_what_the_rounded_items_say(model, data, monkeypatch):
    for module in (neighbours, fidelity):
        monkeypatch.setattr(module, "INDEX_FLAT_LIMIT", 10)
    half = pack_items(model, dtype="float16")
    policy = build(FidelityConfig(tau=30), model.item_embeddings().detach(), 1, half)
    assert policy.index.method == "ivf"
    assert policy.index.table is half
    scanned = trajectories(model, data, Rank(30), half)
    assert trajectories(model, data, policy) == scanned  # the index brings its table along
    assert trajectories(model, data, policy, half) == scanned
    with pytest.raises(ValueError, match="the index of the fidelity policy was built of"):
        trajectories(model, data, policy, pack_items(model))


def test_other_tables_are_refused(model, data):
    with pytest.raises(ValueError, match="table: expected 300 items as the model's, got 2"):
        recommend(model, data.lists, table=ops.pack(torch.ones(3, 16)))
    with pytest.raises(ValueError, match="packed for 'cpp', got 'reference'"):
        recommend(model, data.lists, table=pack_items(model), backend="reference")


def test_a_run_in_half_precision(tmp_path: Path):
    """The setting reaches generation, evaluation and both ways to recommend; the same bytes each time."""
    run = recurse(SMALL, out=tmp_path / "run")
    again = recurse(SMALL, out=tmp_path / "again")
    names = ["round-01/trajectories.parquet", "round-01/model.safetensors", "metrics.jsonl"]
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == [
        (tmp_path / "again" / name).read_bytes() for name in names
    ]
    assert len(again.rounds) == 2
    whole = load(tmp_path / "run")
    table = whole.item_table()
    assert table.dtype == torch.float16
    parts = split(whole.data, whole.config.data)
    best = run.rounds[run.best]
    found = evaluate(whole.model, parts.test, table=table).metrics
    assert {name: best.test[name] for name in found} == found

    histories = whole.recommender().histories_of()
    write(tmp_path / "half.parquet", Recommender(whole.model, whole.data, table=table), histories, 5)
    write(tmp_path / "single.parquet", Recommender(whole.model, whole.data), histories, 5)
    assert (tmp_path / "half.parquet").read_bytes() != (tmp_path / "single.parquet").read_bytes()
    labels = whole.data.item_labels
    ids = recommend(whole.model, histories.lists, 5, table=table).ids[0].numpy()
    first = labels.take(histories.lists[0].astype(np.int64) - 1).to_pylist()
    assert whole.recommend([first], 5) == [labels.take(ids - 1).to_pylist()]


def test_the_default_keeps_single_precision():
    assert RecursionConfig().item_table == "float32"
    plain = recurse(dataclasses.replace(SMALL, rounds=0, item_table="float32"))
    assert plain.item_table().dtype == torch.float32

"""Vectors folded into a table: unseen items get a projection, seen ones keep what was learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir.config import ModelConfig
from rsir.data import Sequences
from rsir.data.io.items import ItemVectors
from rsir.errors import ConfigError
from rsir.models import build
from rsir.training.projection import fold, projected
from tests.harness.toys import ToyBackbone

RNG = np.random.default_rng(0)
N, WIDTH, DIM = 400, 6, 8
VECTORS = np.r_[np.zeros((1, WIDTH)), RNG.normal(size=(N, WIDTH))].astype(np.float32)
TABLE = np.c_[VECTORS, np.ones(N + 1)] @ RNG.normal(size=(WIDTH + 1, DIM))
COUNTS = np.append(0, RNG.integers(1, 50, N))


def items(has: np.ndarray | None = None) -> ItemVectors:
    return ItemVectors(VECTORS, np.arange(N + 1) > 0 if has is None else has, None)


def test_an_unseen_item_gets_the_projection() -> None:
    counts, learnt = COUNTS.copy(), TABLE + RNG.normal(scale=0.01, size=TABLE.shape)
    counts[300:] = 0
    learnt[300:] = RNG.normal(size=learnt[300:].shape)
    has = np.arange(N + 1) > 0
    has[350:] = has[7] = False
    found = projected(learnt, items(has), counts, 0.0)
    assert np.allclose(found[300:350], TABLE[300:350], atol=0.2 * TABLE.std())
    assert np.array_equal(found[350:], learnt[350:])
    assert np.allclose(found[:300], learnt[:300])  # what was learnt beside the projection is kept
    trusted = projected(learnt, items(has), counts, 10.0)
    near, far = (np.abs(one[1:300] - learnt[1:300]).mean(1) for one in (found, trusted))
    assert near.max() < 1e-9
    rare, common = counts[1:300] < 5, counts[1:300] > 40
    assert far[rare].mean() > 1.5 * far[common].mean() > 0
    assert np.array_equal(trusted[7], learnt[7])


def test_fold_changes_the_table_of_a_model_alone() -> None:
    data = Sequences.from_lists([[1, 2, 3, 4], [2, 3, 5]], N)
    model = build(ModelConfig(dim=8, layers=1, heads=2, feedforward=8), N)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model, None, data, 0.0)
    fold(model, ItemVectors(np.zeros((N + 1, 0), np.float32), np.zeros(N + 1, bool), None), data, 0.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    fold(model, items(), data, 0.0)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == 1
    assert torch.allclose(model.item_embeddings()[:6], before[changed[0]][:6], atol=1e-6)
    assert not torch.allclose(model.item_embeddings()[6:], before[changed[0]][6:], atol=1e-3)


def test_a_backbone_without_a_table() -> None:
    with pytest.raises(ConfigError, match=r"data\.items: ToyBackbone has no item table"):
        fold(ToyBackbone(N), items(), Sequences.from_lists([[1]], N), 0.0)

"""Weights for a larger catalogue: known rows stay, new ones begin near their neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir.config import ItemKnnConfig, ModelConfig
from rsir.data import Sequences
from rsir.errors import BackboneError
from rsir.models import ItemKnn, build
from rsir.models.growth import grown
from rsir.models.registry import names

SMALL = ModelConfig(dim=8, layers=1, heads=2, feedforward=8, max_len=6)
# item 7 stands beside 1 and 2, item 8 beside 7 alone, item 9 beside nothing
DATA = Sequences.from_lists([[1, 7, 2], [3, 4, 5, 6], [8, 7], [9]], 9)


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("_")])
def test_every_backbone_grows(name: str) -> None:
    config = SMALL.for_backbone(name)
    model = build(config, 6, seed=3)
    knn = ItemKnn.fit(DATA, ItemKnnConfig())
    larger = build(config, 9, seed=4)
    larger.load_state_dict(grown(model, config, knn, seed=5))
    before, after = (one.item_embeddings().detach() for one in (model, larger))
    assert torch.equal(after[:7], before)
    items, lengths = torch.tensor([[1, 3, 2]]), torch.tensor([3])
    model.eval()
    larger.eval()
    assert torch.allclose(model.encode(items, lengths), larger.encode(items, lengths), atol=1e-6)
    shares = knn.shares(np.array([7], np.int32), np.array([0, 1]))
    weights = {int(item): float(value) for item, value in zip(shares.ids, shares.values, strict=True) if item <= 6}
    assert set(weights) == {1, 2}
    summed = sum(weight * before[item] for item, weight in weights.items())
    length = sum(weight * before[item].norm() for item, weight in weights.items()) / sum(weights.values())
    assert torch.allclose(after[7], summed / summed.norm() * length, atol=1e-6)
    assert torch.allclose(after[8:].std(), before[1:].std(), rtol=0.8)
    assert not torch.equal(after[8], after[9])


def test_no_new_item_changes_nothing() -> None:
    model = build(SMALL, 9)
    weights = grown(model, SMALL, ItemKnn.fit(DATA), seed=0)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_backbone_that_cannot_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    from rsir.models import growth

    class Other(torch.nn.Module):
        def __init__(self, num_items: int) -> None:
            super().__init__()
            self.num_items, self.wide = num_items, torch.nn.Parameter(torch.zeros(2, num_items))

    monkeypatch.setattr(growth, "build", lambda config, num_items: Other(num_items))
    with pytest.raises(BackboneError, match=r"wide: expected a row for each item and one before them, 7 for 6 items"):
        grown(Other(6), SMALL, ItemKnn.fit(DATA), seed=0)

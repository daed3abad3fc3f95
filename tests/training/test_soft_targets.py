"""Soft targets against a loop over positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir.config import DistillationConfig
from rsir.data import Sequences
from rsir.training import soft_targets as distillation
from rsir.training.soft_targets import soft_targets
from tests.harness.toys import ToyBackbone


@pytest.mark.parametrize("targets", ["all", "synthetic"])
@pytest.mark.parametrize("positions", [8192, 2], ids=["at once", "in parts"])
def test_they_are_the_models_best_items_and_their_shares(
    targets: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "_POSITIONS", positions)
    real = Sequences.from_lists([[3, 4, 5, 6], [7], [], [9, 1, 2]], num_items=12)
    made = Sequences.from_lists([[3, 8, 1], [9, 2]], num_items=12, source=[0, 3], round=[1, 1])
    sequences, model = Sequences.concat(real, made), ToyBackbone(12)
    config = DistillationConfig(share=0.3, targets=targets, k=4, temperature=2.0)
    found = soft_targets(model, sequences, config)
    assert found.share == 0.3
    assert found.ids.shape == found.cumulative.shape == (len(sequences.items), 4)
    at = 0
    for row in range(len(sequences)):
        items = sequences[row].astype(np.int64)
        for place in range(len(items)):
            if place == 0 or (targets == "synthetic" and sequences.is_real[row]):
                assert found.ids[at, 0] == 0
            else:
                query = model.encode(torch.from_numpy(items[:place])[None], torch.tensor([place]))[0]
                logits = (model.item_embeddings() @ query).numpy().astype(np.float64)
                logits[[0, *items[:place]]] = -np.inf
                best = np.lexsort((np.arange(13), -logits))[:4]
                assert found.ids[at].tolist() == best.tolist()
                shares = np.exp((logits[best] - logits[best[0]]) / 2.0)
                assert found.cumulative[at] == pytest.approx(shares.cumsum() / shares.sum(), abs=1e-6)
            at += 1


def test_a_history_that_leaves_fewer_items_than_k() -> None:
    found = soft_targets(ToyBackbone(4), Sequences.from_lists([[1, 2, 3, 4]], 4), DistillationConfig(share=1, k=4))
    assert (found.ids > 0).sum(1).tolist() == [0, 3, 2, 1]
    assert found.cumulative[3].tolist() == [1, 1, 1, 1]

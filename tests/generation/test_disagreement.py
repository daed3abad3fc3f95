"""The BALD share against its formula, written out over the whole catalogue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rsir.config import ModelConfig
from rsir.data import Sequences
from rsir.errors import BackboneError
from rsir.generation import disagreement as module
from rsir.generation.disagreement import disagreement
from rsir.models import build
from tests.harness.toys import ToyBackbone

PASSES = 3


class Shaky(nn.Module):
    """A toy whose training passes differ in a known way: the queries of pass number t are scaled by t + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = ToyBackbone(30)
        self.num_items, self.max_len = 30, self.toy.max_len
        self.calls = 0

    def encode(self, items: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        scale = 0.0
        if self.training:
            scale = 0.1 * (self.calls % PASSES + 1)
            self.calls += 1
        return self.toy.encode(items, lengths) * scale

    def item_embeddings(self) -> torch.Tensor:
        return self.toy.item_embeddings()


def some_sequences() -> Sequences:
    generator = np.random.default_rng(0)
    lists = [generator.permutation(30)[:length] + 1 for length in (5, 1, 3, 2, 5)]
    return Sequences.from_lists([*map(list, lists)], num_items=30)


@pytest.mark.parametrize("logits", [module._LOGITS, 64], ids=["whole", "in parts"])
def test_it_is_the_targets_part_of_bald(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(module, "_LOGITS", logits)
    sequences, toy = some_sequences(), ToyBackbone(30)
    found = disagreement(Shaky(), sequences, passes=PASSES, seed=0)
    for row, score in enumerate(found):
        items = sequences[row]
        parts = []
        for place in range(1, len(items)):
            history = torch.tensor(items[:place][-toy.max_len :].astype(np.int64))[None]
            query = toy.encode(history, torch.tensor([history.shape[1]]))[0].double()
            every = toy.item_embeddings()[1:].double()
            p = torch.stack([torch.softmax(every @ (query * 0.1 * (t + 1)), 0) for t in range(PASSES)])[
                :, items[place] - 1
            ]
            parts.append(float(-p.mean() * p.mean().log() + (p * p.log()).mean()))
        assert score == pytest.approx(np.mean(parts) if parts else 0, abs=1e-6)
    assert found.max() > 1e-3


def test_it_depends_on_the_seed_alone_and_leaves_the_model_as_it_was() -> None:
    model = build(ModelConfig(dim=8, feedforward=8, max_len=8), 30, seed=1).eval()
    sequences = some_sequences()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (disagreement(model, sequences, passes=2, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first >= 0).all()
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_without_dropout_is_refused() -> None:
    model = build(ModelConfig(dim=8, feedforward=8, max_len=8, dropout=0.0), 30, seed=1)
    with pytest.raises(BackboneError, match="dropout changes no prediction"):
        disagreement(model, some_sequences(), passes=2, seed=0)
    with pytest.raises(BackboneError, match="torch module with dropout, got ToyBackbone"):
        disagreement(ToyBackbone(30), some_sequences(), passes=2, seed=0)


def test_any_number_of_threads_gives_the_same() -> None:
    generator = np.random.default_rng(1)
    sequences = Sequences.from_lists([(generator.permutation(30)[:6] + 1).tolist() for _ in range(400)], num_items=30)
    model = build(ModelConfig(dim=8, layers=1, heads=1, feedforward=8, max_len=8, dropout=0.4), 30)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 2):
            torch.set_num_threads(threads)
            found.append(disagreement(model, sequences, passes=2, seed=0))
    finally:
        torch.set_num_threads(before)
    assert found[0].max() > 0
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4, atol=1e-7)

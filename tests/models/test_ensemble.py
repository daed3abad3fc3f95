"""An ensemble ranks as the mean of its members' log-probabilities does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir.config import FidelityConfig, GenerationConfig, ModelConfig
from rsir.data import Sequences
from rsir.errors import BackboneError
from rsir.generation.fidelity import build as build_fidelity
from rsir.generation.generate import generate
from rsir.models import Backbone, Ensemble, IncrementalBackbone, build
from tests.harness.toys import IncrementalToyBackbone, ToyBackbone


def two_members(num_items: int = 40) -> list[torch.nn.Module]:
    configs = [ModelConfig(dim=16, feedforward=16, max_len=9), ModelConfig(dim=8, feedforward=8, max_len=12)]
    return [build(config, num_items, seed=seed).eval() for seed, config in enumerate(configs)]


@torch.no_grad()
@pytest.mark.parametrize("incremental", [False, True])
def test_logits_are_mean_log_probabilities_but_for_a_constant_of_the_row(incremental: bool) -> None:
    members = two_members()
    model = Ensemble(members)
    generator = np.random.default_rng(0)
    items = torch.from_numpy(generator.integers(1, 41, (5, 7)))
    lengths = torch.full((5,), 7)
    if incremental:
        assert isinstance(model, IncrementalBackbone)
        state, slots = model.new_state(6), torch.tensor([4, 0, 2, 5, 1])
        for column in items.T:
            queries = model.step(state, slots, column)
    else:
        queries = model.encode(items, lengths)
    logits = (queries @ model.item_embeddings()[1:].T).double()
    expected = torch.stack(
        [
            torch.log_softmax((member.encode(items, lengths) @ member.item_embeddings()[1:].T).double(), 1)
            for member in members
        ]
    ).mean(0)
    difference = logits - expected
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-5)
    assert float(expected.std(1).min()) > 1e-4


def test_it_has_the_members_parameters_and_the_shortest_history() -> None:
    members = two_members()
    model = Ensemble(members)
    assert model.max_len == 9
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for m in members for p in m.parameters())
    assert model.item_embeddings().shape == (41, 24)


def test_it_generates_as_one_that_recomputes_does() -> None:
    """The cached path and the plain one, over members with exact arithmetic."""
    sources = Sequences.from_lists([[3, 4, 5, 6], [7, 8], [9, 1, 2]], num_items=12)
    found = []
    for kind in (ToyBackbone, IncrementalToyBackbone):
        model = Ensemble([kind(12, seed=1), kind(12, seed=2)])
        assert isinstance(model, Backbone)
        assert hasattr(model, "step") == (kind is IncrementalToyBackbone)
        config = GenerationConfig(m=3, slots=4)
        policy = build_fidelity(FidelityConfig(tau=8), model.item_embeddings(), 1)
        found.append(generate(model, sources, config, policy, seed=1, round_=1).trajectories)
    assert len(found[0])
    assert found[0].fingerprint() == found[1].fingerprint()


def test_members_must_share_a_catalogue() -> None:
    with pytest.raises(BackboneError, match=r"catalogues of \[5, 6\] items"):
        Ensemble([ToyBackbone(5), ToyBackbone(6)])
    with pytest.raises(BackboneError, match="at least one"):
        Ensemble([])

"""Dropout masks: how often, how large, and which generator."""

from __future__ import annotations

import pytest
import torch

from rsir.models.dropout import Dropout

CPU = torch.device("cpu")


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_share_and_scale(probability):
    kept = Dropout(probability, 200_000, CPU, torch.Generator().manual_seed(0))(torch.ones(200_000))
    share = (kept == 0).double().mean().item()
    assert share == pytest.approx(probability, abs=0.006)
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    assert kept.unique().numel() == 2


def test_parts_are_drawn_anew_and_reproducibly():
    first, second = (Dropout(0.5, 130, CPU, torch.Generator().manual_seed(7)) for _ in range(2))
    x = torch.ones(5, 13)
    a, b = first(x), first(x)
    assert not torch.equal(a, b)
    assert torch.equal(a, second(x))
    assert torch.equal(b, second(x))


def test_nothing_is_drawn_at_probability_0():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    x = torch.ones(3)
    assert Dropout(0.0, 3, CPU, generator)(x) is x
    assert torch.equal(generator.get_state(), before)

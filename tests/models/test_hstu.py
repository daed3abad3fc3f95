"""HSTU against the paper's formula, one pair of positions at a time."""

from __future__ import annotations

import torch

from rsir.config import ModelConfig
from rsir.models import build
from tests.models.naive import norm, silu


def naive_layer(block, x, longest):
    """(L, d) -> (L, d)"""
    length, dim = x.shape
    part = dim // block.heads
    weight, bias = block.in_projection.weight, block.in_projection.bias
    projected = [silu(weight @ norm(row) + bias) for row in x]
    out = []
    for i in range(length):
        attended = torch.zeros(dim)
        for head in range(block.heads):
            own = slice(head * part, (head + 1) * part)
            for j in range(i + 1):
                query, key, value = projected[i][:dim], projected[j][dim : 2 * dim], projected[j][2 * dim :]
                score = query[own] @ key[own] + block.distances.weight[i - j, 0]
                attended[own] += silu(score) / longest * value[own]
        gate = silu(block.gate.weight @ norm(x[i]) + block.gate.bias)
        out.append(x[i] + block.out_projection.weight @ (norm(attended) * gate) + block.out_projection.bias)
    return torch.stack(out)


def small_model():
    model = build(ModelConfig(name="hstu", dim=8, heads=2, max_len=6), 10, seed=1).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(number))
    return model


@torch.no_grad()
def test_queries_are_those_of_the_formula():
    model = small_model()
    for row in ([3, 9, 4, 1, 1, 6], [7], [2, 2, 5]):
        x = model.items.weight[row] * 8**0.5 + model.positions.weight[: len(row)]
        for block in model.layers:
            x = naive_layer(block, x, longest=6)
        query = model.encode(torch.tensor([row]), torch.tensor([len(row)]))[0]
        torch.testing.assert_close(query, model.norm(x[-1]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_bias_goes_by_distance_alone():
    """Only the bias of distance 2 can change the query after three items, and not that after two."""
    model = small_model()
    items = torch.tensor([[3, 9, 4]])
    before = [model.encode(items[:, :length], torch.tensor([length])) for length in (2, 3)]
    for block in model.layers:
        block.distances.weight[2] += 3
    after = [model.encode(items[:, :length], torch.tensor([length])) for length in (2, 3)]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1], atol=1e-3)

"""The LiGR layer against its formula, position by position."""

from __future__ import annotations

import torch

from rsir.config import ModelConfig
from rsir.models import build

LISTS = [[3, 9, 4, 1], [7], [2, 2, 5]]


def naive_layer(block, x):
    """(L, d) -> (L, d), one query and one head at a time."""
    dim = x.shape[1]
    part = dim // block.heads
    normed = block.norm1(x)
    weight, bias = block.in_projection.weight, block.in_projection.bias
    queries, keys, values = (
        normed @ weight[i * dim : (i + 1) * dim].T + bias[i * dim : (i + 1) * dim] for i in range(3)
    )
    attended = torch.zeros_like(x)
    for at in range(len(x)):
        for head in range(block.heads):
            own = slice(head * part, (head + 1) * part)
            scores = keys[: at + 1, own] @ queries[at, own] / part**0.5
            attended[at, own] = torch.softmax(scores, 0) @ values[: at + 1, own]
    x = x + torch.sigmoid(block.attention_gate(x)) * block.out_projection(attended)
    normed = block.norm2(x)
    half = len(block.up.weight) // 2
    a, b = normed @ block.up.weight[:half].T, normed @ block.up.weight[half:].T
    return x + torch.sigmoid(block.feedforward_gate(x)) * ((a * torch.sigmoid(a) * b) @ block.down.weight.T)


@torch.no_grad()
def test_queries_are_those_of_the_formula():
    model = build(ModelConfig(name="esasrec", dim=8, heads=2, feedforward=12, max_len=6), 10, seed=1).eval()
    for parameter in model.parameters():
        parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    for row in LISTS:
        x = model.items.weight[row] * 8**0.5 + model.positions.weight[: len(row)]
        for block in model.layers:
            x = naive_layer(block, x)
        query = model.encode(torch.tensor([row]), torch.tensor([len(row)]))[0]
        torch.testing.assert_close(query, model.norm(x[-1]), rtol=1e-4, atol=1e-5)

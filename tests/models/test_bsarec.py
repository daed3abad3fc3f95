"""The layer of BSARec against its formula, position by position."""

from __future__ import annotations

import pytest
import torch

from rsir.config import ModelConfig
from rsir.errors import ConfigError
from rsir.models import build

LISTS = [[3, 9, 4, 1], [7], [2, 2, 5], [1, 2, 3, 4, 5, 6]]


def naive_layer(block, x):
    """(L, d) -> (L, d), one query and one head at a time."""
    dim = x.shape[1]
    part = dim // block.heads
    queries, keys, values = (x @ block.in_projection.weight.T + block.in_projection.bias).split(dim, dim=1)
    out, low = [], torch.zeros(dim)
    for at in range(len(x)):
        attended = torch.zeros(dim)
        for head in range(block.heads):
            own = slice(head * part, (head + 1) * part)
            bias = torch.stack([block.distances[head, at - j] for j in range(at + 1)])
            shares = torch.softmax(keys[: at + 1, own] @ queries[at, own] / part**0.5 + bias, 0)
            attended[own] = shares @ values[: at + 1, own]
        low = 0.6 * low + 0.4 * x[at]
        filtered = block.filter_norm(x[at] + low + block.beta**2 * (x[at] - low))
        y = 0.3 * filtered + 0.7 * block.norm1(x[at] + block.out_projection(attended))
        out.append(block.norm2(y + block.down(torch.nn.functional.gelu(block.up(y)))))
    return torch.stack(out)


def small_model():
    config = ModelConfig(name="bsarec", dim=8, heads=2, feedforward=12, max_len=6, filter_share=0.3, filter_decay=0.6)
    model = build(config, 10, seed=1).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(number))
    return model


@torch.no_grad()
def test_queries_are_those_of_the_formula():
    model = small_model()
    for row in LISTS:
        x = model.items.weight[row]
        for block in model.layers:
            x = naive_layer(block, x)
        query = model.encode(torch.tensor([row]), torch.tensor([len(row)]))[0]
        torch.testing.assert_close(query, x[-1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_bias_goes_by_distance_alone():
    """Only the bias of distance 2 can change the query after three items, and not that after two."""
    model = small_model()
    items, lengths = torch.tensor([[1, 2, 3], [1, 2, 0]]), torch.tensor([3, 2])
    before = model.encode(items, lengths)
    for block in model.layers:
        block.distances[:, 2] += 1
    after = model.encode(items, lengths)
    assert not torch.allclose(after[0], before[0], atol=1e-3)
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize(("name", "value"), [("filter_share", 1.1), ("filter_decay", 1.0)])
def test_settings_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"model.{name}: expected"):
        ModelConfig(**{name: value})

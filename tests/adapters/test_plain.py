"""Plain torch modules as backbones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rsir
from rsir.adapters import from_torch
from rsir.data import leave_one_out
from rsir.errors import BackboneError
from tests.adapters.contract import check, log


class Net(nn.Module):
    """A GRU over items, its output layer with a bias."""

    def __init__(self, num_items: int, bias: bool = True) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items + 1, 6)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.output = nn.Linear(5, num_items + 1, bias=bias)

    def forward(self, items: Tensor) -> Tensor:
        return self.gru(self.items(items))[0]


@pytest.mark.parametrize("bias", [False, True])
def test_adapter(bias: bool) -> None:
    data = log()
    labels = data.item_labels.to_pylist()
    net = Net(len(labels), bias).eval()
    ids = {label: place for place, label in enumerate(labels, 1)}

    def own_scores(history):
        with torch.no_grad():
            scores = net.output(net(torch.tensor([[ids[label] for label in history][-8:]])))[0, -1, 1:]
        return dict(zip(labels, scores.tolist(), strict=True))

    check(from_torch(net, net.output, labels, max_len=8), data, own_scores)


def test_ways_to_give_it() -> None:
    net = Net(9, bias=False)
    items, lengths = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])

    def last(items: Tensor, lengths: Tensor) -> Tensor:
        return net(items)[torch.arange(len(items)), lengths - 1]

    wanted = last(items, lengths)
    for forward, head, labels in (
        (net, net.output, None),
        (last, net.output.weight, None),
        (last, net.output.weight[1:], list("abcdefghi")),
        (lambda *both: last(*both), nn.Embedding.from_pretrained(net.output.weight), range(11, 20)),
    ):
        made = from_torch(forward, head, labels, max_len=4)
        assert torch.allclose(made.encode(items, lengths), wanted)
        assert torch.equal(made.item_embeddings()[1:], net.output.weight[1:])
        assert made.num_items == 9


def test_what_is_refused() -> None:
    net = Net(9)

    class Batch(nn.Module):
        def forward(self, items: Tensor) -> Tensor:
            found = net(items)
            return found - found.mean((0, 1))

    for forward, head, settings, message in (
        (3, net.output, {}, "forward: expected a module or a function"),
        (net, nn.ReLU(), {}, r"head: expected a linear layer, an embedding or a tensor of \(items \+ 1, d\), got ReLU"),
        (net, torch.zeros(3), {}, r"got \(3,\)"),
        (net, net.output, {"item_labels": [1, 2]}, r"head: expected 3 rows.* got 10"),
        (net, net.output, {"max_len": 0}, "max_len: expected a whole number of at least 1, got 0"),
        (net, torch.zeros(10, 4), {}, "one query a history as wide as an item embedding"),
        (lambda items: None, net.output, {}, "expected a tensor of queries, got NoneType"),
        (lambda items: 1 / 0, net.output, {}, "ZeroDivisionError|division by zero"),
        (Batch(), net.output, {}, "differs by up to .* with the padding and the batch"),
        (net, torch.full((10, 5), float("nan")), {}, "not finite"),
    ):
        with pytest.raises(BackboneError, match=message):
            from_torch(forward, head, **{"max_len": 4, **settings})


def test_it_is_evaluated_and_enriches() -> None:
    data = log()
    labels = data.item_labels.to_pylist()
    model = from_torch(net := Net(len(labels)), net.output, labels, max_len=8)
    over = model.align(data)
    assert 0 <= rsir.evaluate(model, leave_one_out(over).test).metrics["recall@10"] <= 1
    assert len(rsir.enrich(leave_one_out(over).train, model)) >= len(over)

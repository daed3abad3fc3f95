"""GRU4Rec against the equations of the GRU, and the order in which it reads packed rows."""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import PackedSequence

from rsir.config import ModelConfig
from rsir.data import Sequences
from rsir.data.batches import Batches
from rsir.models import build
from rsir.models.gru4rec import _by_position, _recur


def cell(gru, x, hidden):
    reads, keeps = gru.weight_ih_l0 @ x + gru.bias_ih_l0, gru.weight_hh_l0 @ hidden + gru.bias_hh_l0
    reset_in, update_in, new_in = reads.chunk(3)
    reset_hidden, update_hidden, new_hidden = keeps.chunk(3)
    reset, update = torch.sigmoid(reset_in + reset_hidden), torch.sigmoid(update_in + update_hidden)
    return (1 - update) * torch.tanh(new_in + reset * new_hidden) + update * hidden


@torch.no_grad()
def test_queries_are_those_of_the_equations():
    model = build(ModelConfig(name="gru4rec", dim=8, feedforward=12, layers=2, max_len=6), 10, seed=1).eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(number))
    for row in ([3, 9, 4, 1, 1, 6], [7], [2, 2, 5]):
        inputs = [model.items.weight[item] for item in row]
        for gru in model.layers:
            hidden, outputs = torch.zeros(12), []
            for x in inputs:
                hidden = cell(gru, x, hidden)
                outputs.append(hidden)
            inputs = outputs
        expected = model.norm(model.out_projection.weight @ inputs[-1] + model.out_projection.bias)
        query = model.encode(torch.tensor([row]), torch.tensor([len(row)]))[0]
        torch.testing.assert_close(query, expected, rtol=1e-5, atol=1e-5)


def test_packed_rows_are_read_by_position():
    lists = [[1, 2, 3], [4, 5, 6, 7, 8], [9, 1], [2, 4, 6, 8, 1, 3]]
    generator = torch.Generator()
    batches = Batches(Sequences.from_lists(lists, 9), 4, 7, 3, seed=0, device=torch.device("cpu"), generator=generator)
    stream = iter(batches)
    batch, _ = next(stream)
    stream.close()
    order, sizes = _by_position(batch.positions, batch.segments)
    assert sizes == [4, 3, 2, 2, 1]
    steps = batch.items.flatten()[order].split(sizes)
    read = [[int(step[rank]) for step in steps if rank < len(step)] for rank in range(4)]
    assert sorted(read) == sorted(row[:-1] for row in lists)
    assert [len(row) for row in read] == [5, 4, 2, 1]


def test_a_layer_and_its_gradients_are_those_of_torch():
    sizes = [5, 5, 3, 1, 1]
    torch.manual_seed(0)
    gru = torch.nn.GRU(6, 7).double()
    x = torch.randn(sum(sizes), 6, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(sum(sizes), 7, dtype=torch.float64)
    leaves = [x, *gru.parameters()]
    ours = _recur(gru, x, sizes)
    theirs = gru(PackedSequence(x, torch.tensor(sizes)))[0].data
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(out, leaves, upstream) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)

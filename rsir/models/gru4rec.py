"""GRU4Rec (Hidasi et al., 2016): a recurrent network over a user's items, the weak one among the backbones.

Trained like the others, by a sampled softmax, as its authors came to do (Hidasi and Karatzoglou, 2018), with output
embeddings tied to the input ones. A linear map takes the hidden state to the width of the embeddings, and a norm gives
the query: without it the products of a query and items are tiny at first, and training hardly begins.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rsir.config import ModelConfig
from rsir.data.batches import TrainingBatch
from rsir.models.dropout import Dropout, Rows
from rsir.models.losses import full_softmax, sampled_softmax
from rsir.models.packed import pack_rows
from rsir.models.registry import register
from rsir.models.stepping import SlotState, step_in_tiles
from rsir.ops import Ragged

__all__ = ["GRU4Rec", "HiddenState"]


class HiddenState(SlotState):
    """Hidden states of the sequences being extended.

    Attributes
    ----------
    hidden : (layers, slots + 1, hidden) float32
        What a slot of length 0 holds means nothing.
    """

    def __init__(self, config: ModelConfig, slots: int, device: torch.device) -> None:
        super().__init__(slots, device)
        self.hidden = torch.zeros(config.layers, slots + 1, config.feedforward, device=device)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        super().copy(sources, targets)
        self.hidden[:, targets] = self.hidden[:, sources]


class _Recurrence(torch.autograd.Function):
    """The recurrent half of a GRU layer over sequences read by position, without padding; see :func:`_recur`.

    torch.nn.GRU over a PackedSequence gives the same, but its backward pass fills a gradient of the whole batch with
    zeros at every position, a third of a training step.
    """

    @staticmethod
    def forward(ctx: Any, reads: Tensor, weight: Tensor, bias: Tensor, sizes: list[int]) -> Tensor:
        width = weight.shape[1]
        gates, keeps = torch.empty_like(reads), torch.empty_like(reads)
        hidden, before = torch.empty_like(reads[:, :width]), torch.zeros_like(reads[:, :width])
        state = before[: sizes[0]]
        for part in _parts(sizes):
            old = before[part].copy_(state[: part.stop - part.start])
            keep = torch.addmm(bias, old, weight.t(), out=keeps[part])
            gate = gates[part]
            reset_update = torch.add(reads[part, : 2 * width], keep[:, : 2 * width], out=gate[:, : 2 * width])
            reset, update = reset_update.sigmoid_().chunk(2, 1)
            new = gate[:, 2 * width :]
            torch.addcmul(reads[part, 2 * width :], reset, keep[:, 2 * width :], out=new).tanh_()
            state = torch.lerp(new, old, update, out=hidden[part])
        ctx.save_for_backward(weight, gates, keeps[:, 2 * width :], before)
        ctx.sizes = sizes
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        weight, gates, keep_new, before = ctx.saved_tensors
        reset, update, new = gates.chunk(3, 1)
        # What the gradient of the hidden state is multiplied with for that of each gate before its squashing.
        of_update = (before - new) * update * (1 - update)
        of_new = (1 - update) * (1 - new * new)
        of_reset = of_new * keep_new * reset * (1 - reset)
        factors = torch.cat([of_reset, of_update, of_new * reset], 1)
        width = weight.shape[1]
        grad_hidden, grad_keeps = upstream[0].clone(), torch.empty_like(gates)
        parts = _parts(ctx.sizes)
        for number in reversed(range(len(parts))):
            part = parts[number]
            grad = grad_hidden[part]
            grad_keep = grad_keeps[part]
            torch.mul(factors[part].unflatten(1, (3, width)), grad[:, None], out=grad_keep.unflatten(1, (3, width)))
            if number:
                start = parts[number - 1].start
                earlier = grad_hidden[start : start + len(grad)]
                earlier.addcmul_(grad, update[part]).addmm_(grad_keep, weight)
        grad_reads = grad_keeps.clone()
        torch.mul(of_new, grad_hidden, out=grad_reads[:, 2 * width :])
        return grad_reads, grad_keeps.t() @ before, grad_keeps.sum(0), None


def _parts(sizes: list[int]) -> list[slice]:
    """Where the sequences of each position lie."""
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _recur(gru: nn.GRU, x: Tensor, sizes: list[int]) -> Tensor:
    """A GRU layer over sequences read by position.

    Parameters
    ----------
    gru : torch.nn.GRU
        A recurrent network of one layer.
    x : (T, c) float
        In the order of :func:`_by_position`.
    sizes : list of int
        How many sequences have an item at each position.

    Returns
    -------
    (T, hidden) float
        Differentiable once.
    """
    weight_in, weight, bias_in, bias = gru.all_weights[0]
    hidden: Tensor = _Recurrence.apply(torch.nn.functional.linear(x, weight_in, bias_in), weight, bias, sizes)
    return hidden


@register("gru4rec")
class GRU4Rec(nn.Module):
    """GRU4Rec with a hidden state of ``config.feedforward`` numbers a layer; it has no heads.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights: matrices uniform within sqrt(6 / (rows + columns)), as the authors' code, biases 0.

    Attributes
    ----------
    threads : int, optional
        CPU threads of the fused loss in training; none is torch's number.
    loss_precision : {"float32", "bfloat16"}
        What the softmax over items rounds the factors of its products to.
    """

    draws_for_whole_batch = True

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.max_len = config.max_len
        self.threads: int | None = None
        self.loss_precision = "float32"
        self.items = nn.Embedding(num_items + 1, config.dim, padding_idx=0)
        widths = [config.dim] + [config.feedforward] * config.layers
        self.grus = nn.ModuleList(nn.GRU(width, config.feedforward, batch_first=True) for width in widths[:-1])
        self.out_projection = nn.Linear(config.feedforward, config.dim)
        with torch.no_grad():
            for parameter in self.parameters():
                bound = math.sqrt(6 / sum(parameter.shape)) if parameter.ndim > 1 else 0.0
                parameter.uniform_(-bound, bound, generator=generator)
            self.items.weight[0] = 0
        self.norm = nn.LayerNorm(config.dim)

    @property
    def layers(self) -> list[nn.GRU]:
        """The recurrent layers, lowest first."""
        return cast("list[nn.GRU]", list(self.grus))

    @property
    def item_table(self) -> nn.Embedding:
        """The item embeddings as :meth:`loss` looks them up; see :class:`rsir.models.LookupBackbone`."""
        return self.items

    def item_embeddings(self) -> Tensor:
        """(N + 1, d) float32; row 0 is zero."""
        return self.items.weight

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Query after each history; see :class:`rsir.models.Backbone`."""
        if items.shape[1] > self.max_len:
            raise ValueError(
                f"items: expected at most max_len = {self.max_len} columns, got {items.shape[1]}; keep the newest"
            )
        dropout = self._dropout(items.numel())
        x = dropout(self.items(items))
        for gru in self.layers:
            x = dropout(gru(x)[0])
        return self.norm(self.out_projection(x[torch.arange(x.shape[0], device=x.device), lengths - 1]))

    def loss(self, batch: TrainingBatch, negatives: Tensor) -> Tensor:
        """Mean cross-entropy of the next item at every position; see :class:`rsir.models.TrainableBackbone`."""
        order, sizes = _by_position(batch.positions, batch.segments)
        inputs, targets, weights = (value.flatten()[order] for value in (batch.items, batch.targets, batch.weights))
        # One lookup for inputs, targets and negatives: one pass builds the gradient of the table.
        ids = [inputs] if batch.full else [inputs, targets, negatives]
        x, *others = self.items(torch.cat(ids)).split([len(part) for part in ids])
        dropout = self._dropout(len(order), batch.generator, _rows_of(batch))
        x = dropout(x)
        for gru in self.layers:
            x = dropout(_recur(gru, x, sizes))
        weights = (weights / weights.sum()).to(x.dtype)
        queries = self.norm(self.out_projection(x))
        rounded = self.loss_precision == "bfloat16"
        if batch.full:
            return full_softmax(queries, self.items.weight, targets, weights, self.threads, rounded)
        positives, against = others
        return sampled_softmax(
            queries, positives, against, targets, negatives, weights, self.threads, batch.corrections, rounded
        )

    def encode_prefixes(self, sequences: Ragged) -> Tensor:
        """Query after every item of sequences; see :class:`rsir.models.PrefixBackbone`."""
        rows = pack_rows(sequences, self.items.weight.device)
        order, sizes = _by_position(rows.positions, rows.segments)
        x = self.items(rows.items.flatten()[order])
        for gru in self.layers:
            x = _recur(gru, x, sizes)
        found = x.new_empty(rows.items.numel(), self.config.dim)
        found[order] = self.norm(self.out_projection(x))
        return found[rows.places]

    def new_state(self, slots: int) -> HiddenState:
        """State for extending this many sequences; 4 * layers * feedforward bytes a slot."""
        return HiddenState(self.config, slots, self.items.weight.device)

    def step(self, state: HiddenState, slots: Tensor, items: Tensor) -> Tensor:
        """Append one item to each named slot; see :func:`rsir.models.stepping.step_in_tiles`."""
        return step_in_tiles(self, state, slots, items, [self.max_len], self._extend)

    def step_all(self, state: HiddenState, items: Tensor, at: Tensor) -> Tensor:
        """Append one item to every slot; see :class:`rsir.models.SteppingBackbone`."""
        return self._extend(state, torch.arange(len(items), device=items.device), items, at, self.max_len)

    def _extend(self, state: HiddenState, slots: Tensor, items: Tensor, at: Tensor, width: int) -> Tensor:
        x = self.items(items)
        for gru, hidden in zip(self.layers, state.hidden, strict=True):
            before = torch.where(at[:, None] > 0, hidden[slots], 0.0)
            x = torch.gru_cell(x, before, *gru.all_weights[0])
            hidden[slots] = x
        return self.norm(self.out_projection(x))

    def _dropout(self, positions: int, generator: torch.Generator | None = None, rows: Rows | None = None) -> Dropout:
        """Dropout for a forward pass over this many positions: none unless training."""
        config = self.config
        probability = config.dropout if self.training else 0.0
        elements = positions * (config.dim + config.layers * config.feedforward)
        return Dropout(probability, elements, self.items.weight.device, generator, rows)


def _rows_of(batch: TrainingBatch) -> Rows | None:
    """Where the positions of a part of a batch are among those of the whole one, both in the order of reading."""
    if batch.part is None:
        return None
    order, _ = _by_position(batch.part.whole.positions, batch.part.whole.segments)
    return Rows(batch.part.holds(order).nonzero()[:, 0], len(order))


def _by_position(positions: Tensor, segments: Tensor) -> tuple[Tensor, list[int]]:
    """The order in which a recurrent network reads packed rows, (R, W) int64 each, without padding.

    Returns
    -------
    order : (T,) int64
        Places in the flattened rows: all first items, that of the longest sequence first, then all second ones, ...
    sizes : list of int
        How many sequences have an item at each position.
    """
    filled = segments.flatten().nonzero()[:, 0]
    position = positions.flatten()[filled]
    sequence = (position == 0).cumsum(0) - 1
    by_length = torch.argsort(torch.bincount(sequence), descending=True, stable=True)
    rank = torch.empty_like(by_length)
    rank[by_length] = torch.arange(len(rank), device=rank.device)
    order = filled[torch.argsort(position * len(rank) + rank[sequence])]
    return order, torch.bincount(position).tolist()

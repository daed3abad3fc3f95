"""SASRec (Kang and McAuley, 2018) as the RSIR authors configure it: a causal Transformer over a user's items."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir import ops
from rsir.config import ModelConfig
from rsir.data.batches import TrainingBatch
from rsir.models.dropout import Dropout
from rsir.models.encoding import tile_rows, width_buckets
from rsir.models.losses import sampled_softmax
from rsir.models.protocol import BackboneError
from rsir.models.registry import register

__all__ = ["SASRec", "SASRecState"]

# Slots that step together, about; fixed, so that a slot's bits do not depend on how many are stepped.
_STEP_TILE = {"cpu": 256, "cuda": 4096}
# Coarser than when encoding: every bucket in use may leave a tile half empty.
_STEP_BUCKET = 8


class Block(nn.Module):
    """One post-norm Transformer layer: attention, then a GELU feed-forward net."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.in_projection = nn.Linear(config.dim, 3 * config.dim)
        self.out_projection = nn.Linear(config.dim, config.dim)
        self.norm1 = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, config.feedforward)
        self.down = nn.Linear(config.feedforward, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)

    def split(self, x: Tensor) -> Tensor:
        """(B, L, c * d) as (c, B, heads, L, d / heads)."""
        rows, width, _ = x.shape
        return x.view(rows, width, -1, self.heads, self.in_projection.in_features // self.heads).permute(2, 0, 3, 1, 4)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
        """Attention of (B, heads, Q, e) queries over (B, heads, K, e) keys; the mask is added. (B, Q, d)"""
        scores = (queries * (1 / math.sqrt(queries.shape[-1]))) @ keys.transpose(-1, -2)
        shares = dropout(torch.softmax(scores + mask, dim=-1))
        return (shares @ values).transpose(1, 2).flatten(2)

    def finish(self, x: Tensor, attended: Tensor, dropout: Dropout) -> Tensor:
        """The layer's output from its input and what attention gathered, both (B, Q, d)."""
        x = self.norm1(x + dropout(self.out_projection(attended)))
        hidden = dropout(F.gelu(self.up(x)))
        return self.norm2(x + dropout(self.down(hidden)))

    def forward(self, x: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
        queries, keys, values = self.split(self.in_projection(x)).unbind(0)
        return self.finish(x, self.attend(queries, keys, values, mask, dropout), dropout)

    def packed(self, x: Tensor, segments: Tensor, dropout: Dropout, threads: int | None) -> Tensor:
        """The layer over a packed batch, (R, W, d), within each segment of (R, W) alone: one fused op."""
        rows, width, dim = x.shape
        linears = (self.in_projection, self.out_projection, self.norm1, self.up, self.down, self.norm2)
        parameters = ops.LayerParameters(*(value for linear in linears for value in (linear.weight, linear.bias)))
        random = None
        if dropout.dropped:
            shapes = ((self.heads, width, width), (width, dim), (width, self.up.out_features), (width, dim))
            random = ops.LayerDropout(dropout.dropped, *(dropout.take(rows, *shape) for shape in shapes))
        return ops.transformer_layer(
            x, segments, parameters, heads=self.heads, epsilon=self.norm1.eps, dropout=random, threads=threads
        )

    def at_last(self, x: Tensor, lengths: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
        """What :meth:`forward` gives at the last item of each row, (B, 1, d), without computing the rest."""
        dim = x.shape[-1]
        last = x[torch.arange(len(x), device=x.device), lengths - 1, None]
        weight, bias = self.in_projection.weight, self.in_projection.bias
        queries = self.split(F.linear(last, weight[:dim], bias[:dim]))[0]
        keys, values = self.split(F.linear(x, weight[dim:], bias[dim:])).unbind(0)
        return self.finish(last, self.attend(queries, keys, values, mask, dropout), dropout)


class SASRecState:
    """Cached keys and values of the sequences being extended.

    Attributes
    ----------
    keys, values : (layers, slots + 1, heads, max_len, d / heads) float32
        The last slot is scratch, for padding a tile.
    lengths : (slots + 1,) int64
    """

    def __init__(self, config: ModelConfig, slots: int, device: torch.device) -> None:
        shape = (config.layers, slots + 1, config.heads, config.max_len, config.dim // config.heads)
        self.keys = torch.zeros(shape, device=device)
        self.values = torch.zeros(shape, device=device)
        self.lengths = torch.zeros(slots + 1, dtype=torch.int64, device=device)
        self.stamps = torch.zeros(slots, dtype=torch.int64, device=device)

    def reset(self, slots: Tensor) -> None:
        """Empty these slots, (n,) int64."""
        self.lengths[slots] = 0

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Let each target slot, (n,) int64, hold what its source slot holds; no target is a source."""
        self.lengths[targets] = self.lengths[sources]
        width = int(self.lengths[sources].max()) if len(sources) else 0
        for cache in (self.keys, self.values):
            cache[:, targets, :, :width] = cache[:, sources, :, :width]


@register("sasrec")
class SASRec(nn.Module):
    """SASRec: learned positions counted from the oldest item, output embeddings tied to the input ones.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights: normal(0, 0.02), biases 0.

    Attributes
    ----------
    threads : int, optional
        CPU threads of the fused ops in training; none is torch's number.
    """

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.max_len = config.max_len
        self.threads: int | None = None
        self.items = nn.Embedding(num_items + 1, config.dim, padding_idx=0)
        self.positions = nn.Embedding(config.max_len, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.02, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()
            self.items.weight[0] = 0

    @property
    def layers(self) -> list[Block]:
        """The Transformer blocks, lowest first."""
        return cast("list[Block]", list(self.blocks))

    def item_embeddings(self) -> Tensor:
        """(N + 1, d) float32; row 0 is zero."""
        return self.items.weight

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Query after each history; see :class:`rsir.models.Backbone`."""
        width = items.shape[1]
        if width > self.max_len:
            raise ValueError(f"items: expected at most max_len = {self.max_len} columns, got {width}; keep the newest")
        dropout = self._dropout(items)
        x = dropout(self.items(items) + self.positions.weight[:width])
        for block in self.layers[:-1]:
            x = block(x, _causal(width, x.device), dropout)
        future = torch.arange(width, device=x.device) >= lengths[:, None]
        beyond = torch.zeros(future.shape, device=x.device).masked_fill_(future, -torch.inf)
        return self.layers[-1].at_last(x, lengths, beyond[:, None, None], dropout)[:, 0]

    def loss(self, batch: TrainingBatch, negatives: Tensor) -> Tensor:
        """Mean cross-entropy of the next item at every position; see :class:`rsir.models.TrainableBackbone`."""
        targets = batch.targets.flatten()
        # One lookup for inputs, targets and negatives: one pass builds the gradient of the table.
        rows = self.items(torch.cat([batch.items.flatten(), targets, negatives]))
        inputs, positives, against = rows.split([len(targets), len(targets), len(negatives)])
        dropout = self._dropout(batch.items, batch.generator)
        x = dropout(inputs.view(*batch.items.shape, -1) + self.positions(batch.positions))
        for block in self.layers:
            x = block.packed(x, batch.segments, dropout, self.threads)
        weights = (batch.weights / batch.weights.sum()).flatten().to(x.dtype)
        return sampled_softmax(x.flatten(0, 1), positives, against, targets, negatives, weights, self.threads)

    def new_state(self, slots: int) -> SASRecState:
        """State for extending this many sequences; 4 * layers * max_len * dim * 2 bytes a slot."""
        return SASRecState(self.config, slots, self.items.weight.device)

    @torch.no_grad()
    def step(self, state: SASRecState, slots: Tensor, items: Tensor) -> Tensor:
        """Append one item to each named slot; see :class:`rsir.models.IncrementalBackbone`.

        Raises
        ------
        ValueError
            A slot holds max_len items already, or is named twice.
        """
        if self.training:
            raise BackboneError("step works without dropout: call eval() on the model first")
        number = torch.arange(len(slots), device=slots.device)
        state.stamps[slots] = number
        if not torch.equal(state.stamps[slots], number):
            raise ValueError("slots: expected each slot once, got one twice; step it twice instead")
        lengths = state.lengths[slots] + 1
        if len(slots) and int(lengths.max()) > self.max_len:
            slot = int(slots[lengths.argmax()])
            raise ValueError(f"slots: slot {slot} holds max_len = {self.max_len} items already; reset it first")
        queries = self.items.weight.new_empty(len(slots), self.config.dim)
        size = tile_rows(_STEP_TILE.get(slots.device.type, _STEP_TILE["cuda"]))
        widths = width_buckets(self.max_len, _STEP_BUCKET)
        bucket = torch.bucketize(lengths, torch.tensor(widths, device=lengths.device))
        for number_of_bucket, width in enumerate(widths):
            for part in (bucket == number_of_bucket).nonzero()[:, 0].split(size):
                if len(part):
                    queries[part] = self._step_tile(state, slots[part], items[part], size, width)[: len(part)]
        return queries

    def _step_tile(self, state: SASRecState, slots: Tensor, items: Tensor, size: int, width: int) -> Tensor:
        """Step up to ``size`` slots, all of the same width bucket. (size, d)"""
        missing = size - len(slots)
        slots = F.pad(slots, (0, missing), value=len(state.lengths) - 1)
        state.lengths[-1] = 0
        at = state.lengths[slots]
        x = (self.items(F.pad(items, (0, missing))) + self.positions(at))[:, None]
        none = Dropout(0.0, 0, x.device)
        future = torch.arange(width, device=x.device) > at[:, None]
        mask = torch.zeros(future.shape, device=x.device).masked_fill_(future, -torch.inf)[:, None, None]
        # A cache as a table with one row for each (slot, head, position): index_select then copies whole rows, many
        # times faster than indexing slots and slicing positions.
        heads = self.config.heads
        first = (slots[:, None] * heads + torch.arange(heads, device=x.device)) * self.max_len
        newest = (first + at[:, None]).flatten()
        cached = (first[:, :, None] + torch.arange(width, device=x.device)).flatten()
        for block, keys, values in zip(self.layers, state.keys.flatten(1, 3), state.values.flatten(1, 3), strict=True):
            query, key, value = block.split(block.in_projection(x)).unbind(0)
            part = key.shape[-1]
            keys.index_copy_(0, newest, key.reshape(-1, part))
            values.index_copy_(0, newest, value.reshape(-1, part))
            keys, values = (t.index_select(0, cached).view(len(x), heads, width, part) for t in (keys, values))
            attended = block.attend(query, keys, values, mask, none)
            x = block.finish(x, attended, none)
        state.lengths[slots] = at + 1
        return x[:, 0]

    def _dropout(self, items: Tensor, generator: torch.Generator | None = None) -> Dropout:
        """Dropout for a forward pass over items (B, L): none unless training."""
        config = self.config
        layer = 2 * config.dim + config.feedforward + config.heads * items.shape[1]
        elements = items.numel() * (config.dim + config.layers * layer)
        probability = config.dropout if self.training else 0.0
        return Dropout(probability, elements, self.items.weight.device, generator)


def _causal(width: int, device: torch.device) -> Tensor:
    """(width, width) float32: 0 where a position may look, -inf at those after it."""
    return torch.full((width, width), -torch.inf, device=device).triu_(1)

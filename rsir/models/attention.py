"""What backbones of causal attention share: encoding, the loss over packed rows, and decoding with cached keys.

A backbone is its embeddings and a stack of :class:`AttentionBlock`; a block says how it projects, attends and ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir.config import ModelConfig
from rsir.data.batches import TrainingBatch
from rsir.models.dropout import Dropout, Rows
from rsir.models.encoding import width_buckets
from rsir.models.losses import full_softmax, sampled_softmax
from rsir.models.packed import pack_rows
from rsir.models.stepping import KeyValueState, step_in_tiles
from rsir.models.times import bucket_of
from rsir.ops import Ragged
from rsir.ops.slots import attend_cached

__all__ = ["AttentionBackbone", "AttentionBlock", "Reach", "rows_of"]

# Coarser than when encoding: every bucket in use may leave a tile half empty.
_STEP_BUCKET = 8


class Reach(NamedTuple):
    """What queries may look at; both broadcast to (B, heads, Q, K).

    Attributes
    ----------
    mask : float32
        0 where a query may look, -inf elsewhere.
    distance : int64
        How many items a key lies before its query; what stands where the mask is -inf means nothing.
    bucket : int64, optional
        Of the time between a key and what is asked for after its query (:func:`rsir.models.times.bucket_of`), where the
        backbone uses times.
    """

    mask: Tensor
    distance: Tensor
    bucket: Tensor | None = None


class AttentionBlock(nn.Module):
    """One layer of causal attention: softmax attention unless a subclass says otherwise.

    Parameters
    ----------
    config : ModelConfig
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.in_projection = nn.Linear(config.dim, 3 * config.dim)

    def split(self, x: Tensor) -> Tensor:
        """(B, L, c * d) as (c, B, heads, L, d / heads)."""
        rows, width, _ = x.shape
        return x.view(rows, width, -1, self.heads, self.in_projection.in_features // self.heads).permute(2, 0, 3, 1, 4)

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> Tensor:
        """Queries, keys and values of (B, L, d), or those of them in first..last - 1: (c, B, heads, L, d / heads)."""
        rows = slice(first * x.shape[-1], last * x.shape[-1])
        return self.split(F.linear(x, self.in_projection.weight[rows], self.in_projection.bias[rows]))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        """Attention of (B, heads, Q, e) queries over (B, heads, K, e) keys. (B, Q, d)"""
        scores = (queries * (1 / math.sqrt(queries.shape[-1]))) @ keys.transpose(-1, -2)
        shares = dropout(torch.softmax(scores + reach.mask, dim=-1))
        return (shares @ values).transpose(1, 2).flatten(2)

    def attend_newest(self, x: Tensor, at: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of one new item of each sequence over itself and those before it, (B, 1, d).

        Parameters
        ----------
        x : (B, 1, d) float32
        at : (B,) int64
            How many items lie before.
        slots : (B,) int64
            0, 1, ...
        keys, values : (B or more, heads, max_len, d / heads) float32
            Those before; the new ones are put there.
        """
        query, key, value = self.project(x)[..., 0, :].unbind(0)
        if type(self).attend is AttentionBlock.attend:
            return attend_cached(query, key, value, at, keys, values)[:, None]
        keys[slots, :, at], values[slots, :, at] = key, value
        rows, width = len(x), keys.shape[2]
        none = Dropout(0.0, 0, x.device)
        return self.attend(query[:, :, None], keys[:rows], values[:rows], _up_to(at, width), none)

    def finish(self, x: Tensor, attended: Tensor, dropout: Dropout) -> Tensor:
        """The layer's output from its input and what attention gathered, both (B, Q, d)."""
        raise NotImplementedError

    def dropout_elements(self, width: int) -> int:
        """How many elements a position passes through dropout, in rows of this width."""
        raise NotImplementedError

    def forward(self, x: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        queries, keys, values = self.project(x).unbind(0)
        return self.finish(x, self.attend(queries, keys, values, reach, dropout), dropout)

    def at_last(self, x: Tensor, lengths: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        """What :meth:`forward` gives at the last item of each row, (B, 1, d), without computing the rest."""
        last = x[torch.arange(x.shape[0], device=x.device), lengths - 1, None]
        queries = self.project(last, 0, 1)[0]
        keys, values = self.project(x, 1, 3).unbind(0)
        return self.finish(last, self.attend(queries, keys, values, reach, dropout), dropout)


class AttentionBackbone(nn.Module):
    """Learned positions counted from the oldest item, blocks, and output embeddings tied to the input ones.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights: matrices normal(0, 0.02), biases 0.
    block : callable
        Makes a layer from the config.
    pre_norm : bool, default False
        For layers that norm what they read and add to it: the first one then reads item embeddings times sqrt(d), lest
        what layers add drowns them, and a norm of what the last one gives is the query.
    positions : bool, default True
        Without them layers must tell places apart by themselves.

    Attributes
    ----------
    threads : int, optional
        CPU threads of the fused ops in training; none is torch's number.
    loss_precision : {"float32", "bfloat16"}
        What the softmax over items rounds the factors of its products to.
    """

    draws_for_whole_batch = True
    uses_times = False
    capturable = True

    def __init__(
        self,
        config: ModelConfig,
        num_items: int,
        generator: torch.Generator,
        block: Callable[[ModelConfig], AttentionBlock],
        pre_norm: bool = False,
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.max_len = config.max_len
        self.threads: int | None = None
        self.loss_precision = "float32"
        self.items = nn.Embedding(num_items + 1, config.dim, padding_idx=0)
        self.positions = nn.Embedding(config.max_len, config.dim) if positions else None
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))
        self.scale = math.sqrt(config.dim) if pre_norm else None
        self.norm = nn.LayerNorm(config.dim) if pre_norm else nn.Identity()
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.02, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()
            self.items.weight[0] = 0

    @property
    def layers(self) -> list[AttentionBlock]:
        """The blocks, lowest first."""
        return cast("list[AttentionBlock]", list(self.blocks))

    @property
    def item_table(self) -> nn.Embedding:
        """The item embeddings as :meth:`loss` looks them up; see :class:`rsir.models.LookupBackbone`."""
        return self.items

    def item_embeddings(self) -> Tensor:
        """(N + 1, d) float32; row 0 is zero."""
        return self.items.weight

    def embed(self, items: Tensor, places: Tensor) -> Tensor:
        """What the first layer reads, (..., d), from embeddings of items, (..., d), and their places, (...) int64."""
        scaled = items if self.scale is None else items * self.scale
        return scaled if self.positions is None else scaled + self.positions(places)

    def read(
        self,
        items: Tensor,
        positions: Tensor,
        segments: Tensor,
        generator: torch.Generator | None = None,
        rows: Rows | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """Query at every position of packed rows, (R, W, d).

        Parameters
        ----------
        items : (R, W, d) float
            Embeddings of the items.
        positions, segments : (R, W) int64
        generator : torch.Generator, optional
            Draws dropout, in training mode.
        rows : Rows, optional
            Which rows these are of those that dropout is drawn for; default all.
        times : (R, W, 2) int64, optional
            When each item came, and when the one after it did, for a backbone that uses times.
        """
        dropout = self._dropout(segments, generator, rows)
        x = dropout(self.embed(items, positions))
        return self.norm(self.packed_layers(x, segments, dropout, times))

    def packed_layers(self, x: Tensor, segments: Tensor, dropout: Dropout, times: Tensor | None = None) -> Tensor:
        """All layers over packed rows, (R, W, d), within each segment of (R, W) alone."""
        reach = _within(segments, x.dtype)
        if self.uses_times:
            if times is None:
                raise ValueError(f"{type(self).__name__}: expected times of packed rows, got none")
            reach = reach._replace(bucket=_since(times[:, :, 1], times[:, :, 0]))
        for block in self.layers:
            x = block(x, reach, dropout)
        return x

    def encode(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """Query after each history; see :class:`rsir.models.Backbone` and :class:`rsir.models.TimedBackbone`."""
        width = items.shape[1]
        if width > self.max_len:
            raise ValueError(f"items: expected at most max_len = {self.max_len} columns, got {width}; keep the newest")
        dropout = self._dropout(items)
        place = torch.arange(width, device=items.device)
        x = dropout(self.embed(self.items(items), place))
        mask = torch.full((width, width), -torch.inf, device=x.device).triu_(1)
        reach, last = Reach(mask, place[:, None] - place), _up_to(lengths - 1, width)
        if self.uses_times:
            clock = self.clock(times, items.shape[0], width)
            reach = reach._replace(bucket=_since(clock[:, 1:], clock[:, :-1]))
            last = last._replace(bucket=_since(clock.gather(1, lengths[:, None]), clock[:, :-1]))
        for block in self.layers[:-1]:
            x = block(x, reach, dropout)
        reach = last
        return self.norm(self.layers[-1].at_last(x, lengths, reach, dropout)[:, 0])

    def clock(self, times: Tensor | None, rows: int, width: int) -> Tensor:
        """Times (rows, width + 1) as :meth:`encode` takes them, or those that stand in for them."""
        raise NotImplementedError

    def encode_prefixes(self, sequences: Ragged, times: Tensor | None = None) -> Tensor:
        """Query after every item of sequences; see :class:`rsir.models.PrefixBackbone`."""
        rows = pack_rows(sequences, self.items.weight.device)
        grid = None
        if self.uses_times:
            if times is None:
                gap = self.clock(None, 1, self.max_len)[0].to(rows.items.device)
                times = torch.stack([gap[rows.positions], gap[rows.positions + 1]], -1).flatten(0, 1)[rows.places]
            grid = times.new_zeros(rows.items.numel(), 2)
            grid[rows.places] = times.to(grid.device)
            grid = grid.view(*rows.items.shape, 2)
        queries = self.read(self.items(rows.items), rows.positions, rows.segments, times=grid)
        return queries.flatten(0, 1)[rows.places]

    def loss(self, batch: TrainingBatch, negatives: Tensor) -> Tensor:
        """Mean cross-entropy of the next item at every position; see :class:`rsir.models.TrainableBackbone`."""
        targets = batch.targets.flatten()
        # One lookup for inputs, targets and negatives: one pass builds the gradient of the table.
        ids = [batch.items.flatten()] if batch.full else [batch.items.flatten(), targets, negatives]
        inputs, *others = self.items(torch.cat(ids)).split([len(part) for part in ids])
        x = self.read(
            inputs.view(*batch.items.shape, -1),
            batch.positions,
            batch.segments,
            batch.generator,
            rows_of(batch),
            batch.times,
        ).flatten(0, 1)
        weights = (batch.weights / batch.weights.sum()).flatten().to(x.dtype)
        rounded = self.loss_precision == "bfloat16"
        if batch.full:
            return full_softmax(x, self.items.weight, targets, weights, self.threads, rounded)
        positives, against = others
        arguments = x, positives, against, targets, negatives, weights
        return sampled_softmax(*arguments, self.threads, batch.corrections, rounded)

    def new_state(self, slots: int) -> KeyValueState:
        """State for extending this many sequences; 4 * layers * max_len * dim * 2 bytes a slot."""
        return KeyValueState(self.config, slots, self.items.weight.device)

    def step(self, state: KeyValueState, slots: Tensor, items: Tensor) -> Tensor:
        """Append one item to each named slot; see :func:`rsir.models.stepping.step_in_tiles`."""
        widths = width_buckets(self.max_len, _STEP_BUCKET)
        return step_in_tiles(self, state, slots, items, widths, self._extend)

    def _extend(self, state: KeyValueState, slots: Tensor, items: Tensor, at: Tensor, width: int) -> Tensor:
        x = self.embed(self.items(items), at)[:, None]
        none = Dropout(0.0, 0, x.device)
        reach = _up_to(at, width)
        if state.clock is not None:
            clock = state.clock[slots]
            reach = reach._replace(bucket=_since(clock.gather(1, at[:, None] + 1), clock[:, :width]))
        # A cache as a table with one row for each (slot, head, position): index_select then copies whole rows, many
        # times faster than indexing slots and slicing positions.
        heads = self.config.heads
        first = (slots[:, None] * heads + torch.arange(heads, device=x.device)) * self.max_len
        newest = (first + at[:, None]).flatten()
        cached = (first[:, :, None] + torch.arange(width, device=x.device)).flatten()
        for number, block in enumerate(self.layers):
            keys, values = state.keys[number].flatten(0, 2), state.values[number].flatten(0, 2)
            query, key, value = block.project(x).unbind(0)
            part = key.shape[-1]
            keys.index_copy_(0, newest, key.reshape(-1, part))
            values.index_copy_(0, newest, value.reshape(-1, part))
            keys, values = (t.index_select(0, cached).view(len(x), heads, width, part) for t in (keys, values))
            x = self.finish_step(number, x, block.attend(query, keys, values, reach, none), state, slots)
        return self.norm(x[:, 0])

    def step_all(self, state: KeyValueState, items: Tensor, at: Tensor) -> Tensor:
        """Append one item to every slot; see :class:`rsir.models.SteppingBackbone`."""
        x = self.embed(self.items(items), at)[:, None]
        slots = torch.arange(len(items), device=x.device)
        if state.low is not None:
            state.lengths[:-1] = at
        for number, block in enumerate(self.layers):
            attended = block.attend_newest(x, at, slots, state.keys[number], state.values[number])
            x = self.finish_step(number, x, attended, state, slots)
        return self.norm(x[:, 0])

    def finish_step(self, number: int, x: Tensor, attended: Tensor, state: KeyValueState, slots: Tensor) -> Tensor:
        """Layer ``number``'s output for the newest item of each slot, from its input and what attention gathered."""
        return self.layers[number].finish(x, attended, Dropout(0.0, 0, x.device))

    def _dropout(self, items: Tensor, generator: torch.Generator | None = None, rows: Rows | None = None) -> Dropout:
        """Dropout for a forward pass over items (B, L): none unless training."""
        config = self.config
        each = config.dim + sum(block.dropout_elements(items.shape[1]) for block in self.layers)
        probability = config.dropout if self.training else 0.0
        return Dropout(probability, items.numel() * each, self.items.weight.device, generator, rows)


def rows_of(batch: TrainingBatch, copies: int = 1) -> Rows | None:
    """Which rows of the whole batch, laid out several times one below the other, a process computes; None: all."""
    part = batch.part
    if part is None:
        return None
    of = len(part.whole.items)
    rows = torch.arange(part.first, part.last, device=batch.items.device)
    return Rows(torch.cat([rows + of * copy for copy in range(copies)]), of * copies)


def _up_to(last: Tensor, width: int) -> Reach:
    """For one query a row, at place ``last`` (B,), over ``width`` keys: those up to itself."""
    distance = (last[:, None] - torch.arange(width, device=last.device))[:, None, None]
    mask = torch.zeros(distance.shape, device=last.device).masked_fill_(distance < 0, -torch.inf)
    return Reach(mask, distance)


def _since(asked: Tensor, times: Tensor) -> Tensor:
    """(B, 1, Q, K): buckets of the times between keys (B, K) and what is asked for after queries, (B, Q)."""
    return bucket_of(asked[:, :, None] - times[:, None])[:, None]


def _within(segments: Tensor, dtype: torch.dtype) -> Reach:
    """For packed rows: keys of the query's own segment, (R, W), up to itself.

    Where a row is not filled the segment is 0 and positions look at each other: no share is 0 / 0.
    """
    place = torch.arange(segments.shape[1], device=segments.device)
    distance = place[:, None] - place
    visible = (segments[:, :, None] == segments[:, None]) & (distance >= 0)
    mask = torch.zeros(visible.shape, dtype=dtype, device=segments.device).masked_fill_(~visible, -torch.inf)
    return Reach(mask[:, None], distance)

"""Types that the scoring ops take and return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "GREEDY",
    "AdamMoments",
    "Draw",
    "FullSoftmax",
    "LayerDropout",
    "LayerFilter",
    "LayerParameters",
    "Ragged",
    "RankedSample",
    "RankedTopK",
    "Sample",
    "SampledSoftmax",
    "SparseScores",
    "TopK",
]


class Ragged(NamedTuple):
    """One list of item ids per row: row ``b`` owns ``ids[offsets[b]:offsets[b + 1]]``."""

    ids: Tensor
    """(nnz,) int32 or int64, each in 1..N."""
    offsets: Tensor
    """(B + 1,) int64, from 0 to nnz, never falling."""

    @classmethod
    def from_numpy(cls, ids: NDArray[Any], offsets: NDArray[np.int64], device: torch.device | str = "cpu") -> Ragged:
        """Copies of two arrays, such as those of :class:`rsir.data.Ragged`, as tensors on a device."""
        return cls(torch.tensor(ids, device=device), torch.tensor(offsets, device=device))


class SparseScores(NamedTuple):
    """Scores added to the logits of a few items a row: to item ``ids[j]`` of row ``b``, ``values[j]``.

    Row ``b`` owns places ``offsets[b]`` to ``offsets[b + 1]``, as in :class:`Ragged`.
    """

    ids: Tensor
    """(nnz,) int32 or int64, each in 1..N, ascending within a row: an item is listed once."""
    offsets: Tensor
    """(B + 1,) int64, from 0 to nnz, never falling."""
    values: Tensor
    """(nnz,) float32, not NaN. The score is the float32 sum of logit and value; -inf takes an item out."""


@dataclass(frozen=True, eq=False)
class Draw:
    """How each row draws one item: from its best k, by softmax at a temperature, keyed by seed and counters.

    Raises
    ------
    ValueError
        A value out of its range, or k above 1 without counters.
    """

    k: int = 1
    """1 is greedy decoding: the best eligible item, no randomness."""
    temperature: float = 1.0
    """Above 0; unused when k is 1."""
    seed: int = 0
    """0..2**64 - 1, the Philox key."""
    counters: Tensor | None = None
    """(B, 3) int64, each in 0..2**32 - 1: what is being sampled (source, trajectory, step ...). Rows with equal
    counters draw equal noise. Needed when k is above 1."""

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or int(self.k) != self.k or self.k < 1:
            raise ValueError(f"k: expected a whole number of at least 1, got {self.k!r}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature: expected a finite number above 0, got {self.temperature!r}")
        if int(self.seed) != self.seed or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed: expected a whole number in 0..2**64 - 1, got {self.seed!r}")
        for name, kind in (("k", int), ("temperature", float), ("seed", int)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        counters = self.counters
        if counters is None:
            if self.k > 1:
                raise ValueError("counters: needed when k > 1, so that a draw is keyed by what it is drawn for")
            return
        if counters.ndim != 2 or counters.shape[1] != 3 or counters.dtype != torch.int64:
            raise ValueError(f"counters: expected (B, 3) int64, got {tuple(counters.shape)} {counters.dtype}")
        if len(counters) and (int(counters.min()) < 0 or int(counters.max()) >= 2**32):
            raise ValueError("counters: expected every word in 0..2**32 - 1")
        object.__setattr__(self, "counters", counters.contiguous())

    def counters_of(self, rows: Tensor) -> Tensor:
        """(B, 3) int64: the counters, or zeros, as a draw of the best item needs none."""
        if self.counters is not None:
            return self.counters
        return torch.zeros(len(rows), 3, dtype=torch.int64, device=rows.device)

    def of_rows(self, rows: Tensor) -> Draw:
        """The same draw for some of the rows."""
        return self if self.counters is None else replace(self, counters=self.counters[rows])


GREEDY = Draw()
"""The best eligible item."""


class TopK(NamedTuple):
    """The best items of each row, best first."""

    ids: Tensor
    """(B, k) int64; 0 where a row has fewer than k eligible items."""
    logits: Tensor
    """(B, k) float32; -inf where ``ids`` is 0."""


class Sample(NamedTuple):
    """One drawn item per row."""

    ids: Tensor
    """(B,) int64; 0 where nothing could be drawn."""
    logits: Tensor
    """(B,) float32; -inf where ``ids`` is 0."""


class RankedSample(NamedTuple):
    """The rank verdict and the drawn item of each row, from one pass over the catalogue."""

    ranks: Tensor
    """(B,) int64; best rank among the row's targets, tau + 1 when none is within tau."""
    ids: Tensor
    """(B,) int64; 0 where the rank is worse than tau or nothing could be drawn."""
    logits: Tensor
    """(B,) float32; -inf where ``ids`` is 0."""


class RankedTopK(NamedTuple):
    """The rank verdict and the best items of each row, from one pass over the catalogue."""

    ranks: Tensor
    """(B,) int64; best rank among the row's targets, tau + 1 when none is within tau."""
    ids: Tensor
    """(B, k) int64; 0 where the rank is worse than tau, or a row has fewer than k eligible items."""
    logits: Tensor
    """(B, k) float32; -inf where ``ids`` is 0."""


class SampledSoftmax(NamedTuple):
    """A loss and its gradients."""

    loss: Tensor
    """Scalar."""
    queries: Tensor
    """(T, d)"""
    positives: Tensor
    """(T, d)"""
    negatives: Tensor
    """(S, d)"""


class FullSoftmax(NamedTuple):
    """A loss and its gradients."""

    loss: Tensor
    """Scalar."""
    queries: Tensor
    """(T, d)"""
    items: Tensor
    """(N + 1, d); row 0 is zero."""


class LayerFilter(NamedTuple):
    """A bias for distances in attention, and a causal low-pass filter of a layer's input beside it."""

    distances: Tensor
    """(heads, L), added to the logits of attention by how many items a key lies before its query."""
    beta: Tensor
    """(d,); its square weighs what the filter takes away."""
    norm_weight: Tensor
    """(d,)"""
    norm_bias: Tensor
    share: float
    """Of the filtered input in the layer, beside attention."""
    decay: float
    """What the filter weighs an item by, for each item that came after it."""


class LayerParameters(NamedTuple):
    """Parameters of a Transformer layer of width d and feed-forward width f, as ``torch.nn.Linear`` keeps them."""

    in_weight: Tensor
    """(3 d, d): queries, keys and values, head by head in each."""
    in_bias: Tensor
    out_weight: Tensor
    """(d, d)"""
    out_bias: Tensor
    norm1_weight: Tensor
    """(d,)"""
    norm1_bias: Tensor
    up_weight: Tensor
    """(f, d)"""
    up_bias: Tensor
    down_weight: Tensor
    """(d, f)"""
    down_bias: Tensor
    norm2_weight: Tensor
    """(d,)"""
    norm2_bias: Tensor
    filter: LayerFilter | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All of them in this order, those of the filter at the end."""
        return [*self[:12], *([] if self.filter is None else self.filter[:4])]

    def each(self, change: Callable[[Tensor], Tensor]) -> LayerParameters:
        """The same with every tensor changed."""
        own = self.filter
        changed = None if own is None else LayerFilter._make([*map(change, own[:4]), *own[4:]])
        return LayerParameters._make([*map(change, self[:12]), changed])


class LayerDropout(NamedTuple):
    """Random bytes that decide what a Transformer layer drops: an element whose byte is below ``dropped``."""

    dropped: int
    """1..255; elements that are kept grow by 256 / (256 - dropped)."""
    attention: Tensor
    """(R, heads, W, W) uint8, for the share that a position of a row gives another one."""
    out: Tensor
    """(R, W, d) uint8"""
    hidden: Tensor
    """(R, W, f) uint8"""
    down: Tensor
    """(R, W, d) uint8"""
    low: Tensor | None = None
    """(R, W, d) uint8, of the filter; None without one."""


class AdamMoments(NamedTuple):
    """What Adam remembers of a table; all zero to begin with."""

    first: Tensor
    """(N, d) like the table: running means of the gradients."""
    second: Tensor
    """(N, d) like the table: of their squares."""
    last: Tensor | None = None
    """(N,) int32, where rows are brought up to date one by one: the step up to which weights and means of a row are
    right; 0: it has had no gradient yet. None: every step is one of all rows."""

"""Types that the scoring ops take and return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = [
    "AdamMoments",
    "FullSoftmax",
    "LayerDropout",
    "LayerParameters",
    "Ragged",
    "RankedSample",
    "Sample",
    "SampledSoftmax",
    "TopK",
]


class Ragged(NamedTuple):
    """One list of item ids per row: row ``b`` owns ``ids[offsets[b]:offsets[b + 1]]``."""

    ids: Tensor
    """(nnz,) int32 or int64, each in 1..N."""
    offsets: Tensor
    """(B + 1,) int64, from 0 to nnz, never falling."""


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


class AdamMoments(NamedTuple):
    """What Adam remembers of a table; all zero to begin with."""

    first: Tensor
    """(N, d) like the table: running means of the gradients."""
    second: Tensor
    """(N, d) like the table: of their squares."""
    last: Tensor | None = None
    """(N,) int32, where rows are brought up to date one by one: the step up to which weights and means of a row are
    right; 0: it has had no gradient yet. None: every step is one of all rows."""

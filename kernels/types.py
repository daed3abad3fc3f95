"""What the fused ops take and give: item tables, lists of ids, best items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .margin import item_bounds, query_bounds, rounded
from .plan import make_plan, platform

__all__ = ["Best", "Factors", "ItemTable", "Lists"]


class Lists(NamedTuple):
    """One list of ids per row: ids int32 (nnz,), offsets int64 (B + 1,).

    With ``given_ends`` (B,) int64 lists end there, and need not lie next to each other.
    """

    ids: Tensor
    offsets: Tensor
    given_ends: Tensor | None = None

    @property
    def ends(self) -> Tensor:
        """(B,) int64: the place after the last one of each row."""
        return self.offsets[1:] if self.given_ends is None else self.given_ends

    def rows(self, first: int, last: int) -> Lists:
        """Rows first..last - 1; offsets still point into all ids."""
        return Lists(self.ids, self.offsets[first : last + 1])


class Best(NamedTuple):
    """The best items of each row, best first: ids (B, k) int64 (0 = none), logits (B, k) float32 (-inf = none)."""

    ids: Tensor
    logits: Tensor


class Factors(NamedTuple):
    """Queries as the pass over the catalogue multiplies them."""

    queries: Tensor
    """(B, d)"""
    margins: Tensor | None = None
    """(B,) float32: times an item's norm the most that a score can be wrong (:mod:`rsir.kernels.margin`); None where
    scores are exact."""


@dataclass(frozen=True)
class ItemTable:
    """Item embeddings as the kernels read them.

    ``weights`` (N + 1, d) float32 or float16 give the logits that are returned, their order and ranks, in float32;
    tiles of float16 are widened when they are loaded. ``scanned`` is what the pass over the catalogue multiplies: the
    same tensor for ieee and tf32, a rounded copy for float16 and bfloat16. With anything but ieee the pass decides what
    the margin of its rounding lets it decide, and the rest is scored again: answers are those of ieee to the bit.
    """

    weights: Tensor
    scanned: Tensor
    precision: str = "ieee"
    norms: Tensor | None = None
    """(N + 1,) float32 upper bounds of the items' norms, for the margin; None for ieee."""
    share: Tensor | None = None
    """Scalar float32: what of |query| |item| a score can be wrong by, but for the rounding of the query."""

    @classmethod
    def pack(cls, weights: Tensor, precision: str = "ieee") -> ItemTable:
        """Table of float32 or float16 weights (N + 1, d) for one of :data:`rsir.kernels.plan.PRECISIONS`."""
        make_plan(platform(), precision, weights.shape[1], 1)  # refuses what cannot run here
        if precision == "ieee":
            return cls(weights, weights)
        scanned = rounded(weights, precision)
        return cls(weights, scanned, precision, *item_bounds(weights, scanned, precision))

    def scanning(self, queries: Tensor) -> Factors:
        """Queries (B, d) float32 as the pass over the catalogue multiplies them."""
        if self.share is None:
            return Factors(queries)
        low = rounded(queries, self.precision)
        return Factors(low, query_bounds(queries, low, self.share, self.precision))

    @property
    def exact(self) -> bool:
        """Whether the pass gives the exact scores."""
        return self.precision == "ieee"

    @property
    def half(self) -> bool:
        return self.weights.dtype == torch.float16

    @property
    def num_items(self) -> int:
        return self.weights.shape[0] - 1

    @property
    def dim(self) -> int:
        return self.weights.shape[1]

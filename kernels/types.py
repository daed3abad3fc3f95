"""What the fused ops take and give: item tables, lists of ids, best items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .plan import make_plan, platform

__all__ = ["Best", "ItemTable", "Lists"]


_ROUNDED = {"float16": torch.float16, "bfloat16": torch.bfloat16}


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


@dataclass(frozen=True)
class ItemTable:
    """Item embeddings as the kernels read them.

    ``weights`` (N + 1, d) float32 or float16 give the logits that are returned and their order; tiles of float16 are
    widened when they are loaded. ``scanned`` is what the pass over the catalogue multiplies: the same tensor for ieee,
    tf32x3 and tf32, a rounded copy, by queries rounded likewise, for float16 and bfloat16. With
    anything but ieee, ranks are counted on the less exact scores, and the best items come from twice as many groups
    as exact scores need, so that an item is lost only if rounding drops its whole group below that many others.
    """

    weights: Tensor
    scanned: Tensor
    precision: str = "ieee"

    @classmethod
    def pack(cls, weights: Tensor, precision: str = "ieee") -> ItemTable:
        """Table of float32 or float16 weights (N + 1, d) for one of :data:`rsir.kernels.plan.PRECISIONS`."""
        make_plan(platform(), precision, weights.shape[1], 1)  # refuses what cannot run here
        return cls(weights, weights.to(_ROUNDED.get(precision, weights.dtype)), precision)

    def scanning(self, queries: Tensor) -> Tensor:
        """Queries as the pass over the catalogue multiplies them."""
        return queries.to(_ROUNDED.get(self.precision, queries.dtype))

    @property
    def half(self) -> bool:
        return self.weights.dtype == torch.float16

    @property
    def num_items(self) -> int:
        return self.weights.shape[0] - 1

    @property
    def dim(self) -> int:
        return self.weights.shape[1]

"""Ops of a catalogue whose scores are logits and sparse scores added to them, exact and without a (B, N) matrix.

The items that a row lists are left out of the pass over the catalogue and scored on their own, in the arithmetic of
that pass; then both are merged.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rsir.ops.backend import CatalogueOps
from rsir.ops.composed import Composed, best_of, keys_of, rows_of, sum_by_row
from rsir.ops.items import ItemTable
from rsir.ops.types import Ragged, SparseScores, TopK

__all__ = ["scorer"]


def scorer(table: ItemTable, added: SparseScores | None) -> CatalogueOps:
    """What computes the ops of a table: its backend, alone or with scores that are added."""
    return table.backend if added is None else table.backend.adding(added) or Adding(added)


class Adding(Composed):
    """The ops of a table with added scores, composed of those without; made for one call."""

    def __init__(self, added: SparseScores, dense: Tensor | None = None) -> None:
        self.added = added
        self.lists = Ragged(added.ids, added.offsets)
        self._dense = dense

    def of_rows(self, rows: Tensor) -> Adding:
        counts = self.added.offsets.diff()
        kept = torch.zeros_like(counts, dtype=torch.bool).index_fill_(0, rows, True)
        entries = torch.repeat_interleave(kept, counts)
        dense = None if self._dense is None else self._dense[entries]
        return Adding(SparseScores(*rows_of(self.lists, rows), self.added.values[entries]), dense)

    def topk(self, queries: Tensor, table: ItemTable, k: int, excluded: Ragged | None, threads: int) -> TopK:
        most = min(k, table.num_items)
        others = self.lists if excluded is None else _joined(excluded, self.lists)
        found = table.backend.topk(queries, table, most, others, threads)
        scores = _sums(self._logits(queries, table, threads), self.added.values)
        if excluded is not None and len(scores):
            place, found_there = self._find(excluded, table)
            scores[place[found_there]] = -torch.inf
        best = best_of(found, self.lists, scores, most)
        return TopK(pad(best.ids, (0, k - most)), pad(best.logits, (0, k - most), value=-torch.inf))

    def count_above(self, queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None, threads: int) -> Tensor:
        own = torch.repeat_interleave(bars, self.added.offsets.diff())
        dense = self._logits(queries, table, threads)
        without = sum_by_row(dense > own, self.added.offsets)
        with_added = sum_by_row(_sums(dense, self.added.values) > own, self.added.offsets)
        most = table.num_items
        if limit is not None and len(queries):
            most = min(limit + int(without.max()), most)  # so that one that stops there is at the limit without them
        counts = table.backend.count_above(queries, table, bars, most, threads) - without + with_added
        return counts.clamp(min=0, max=limit)

    def logits_of(self, queries: Tensor, table: ItemTable, lists: Ragged, threads: int) -> Tensor:
        logits = table.backend.logits_of(queries, table, lists, threads)
        if not len(self.added.ids):
            return logits
        place, found = self._find(lists, table)
        return torch.where(found, _sums(logits, self.added.values[place]), logits)

    def _logits(self, queries: Tensor, table: ItemTable, threads: int) -> Tensor:
        """(nnz,) logits of the listed items, without what is added."""
        if self._dense is None:
            self._dense = table.backend.logits_of(queries, table, self.lists, threads)
        return self._dense

    def _find(self, lists: Ragged, table: ItemTable) -> tuple[Tensor, Tensor]:
        """Where each id of other lists stands among the added ones, and whether it does; some id is added."""
        own, other = keys_of(self.lists, table.num_items), keys_of(lists, table.num_items)
        place = torch.searchsorted(own, other).clamp(max=len(own) - 1)
        return place, own[place] == other


def _sums(logits: Tensor, values: Tensor) -> Tensor:
    sums = logits + values
    return torch.where(sums.isnan(), -torch.inf, sums)


def _joined(one: Ragged, other: Ragged) -> Ragged:
    """Both lists of each row."""
    ids = torch.empty(len(one.ids) + len(other.ids), dtype=torch.int32, device=one.ids.device)
    for own, before in ((one, other.offsets[:-1]), (other, one.offsets[1:])):
        shift = torch.repeat_interleave(before, own.offsets.diff())
        ids[torch.arange(len(own.ids), device=ids.device) + shift] = own.ids
    return Ragged(ids, one.offsets + other.offsets)

"""Ops of a catalogue made of three: the best items, how many score above a bar, and the logits of listed ids."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import pad

from rsir.ops.backend import CatalogueOps
from rsir.ops.items import ItemTable, limit_of
from rsir.ops.reference import drawn
from rsir.ops.types import Draw, Ragged, RankedSample, RankedTopK, Sample, SparseScores, TopK

__all__ = ["Composed", "best_of", "keys_of", "rows_of", "sum_by_row", "where_kept"]


class Composed(ABC):
    """Has three ops and makes the others of them; a subclass overrides what it computes in a better way."""

    @abstractmethod
    def topk(self, queries: Tensor, table: ItemTable, k: int, excluded: Ragged | None, threads: int) -> TopK: ...

    @abstractmethod
    def count_above(
        self, queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None, threads: int
    ) -> Tensor: ...

    @abstractmethod
    def logits_of(self, queries: Tensor, table: ItemTable, lists: Ragged, threads: int) -> Tensor: ...

    def adding(self, added: SparseScores) -> CatalogueOps | None:
        """None: scores that are added are composed of the other ops, by :mod:`rsir.ops.added`."""
        return None

    def of_rows(self, rows: Tensor) -> Composed:
        """What computes the ops for some of the rows, ascending."""
        return self

    def topk_sample(
        self, queries: Tensor, table: ItemTable, draw: Draw, excluded: Ragged | None, threads: int
    ) -> Sample:
        return drawn(self.topk(queries, table, min(draw.k, table.num_items), excluded, threads), draw)

    def pool_sample(
        self, queries: Tensor, table: ItemTable, pool: Ragged, draw: Draw, excluded: Ragged | None, threads: int
    ) -> Sample:
        keys = keys_of(pool, table.num_items).unique()
        if excluded is not None:
            keys = keys[~torch.isin(keys, keys_of(excluded, table.num_items))]
        ids = (keys % (table.num_items + 1)).int()
        offsets = pad(torch.bincount(keys // (table.num_items + 1), minlength=len(queries)).cumsum(0), (1, 0))
        choices = Ragged(ids, offsets)
        return drawn(best_of(None, choices, self.logits_of(queries, table, choices, threads), draw.k), draw)

    def rank_within(self, queries: Tensor, table: ItemTable, targets: Ragged, tau: int | None, threads: int) -> Tensor:
        logits = self.logits_of(queries, table, targets, threads)
        best = queries.new_full((len(queries),), -torch.inf)
        best.scatter_reduce_(0, torch.repeat_interleave(targets.offsets.diff()), logits, "amax")
        limit = limit_of(tau, table)
        counts = self.count_above(queries, table, best, limit, threads)
        return torch.where(targets.offsets.diff() > 0, counts, limit) + 1

    def place_within(
        self, queries: Tensor, table: ItemTable, targets: Tensor, tau: int, excluded: Ragged | None, threads: int
    ) -> Tensor:
        if excluded is not None:
            excluded = where_kept(excluded, excluded.ids != torch.repeat_interleave(targets, excluded.offsets.diff()))
        found = self.topk(queries, table, min(tau, table.num_items), excluded, threads).ids == targets[:, None]
        return torch.where(found.any(dim=1), found.int().argmax(dim=1) + 1, tau + 1)

    def rank_and_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedSample:
        ranks = self.rank_within(queries, table, targets, tau, threads)
        passed, some = _passing(ranks, table, tau, excluded)
        ids, logits = torch.zeros_like(ranks), queries.new_full((len(queries),), -torch.inf)
        ids[passed], logits[passed] = self.of_rows(passed).topk_sample(
            queries[passed], table, draw.of_rows(passed), some, threads
        )
        return RankedSample(ranks, ids, logits)

    def rank_and_topk(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        k: int,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedTopK:
        ranks = self.rank_within(queries, table, targets, tau, threads)
        passed, some = _passing(ranks, table, tau, excluded)
        ids = torch.zeros(len(ranks), k, dtype=torch.int64, device=queries.device)
        logits = torch.full(ids.shape, -torch.inf, device=queries.device)
        ids[passed], logits[passed] = self.of_rows(passed).topk(queries[passed], table, k, some, threads)
        return RankedTopK(ranks, ids, logits)


_MOST = 1 << 22  # places of a padded matrix of listed items at a time: 32 MiB of keys


def best_of(found: TopK | None, lists: Ragged, logits: Tensor, k: int) -> TopK:
    """The best k of a row's listed items, whose logits are given, and of the items found already, if any.

    Lists hold other items than those found, each once. The lower id comes first among equal logits.
    """
    counts = lists.offsets.diff()
    rows, device = len(counts), logits.device
    widest = int(counts.max()) if rows else 0
    parts = []
    for first in range(0, max(rows, 1), step := max(1, _MOST // (widest + k))):
        own = slice(int(lists.offsets[first]), int(lists.offsets[min(first + step, rows)]))
        row = torch.repeat_interleave(counts[first : first + step])
        place = torch.arange(own.start, own.stop, device=device) - lists.offsets[first + row]
        shape = len(counts[first : first + step]), widest
        listed = TopK(
            torch.zeros(shape, dtype=torch.int64, device=device), torch.full(shape, -torch.inf, device=device)
        )
        listed.ids[row, place], listed.logits[row, place] = lists.ids[own].long(), logits[own]
        both = [listed] if found is None else [TopK(*(part[first : first + step] for part in found)), listed]
        ids, own_logits = (torch.cat(columns, 1) for columns in zip(*both, strict=True))
        parts.append(_best(ids, own_logits, k))
    return TopK(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _best(ids: Tensor, logits: Tensor, k: int) -> TopK:
    """The best k of each row, in any order before; no item where the logit is -inf."""
    ids = torch.where(logits > -torch.inf, ids, 0)
    bits = (logits + 0.0).view(torch.int32)  # -0.0 becomes 0.0, which it equals
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()  # rises with the logit
    keys, place = ((order << 32) | (0xFFFFFFFF - ids)).topk(min(k, ids.shape[1]), dim=1)
    missing = k - keys.shape[1]
    return TopK(pad(ids.gather(1, place), (0, missing)), pad(logits.gather(1, place), (0, missing), value=-torch.inf))


def keys_of(lists: Ragged, num_items: int) -> Tensor:
    """(nnz,) int64: row and id as one number."""
    return torch.repeat_interleave(lists.offsets.diff()) * (num_items + 1) + lists.ids


def sum_by_row(values: Tensor, offsets: Tensor) -> Tensor:
    """(B,) int64: the sum of each row's whole numbers or truth values."""
    return pad(values.cumsum(0), (1, 0))[offsets].diff()


def where_kept(lists: Ragged, kept: Tensor) -> Ragged:
    """The listed ids for which ``kept`` (nnz,) is true."""
    return Ragged(lists.ids[kept], pad(kept.cumsum(0), (1, 0))[lists.offsets])


def rows_of(lists: Ragged, rows: Tensor) -> Ragged:
    """The named rows' lists, rows ascending."""
    counts = lists.offsets.diff()
    kept = torch.zeros_like(counts, dtype=torch.bool).index_fill_(0, rows, True)
    return Ragged(lists.ids[torch.repeat_interleave(kept, counts)], pad(counts[rows].cumsum(0), (1, 0)))


def _passing(ranks: Tensor, table: ItemTable, tau: int | None, excluded: Ragged | None) -> tuple[Tensor, Ragged | None]:
    """The rows that are within tau, ascending, and what they exclude."""
    passed = (ranks <= limit_of(tau, table)).nonzero()[:, 0]
    return passed, None if excluded is None else rows_of(excluded, passed)

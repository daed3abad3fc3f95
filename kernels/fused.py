"""The fused ops on tensors: what to launch, in which order, over which rows.

Every function takes inputs that are already checked: contiguous, ids int32 in 1..N, offsets int64, one device.
Nothing here reads a tensor back to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .plan import SCRATCH_BYTES, Plan, chunks, rows_per_chunk
from .scan import Bars, Scan
from .select import best_of_keys, candidates, join
from .types import Best, ItemTable, Lists

__all__ = ["best_items", "count_above", "rank_and_best", "rank_within"]


def best_items(
    queries: Tensor,
    table: ItemTable,
    k: int,
    excluded: Lists | None,
    *,
    group: int | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Best:
    """The k best items of queries (B, d) float32 that are not excluded; k may exceed the catalogue.

    ``group`` (a power of two in 4..32, default by shape) and ``scratch_bytes`` change speed and memory alone.
    """
    scan = Scan.of(queries, table, picks=min(k, table.num_items), group=group)
    return _catalogue(queries, scan, None, k, excluded, scratch_bytes)[1]


def rank_within(
    queries: Tensor, table: ItemTable, targets: Lists, tau: int | None, *, phases: int | None = None
) -> Tensor:
    """(B,) int64 best rank of each row's targets; anything above tau is tau + 1.

    ``phases``: scan the catalogue in that many growing pieces and drop rows beyond tau in between (default by shape).
    """
    if len(queries) == 0:
        return torch.empty(0, dtype=torch.int64, device=queries.device)
    scan = Scan.of(queries, table, tau=tau, group=4, phases=phases)
    scanned = table.scanning(queries)
    bars = scan.bars(scanned, targets)
    scan.run(scanned, bars, None)
    return _ranks(bars.count, targets, scan)


def count_above(queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None) -> Tensor:
    """(B,) int64 number of items that score above a row's bar (B,) float32; more than ``limit`` count as that.

    Under anything but ieee the scores are the less exact ones.
    """
    rows, num_items = len(queries), table.num_items
    count = torch.zeros(rows, dtype=torch.int32, device=queries.device)
    if rows:
        scan = Scan.of(queries, table, tau=limit, group=4)
        scan.run(table.scanning(queries), Bars(bars, count), None)
    return count.long().clamp(max=num_items if limit is None else limit)


def rank_and_best(
    queries: Tensor,
    table: ItemTable,
    targets: Lists,
    tau: int | None,
    k: int,
    excluded: Lists | None,
    *,
    group: int | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
    phases: int | None = None,
    plan: Plan | None = None,
) -> tuple[Tensor, Best]:
    """:func:`rank_within` and :func:`best_items` from one pass; rows worse than tau hold no items."""
    picks = min(k, table.num_items)
    scan = Scan.of(queries, table, picks=picks, tau=tau, group=group, phases=phases, plan=plan)
    ranks, best = _catalogue(queries, scan, targets, k, excluded, scratch_bytes)
    failed = (ranks > (table.num_items if tau is None else tau))[:, None]
    return ranks, Best(best.ids.masked_fill(failed, 0), best.logits.masked_fill(failed, -torch.inf))


def _catalogue(
    queries: Tensor, scan: Scan, targets: Lists | None, k: int, excluded: Lists | None, scratch_bytes: int
) -> tuple[Tensor, Best]:
    """Ranks (of no rows without targets) and best items, over chunks of rows whose scratch fits ``scratch_bytes``."""
    table, num_groups = scan.table, scan.num_groups
    k_found = min(k, table.num_items)
    num_picks = min(num_groups, k_found if table.precision == "ieee" else 2 * k_found)
    scanned = table.scanning(queries)
    size = rows_per_chunk(table.num_items, scan.group, num_picks, excluded is not None, scratch_bytes)
    ranks, parts = [torch.empty(0, dtype=torch.int64, device=queries.device)], []
    for first, last in chunks(len(queries), size):
        part = queries[first:last]
        maxima = torch.empty(last - first, num_groups, dtype=torch.float32, device=part.device)
        if scan.phases > 1:
            maxima.fill_(-torch.inf)  # for the groups that a row dropped early never reaches
        bars = None
        if targets is not None:
            own = targets.rows(first, last)
            bars = scan.bars(scanned[first:last], own)
        scan.run(scanned[first:last], bars, maxima)
        if bars is not None:
            ranks.append(_ranks(bars.count, own, scan))
        keys = candidates(part, scan, maxima, num_picks, excluded and excluded.rows(first, last))
        parts.append(best_of_keys(keys, k))
    return torch.cat(ranks), join(parts, k, queries.device)


def _ranks(count: Tensor, targets: Lists, scan: Scan) -> Tensor:
    worst = (scan.table.num_items if scan.tau is None else scan.tau) + 1
    return torch.where(targets.offsets.diff() > 0, (count.long() + 1).clamp(max=worst), worst)

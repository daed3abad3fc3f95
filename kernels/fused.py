"""The fused ops on tensors: what to launch, in which order, over which rows.

Every function takes inputs that are already checked: contiguous, ids int32 in 1..N, offsets int64, one device.
Nothing here reads a tensor back to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .plan import Plan, aligned_rows, chunks, rows_per_chunk, scratch_of
from .recheck import complete, list_bytes, recount
from .scan import Bars, Scan
from .select import best_keys, best_of_keys, candidates, exclusion_bits, join, pick, repair
from .types import Best, ItemTable, Lists

__all__ = ["best_items", "count_above", "rank_and_best", "rank_within"]


def best_items(
    queries: Tensor,
    table: ItemTable,
    k: int,
    excluded: Lists | None,
    *,
    group: int | None = None,
    scratch_bytes: int | None = None,
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
    scan = Scan.of(queries, table, tau=tau, group=4, phases=phases)
    ranks = [torch.empty(0, dtype=torch.int64, device=queries.device)]
    for first, last in chunks(len(queries), _rows_at_once(scan)):
        part, own = queries[first:last], targets.rows(first, last)
        ranks.append(_ranks(_counted(part, scan, scan.bars(part, own)), own, scan))
    return torch.cat(ranks)


def count_above(queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None) -> Tensor:
    """(B,) int64 number of items that score above a row's bar (B,) float32; more than ``limit`` count as that."""
    scan = Scan.of(queries, table, tau=limit, group=4)
    counts = [torch.empty(0, dtype=torch.int64, device=queries.device)]
    for first, last in chunks(len(queries), _rows_at_once(scan)):
        part = queries[first:last]
        count = torch.zeros(last - first, dtype=torch.int32, device=queries.device)
        counts.append(_counted(part, scan, Bars(bars[first:last], count, scan.open_bits(part))).long())
    return torch.cat(counts).clamp(max=table.num_items if limit is None else limit)


def rank_and_best(
    queries: Tensor,
    table: ItemTable,
    targets: Lists,
    tau: int | None,
    k: int,
    excluded: Lists | None,
    *,
    group: int | None = None,
    scratch_bytes: int | None = None,
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
    queries: Tensor, scan: Scan, targets: Lists | None, k: int, excluded: Lists | None, scratch_bytes: int | None
) -> tuple[Tensor, Best]:
    """Ranks (of no rows without targets) and best items, over chunks of rows whose scratch fits ``scratch_bytes``."""
    table, num_groups = scan.table, scan.num_groups
    num_picks, words = scan.picks(min(k, table.num_items)), -(-table.num_items // 32)
    scratch_bytes = scratch_of(queries.device) if scratch_bytes is None else scratch_bytes
    others = (0 if excluded is None else 4 * words) + _open_bytes(scan)
    size = rows_per_chunk(table.num_items, scan.group, num_picks, others, scratch_bytes)
    ranks, parts = [torch.empty(0, dtype=torch.int64, device=queries.device)], []
    for first, last in chunks(len(queries), size):
        part = queries[first:last]
        maxima = torch.empty(last - first, num_groups, dtype=torch.float32, device=part.device)
        if scan.phases > 1:
            maxima.fill_(-torch.inf)  # for the groups that a row dropped early never reaches
        bars, failed = None, None
        if targets is not None:
            own = targets.rows(first, last)
            bars = scan.bars(part, own)
        scan.run(table.scanning(part), bars, maxima)
        if bars is not None:
            recount(part, scan, bars)
            ranks.append(_ranks(bars.count, own, scan))
            failed = ranks[-1] > _worst(scan)
        bits = None
        if excluded is not None:
            bits = exclusion_bits(excluded.rows(first, last), last - first, table.num_items, part.device)
            repair(part, scan, maxima, bits, excluded.rows(first, last))
        picks, bar = pick(maxima, num_picks)
        keys = best_keys(candidates(part, scan, picks, bits), k)
        complete(part, scan, maxima, bar, keys, bits, failed)
        parts.append(best_of_keys(keys))
    return torch.cat(ranks), join(parts, k, queries.device)


def _counted(queries: Tensor, scan: Scan, bars: Bars) -> Tensor:
    """(B,) int32 number of items above the bars; beyond tau perhaps fewer."""
    scan.run(scan.table.scanning(queries), bars, None)
    recount(queries, scan, bars)
    return bars.count


def _open_bytes(scan: Scan) -> int:
    """Bytes a row of what the pass leaves open."""
    return 0 if scan.table.exact else list_bytes(scan.table.num_items)


def _rows_at_once(scan: Scan) -> int:
    """Rows that are counted at a time."""
    return aligned_rows(scratch_of(scan.table.weights.device) // max(1, _open_bytes(scan)))


def _worst(scan: Scan) -> int:
    """The last rank within tau."""
    return scan.table.num_items if scan.tau is None else scan.tau


def _ranks(count: Tensor, targets: Lists, scan: Scan) -> Tensor:
    worst = _worst(scan) + 1
    return torch.where(targets.offsets.diff() > 0, (count.long() + 1).clamp(max=worst), worst)

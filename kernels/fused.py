"""The fused ops on tensors: what to launch, in which order, over which rows.

Every function takes inputs that are already checked: contiguous, ids int32 in 1..N, offsets int64, one device.
Nothing here reads a tensor back to the host, but :func:`pool_best`, which needs the longest pool.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import triton
from torch import Tensor

from .draw import draw_kernel, noise_kernel
from .plan import SCRATCH_BYTES, Plan, group_size, launching, make_plan, measured_plan, platform, rows_per_chunk
from .scan import best_target_kernel, scan_kernel
from .select import exclude_kernel, listed_kernel, pick_kernel, pool_kernel, repair_kernel, rescore_kernel
from .types import Best, ItemTable, Lists

__all__ = ["best_items", "count_above", "draw", "pool_best", "rank_and_best", "rank_within"]

_NO_TARGET = 2**30  # count of a row without targets, which is dropped as early as can be


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
    _, best = _catalogue(queries, table, None, None, k, excluded, group, scratch_bytes)
    assert best is not None
    return best


def rank_within(
    queries: Tensor, table: ItemTable, targets: Lists, tau: int | None, *, phases: int | None = None
) -> Tensor:
    """(B,) int64 best rank of each row's targets; anything above tau is tau + 1.

    ``phases``: scan the catalogue in that many growing pieces and drop rows beyond tau in between (default by shape).
    """
    return _count(queries, table, targets, tau, phases)


def count_above(queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None) -> Tensor:
    """(B,) int64 number of items that score above a row's bar (B,) float32; more than ``limit`` count as that.

    Under anything but ieee the scores are the less exact ones.
    """
    rows, num_items = len(queries), table.num_items
    count = torch.zeros(rows, dtype=torch.int32, device=queries.device)
    if rows:
        plan = measured_plan(platform(), queries.device, table.precision, table.dim, rows, table.half)
        scanned = table.scanning(queries)
        _scan_phases(scanned, table, plan, bars, count, None, 4, limit, _phases(limit, num_items))
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
    ranks, best = _catalogue(queries, table, targets, tau, k, excluded, group, scratch_bytes, phases, plan)
    assert ranks is not None
    assert best is not None
    failed = (ranks > (table.num_items if tau is None else tau))[:, None]
    return ranks, Best(best.ids.masked_fill(failed, 0), best.logits.masked_fill(failed, -torch.inf))


def pool_best(
    queries: Tensor,
    table: ItemTable,
    pool: Lists,
    k: int,
    excluded: Lists | None,
    *,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Best:
    """The k best items of each row's own pool, less the excluded ones. Always exact float32."""
    rows = len(queries)
    plan = make_plan(platform(), "ieee", table.dim, rows)
    words = triton.cdiv(table.num_items, 32)
    widest = max(1, int(pool.offsets.diff().max())) if rows else 1
    parts = []
    for first, last in _chunks(rows, max(1, scratch_bytes // (4 * words + 8 * widest))):
        part = queries[first:last]
        seen = _exclusion_bits(excluded and excluded.rows(first, last), last - first, table.num_items, part.device)
        ids, offsets = pool.rows(first, last)
        keys = torch.empty(last - first, widest, dtype=torch.int64, device=part.device)
        with launching():
            pool_kernel[(last - first, triton.cdiv(widest, plan.row_block_n))](
                part,
                table.weights,
                ids,
                offsets,
                seen,
                keys,
                widest,
                words,
                **_row_constants(plan, table.dim),
            )
        parts.append(_best_of_keys(keys, k))
    return _join(parts, k, queries.device)


def logits_of(queries: Tensor, table: ItemTable, lists: Lists) -> Tensor:
    """(nnz,) float32 logits of the items each row lists; NaN is -inf. Always exact float32."""
    rows = len(queries)
    scores = torch.empty(len(lists.ids), dtype=torch.float32, device=queries.device)
    if not len(scores):
        return scores
    plan = make_plan(platform(), "ieee", table.dim, rows)
    with launching():
        listed_kernel[(rows, triton.cdiv(int(lists.offsets.diff().max()), plan.row_block_n))](
            queries, table.weights, *lists, scores, **_row_constants(plan, table.dim)
        )
    return scores


def draw(best: Best, temperature: float, seed: int, counters: Tensor) -> Tensor:
    """(B,) int64 place in each row of ``best`` that wins logit / temperature + Gumbel noise."""
    ids, logits = best
    rows, k = ids.shape
    place = torch.zeros(rows, dtype=torch.int64, device=ids.device)
    if k == 1 or rows == 0:
        return place
    scaled = logits.double() / temperature
    words = torch.empty_like(ids)
    with launching():
        noise_kernel[(triton.cdiv(ids.numel(), 256),)](
            ids, counters, words, ids.numel(), k, _signed(seed), _signed(seed >> 32), BLOCK=256, enable_fp_fusion=True
        )
        draw_kernel[(triton.cdiv(rows, 8),)](
            ids, scaled, words, place, rows, k, BLOCK_M=8, BLOCK_N=32, enable_fp_fusion=True
        )
    return place


# ---------------------------------------------------------------------------------------------- the pass


def _catalogue(
    queries: Tensor,
    table: ItemTable,
    targets: Lists | None,
    tau: int | None,
    k: int,
    excluded: Lists | None,
    group: int | None,
    scratch_bytes: int,
    phases: int | None = None,
    plan: Plan | None = None,
) -> tuple[Tensor | None, Best | None]:
    """Ranks (with targets) and best items, over chunks of rows whose scratch fits ``scratch_bytes``."""
    rows, num_items = len(queries), table.num_items
    k_found = min(k, num_items)
    group = group or group_size(num_items, table.dim, k_found)
    num_groups = triton.cdiv(num_items, group)
    num_picks = min(num_groups, k_found if table.precision == "ieee" else 2 * k_found)
    plan = plan or measured_plan(platform(), queries.device, table.precision, table.dim, rows, table.half)
    scanned = table.scanning(queries)
    phases = phases or _phases(tau if targets is not None else None, num_items)
    ranks, parts = [], []
    for first, last in _chunks(rows, rows_per_chunk(num_items, group, num_picks, excluded is not None, scratch_bytes)):
        part = queries[first:last]
        maxima = torch.empty(last - first, num_groups, dtype=torch.float32, device=part.device)
        if phases > 1:
            maxima.fill_(-torch.inf)  # for the groups that a row dropped early never reaches
        if targets is None:
            _scan(scanned[first:last], table, plan, None, None, maxima, group)
        else:
            own = targets.rows(first, last)
            best, count = _targets(scanned[first:last], table, own, plan)
            _scan_phases(scanned[first:last], table, plan, best, count, maxima, group, tau, phases)
            ranks.append(_ranks(count, own, num_items, tau))
        keys = _candidates(part, table, plan, maxima, group, num_picks, excluded and excluded.rows(first, last))
        parts.append(_best_of_keys(keys, k))
    joined = torch.cat(ranks) if ranks else torch.empty(0, dtype=torch.int64, device=queries.device)
    return (None if targets is None else joined), _join(parts, k, queries.device)


def _count(queries: Tensor, table: ItemTable, targets: Lists, tau: int | None, phases: int | None) -> Tensor:
    rows, num_items = len(queries), table.num_items
    if rows == 0:
        return torch.empty(0, dtype=torch.int64, device=queries.device)
    plan = measured_plan(platform(), queries.device, table.precision, table.dim, rows, table.half)
    scanned = table.scanning(queries)
    best, count = _targets(scanned, table, targets, plan)
    _scan_phases(scanned, table, plan, best, count, None, 4, tau, phases or _phases(tau, num_items))
    return _ranks(count, targets, num_items, tau)


def _phases(tau: int | None, num_items: int) -> int:
    """A phase costs a sort of the rows and a launch: about the time of a few thousand items."""
    return 3 if tau is not None and num_items >= 2**15 else 1


def _scan_phases(
    queries: Tensor,
    table: ItemTable,
    plan: Plan,
    best: Tensor,
    count: Tensor,
    maxima: Tensor | None,
    group: int,
    tau: int | None,
    phases: int,
) -> None:
    """Scan the catalogue in growing pieces (of three: 1/16, to 1/4, the rest), without the rows counted beyond tau."""
    tiles = triton.cdiv(table.num_items, plan.block_n)
    first = 0
    for phase in range(phases):
        last = max(first, tiles >> 2 * (phases - 1 - phase))
        alive = None
        if phases > 1:
            dead = count.ge(table.num_items if tau is None else tau)
            alive = dead.sort(stable=True).indices, (~dead).sum(dtype=torch.int32)
        _scan(queries, table, plan, best, count, maxima, group, (first, last), alive)
        first = last


def _targets(queries: Tensor, table: ItemTable, targets: Lists, plan: Plan) -> tuple[Tensor, Tensor]:
    """Best target logit (B,) float32, and counters (B,) int32: 0, or beyond every tau for rows without targets."""
    rows = len(queries)
    best = torch.empty(rows, dtype=torch.float32, device=queries.device)
    with launching():
        best_target_kernel[(triton.cdiv(rows, plan.block_m),)](
            queries,
            table.scanned,
            targets.ids,
            targets.offsets,
            best,
            rows,
            **_tile_constants(plan, table.dim) | {"BLOCK_N": plan.target_block_n},
        )
    return best, torch.where(targets.offsets.diff() > 0, 0, _NO_TARGET).int()


def _scan(
    queries: Tensor,
    table: ItemTable,
    plan: Plan,
    best: Tensor | None,
    count: Tensor | None,
    maxima: Tensor | None,
    group: int,
    tiles: tuple[int, int] | None = None,
    alive: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Launch scan_kernel over the given item tiles (default: all), split so that small batches fill the device."""
    first, last = tiles or (0, triton.cdiv(table.num_items, plan.block_n))
    if first == last:
        return
    row_tiles = triton.cdiv(len(queries), plan.block_m)
    per_program = triton.cdiv(last - first, _splits(row_tiles, last - first, queries.device))
    with launching():
        scan_kernel[(row_tiles, triton.cdiv(last - first, per_program))](
            queries,
            table.scanned,
            best,
            count,
            maxima,
            *(alive or (None, None)),
            len(queries),
            table.num_items,
            triton.cdiv(table.num_items, group),
            first,
            last,
            per_program,
            GROUP=group,
            COUNT=count is not None,
            MAXIMA=maxima is not None,
            PERMUTED=alive is not None,
            STRIDED=plan.strided,
            **_tile_constants(plan, table.dim),
        )


def _candidates(
    queries: Tensor,
    table: ItemTable,
    plan: Plan,
    maxima: Tensor,
    group: int,
    num_picks: int,
    excluded: Lists | None,
) -> Tensor:
    """Order keys (rows, num_picks * group) int64 of all items in the best groups."""
    rows, num_groups = maxima.shape
    num_items, words = table.num_items, triton.cdiv(table.num_items, 32)
    constants = {"GROUP": group, **_row_constants(plan, table.dim)}
    bits = None
    if excluded is not None:
        bits = _exclusion_bits(excluded, rows, num_items, queries.device)
        with launching():
            repair_kernel[(rows,)](
                queries, table.weights, *excluded, bits, maxima, num_items, num_groups, words, **constants
            )
    picks = _pick(maxima, num_picks)
    keys = torch.empty(rows, num_picks * group, dtype=torch.int64, device=queries.device)
    with launching():
        rescore_kernel[(rows, triton.cdiv(num_picks * group, plan.row_block_n))](
            queries,
            table.weights,
            picks,
            bits,
            keys,
            num_items,
            num_picks,
            words,
            EXCLUDE=excluded is not None,
            **constants,
        )
    return keys


def _pick(maxima: Tensor, num_picks: int) -> Tensor:
    """(rows, num_picks) int32 groups of largest maximum, lower groups first among equal ones."""
    rows, num_groups = maxima.shape
    if num_picks == num_groups:
        return torch.arange(num_groups, dtype=torch.int32, device=maxima.device).expand(rows, -1).contiguous()
    top = maxima.topk(num_picks, dim=1, sorted=False).values
    bar = top.amin(dim=1)
    need = (top == bar[:, None]).sum(dim=1, dtype=torch.int32)
    picks = torch.empty(rows, num_picks, dtype=torch.int32, device=maxima.device)
    with launching():
        pick_kernel[(rows,)](maxima, bar, need, picks, num_groups, num_picks, BLOCK=1024, enable_fp_fusion=True)
    return picks


def _exclusion_bits(excluded: Lists | None, rows: int, num_items: int, device: torch.device) -> Tensor:
    """(rows, ceil(N / 32)) int32 bitmap of the excluded ids."""
    words = triton.cdiv(num_items, 32)
    bits = torch.zeros(rows, words, dtype=torch.int32, device=device)
    if excluded is not None:
        with launching():
            exclude_kernel[(rows,)](*excluded, bits, words, BLOCK=64, num_warps=2, enable_fp_fusion=True)
    return bits


def _best_of_keys(keys: Tensor, k: int) -> Best:
    """Decode the k largest order keys; the inverse of :func:`rsir.kernels.arithmetic.order_key`."""
    keys = keys.amax(dim=1, keepdim=True) if k == 1 else keys.topk(min(k, keys.shape[1]), dim=1).values
    ordered = keys >> 32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).int()
    logits = bits.view(torch.float32)
    ids = 0x7FFFFFFF - (keys & 0xFFFFFFFF)
    return Best(torch.where(logits == -torch.inf, 0, ids), logits)


def _join(parts: list[Best], k: int, device: torch.device) -> Best:
    """All chunks' rows, widened to k places."""
    if not parts:
        return Best(
            torch.empty(0, k, dtype=torch.int64, device=device), torch.empty(0, k, dtype=torch.float32, device=device)
        )
    ids, logits = (torch.cat(columns) for columns in zip(*parts, strict=True))
    missing = k - ids.shape[1]
    if missing > 0:
        ids = torch.nn.functional.pad(ids, (0, missing))
        logits = torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
    return Best(ids, logits)


def _ranks(count: Tensor, targets: Lists, num_items: int, tau: int | None) -> Tensor:
    worst = (num_items if tau is None else tau) + 1
    return torch.where(targets.offsets.diff() > 0, (count.long() + 1).clamp(max=worst), worst)


def _splits(row_tiles: int, tiles: int, device: torch.device) -> int:
    """Programs per row tile: as many as fill the device four times over."""
    if device.type == "cpu":
        return min(2, tiles)  # the interpreter runs programs one by one; two keep the seam between them tested
    units = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(tiles, 4 * units // row_tiles))


def _tile_constants(plan: Plan, dim: int) -> dict[str, object]:
    return {
        "D": dim,
        "BLOCK_M": plan.block_m,
        "BLOCK_N": plan.block_n,
        "BLOCK_K": plan.block_k,
        "PRECISION": plan.precision,
        **plan.options,
    }


def _row_constants(plan: Plan, dim: int) -> dict[str, object]:
    return {
        "D": dim,
        "BLOCK_M": plan.row_block_m,
        "BLOCK_N": plan.row_block_n,
        "BLOCK_K": plan.row_block_k,
        **plan.options,
    }


def _chunks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, size):
        yield first, min(first + size, rows)


def _signed(word: int) -> int:
    """The int32 with the low 32 bits of ``word``."""
    return int(np.uint32(word & 0xFFFFFFFF).astype(np.int32))

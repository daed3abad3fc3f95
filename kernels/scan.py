"""One pass over the catalogue: how many items beat each row's target, and the maximum of every group of items.

Sorting inside a matrix-product kernel costs more than the product. So the pass keeps only the maximum of each group
of G consecutive items, and :mod:`rsir.kernels.select` looks inside the best groups afterwards.
"""

import triton
import triton.language as tl

from .arithmetic import dot_block


@triton.jit
def best_target_kernel(
    query_ptr,
    table_ptr,
    target_ptr,
    offset_ptr,
    best_ptr,
    num_rows,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Best target logit of each row, in the tiles and so in the bits of :func:`scan_kernel`.

    A tile scores all targets of its rows against all its rows and keeps each row's own.
    """
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_mask = rows < num_rows
    begin = tl.load(offset_ptr + rows, mask=row_mask, other=0)
    end = tl.load(offset_ptr + rows + 1, mask=row_mask, other=0)
    first = tl.load(offset_ptr + tl.program_id(0) * BLOCK_M)
    last = tl.load(offset_ptr + tl.minimum((tl.program_id(0) + 1) * BLOCK_M, num_rows))
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    for start in range(first, last, BLOCK_N):
        entry = start + tl.arange(0, BLOCK_N).to(tl.int64)
        ids = tl.load(target_ptr + entry, mask=entry < last, other=0).to(tl.int64)
        scores = dot_block(
            query_ptr,
            rows.to(tl.int64),
            row_mask,
            table_ptr,
            ids,
            entry < last,
            D,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            PRECISION,
        )
        own = (entry[None, :] >= begin[:, None]) & (entry[None, :] < end[:, None]) & (scores == scores)
        best = tl.maximum(best, tl.max(tl.where(own, scores, float("-inf")), axis=1))
    tl.store(best_ptr + rows, best, mask=row_mask)


@triton.jit
def scan_kernel(
    query_ptr,
    table_ptr,
    best_ptr,
    count_ptr,
    maxima_ptr,
    row_ptr,
    alive_ptr,
    num_rows,
    num_items,
    num_groups,
    first_tile,
    last_tile,
    tiles_per_program,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    COUNT: tl.constexpr,
    MAXIMA: tl.constexpr,
    PERMUTED: tl.constexpr,
    STRIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scan item tiles [first_tile, last_tile) in pieces of ``tiles_per_program`` (second grid axis).

    COUNT adds to ``count`` the items that score strictly above ``best``: equal bits never count, so neither does the
    target itself. MAXIMA writes each group's maximum, NaN counting as -inf; programs own disjoint groups.
    PERMUTED takes rows in the order of ``row_ptr`` and leaves out those from ``alive`` on.
    STRIDED deals the items of a group to columns BLOCK_N / GROUP apart, which on NVIDIA tensor cores puts a whole
    group into one thread's registers (4 shuffles in place of 128 a tile for half precision on sm_90).
    """
    GROUPS: tl.constexpr = BLOCK_N // GROUP
    place = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    if PERMUTED:
        row_mask = place < tl.load(alive_ptr)
        rows = tl.load(row_ptr + place, mask=row_mask, other=0)
    else:
        row_mask = place < num_rows
        rows = place.to(tl.int64)
    first = first_tile + tl.program_id(1) * tiles_per_program
    last = tl.minimum(first + tiles_per_program, last_tile)
    if PERMUTED and tl.program_id(0) * BLOCK_M >= tl.load(alive_ptr):
        last = first

    column = tl.arange(0, BLOCK_N)
    if STRIDED:
        column = (column % GROUPS) * GROUP + column // GROUPS
    if COUNT:
        best = tl.load(best_ptr + rows, mask=row_mask, other=float("inf"))
        above = tl.zeros((BLOCK_M, GROUPS), tl.int32)
    for tile in range(first, last):
        index = tile * BLOCK_N + column  # item id - 1
        scores = dot_block(
            query_ptr,
            rows,
            row_mask,
            table_ptr,
            index.to(tl.int64) + 1,
            index < num_items,
            D,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            PRECISION,
        )
        if (tile + 1) * BLOCK_N > num_items:
            scores = tl.where((index < num_items)[None, :], scores, float("-inf"))
        if STRIDED:
            grouped = tl.reshape(scores, (BLOCK_M, GROUP, GROUPS))
        else:
            grouped = tl.reshape(scores, (BLOCK_M, GROUPS, GROUP))
        if COUNT:
            above += tl.sum((grouped > best[:, None, None]).to(tl.int32), axis=1 if STRIDED else 2)
        if MAXIMA:
            maxima = tl.maximum(tl.max(grouped, axis=1 if STRIDED else 2), float("-inf"))
            group = tile * GROUPS + tl.arange(0, GROUPS)
            tl.store(
                maxima_ptr + rows[:, None] * num_groups + group[None, :],
                maxima,
                mask=row_mask[:, None] & (group < num_groups)[None, :],
            )
    if COUNT:
        tl.atomic_add(count_ptr + rows, tl.sum(above, axis=1), mask=row_mask, sem="relaxed")

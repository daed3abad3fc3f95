"""What a pass of rounded factors left open, in float32: items that may beat a bar, groups that may hold a best item.

Nothing is read back to the host: programs that have nothing to do end at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import order_key
from .plan import launching
from .scan import Bars, Scan
from .select import row_scores

__all__ = ["complete", "list_bytes", "recount"]

_SEGMENT = 8192  # items whose open ones are listed by one program
_CAPACITY = 512  # of a list; where more are open all items of the segment are looked at

_NONE = tl.constexpr(-2139095041 * 2**32)  # the order key of -inf, below that of every item


@triton.jit
def item_at(position, GROUP: tl.constexpr, STRIDED: tl.constexpr, TILE: tl.constexpr):
    """Which item, less 1, a place of the bits of scan_kernel is of: bit p % 32 of word p // 32."""
    WORDS: tl.constexpr = TILE // 32
    GROUPS: tl.constexpr = TILE // GROUP
    column = (position % 32) * WORDS + (position % TILE) // 32
    if STRIDED:
        column = (column % GROUPS) * GROUP + column // GROUPS
    return position // TILE * TILE + column


@triton.jit(do_not_specialize=["limit", "words_per_row", "num_segments"])
def collect_kernel(
    open_ptr,
    count_ptr,
    list_ptr,
    found_ptr,
    limit,
    words_per_row,
    num_segments,
    SEGMENT: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """List the places of the bits that are set in a segment of a row, and count them; none where ``limit`` is reached.

    Those beyond the capacity are counted alone.
    """
    row = tl.program_id(0).to(tl.int64)
    segment = tl.program_id(1)
    out = row * num_segments + segment
    found = segment * 0
    last = tl.minimum((segment + 1) * SEGMENT, words_per_row * 32)
    if tl.load(count_ptr + row) >= limit:
        last = segment * 0
    for start in range(segment * SEGMENT, last, BLOCK):
        place = start + tl.arange(0, BLOCK)
        word = tl.load(open_ptr + row * words_per_row + place // 32, mask=place < last, other=0)
        is_open = (word >> (place % 32)) & 1
        at = found + tl.cumsum(is_open, axis=0) - 1
        tl.store(list_ptr + out * CAPACITY + at, place, mask=(is_open == 1) & (at < CAPACITY))
        found += tl.sum(is_open, axis=0)
    tl.store(found_ptr + out, found)


@triton.jit(do_not_specialize=["num_items", "words_per_row", "num_segments"])
def recheck_kernel(
    query_ptr,
    table_ptr,
    best_ptr,
    count_ptr,
    open_ptr,
    list_ptr,
    found_ptr,
    num_items,
    words_per_row,
    num_segments,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    STRIDED: tl.constexpr,
    TILE: tl.constexpr,
    SEGMENT: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Add to ``count`` how many of the open items of a segment of a row score above its bar."""
    row = tl.program_id(0).to(tl.int64)
    segment = tl.program_id(1)
    out = row * num_segments + segment
    found = tl.load(found_ptr + out)
    is_listed = tl.zeros((BLOCK_N,), tl.int32) + found <= CAPACITY
    last = tl.where(found <= CAPACITY, found, SEGMENT)
    bar = tl.load(best_ptr + row)
    above = tl.zeros((BLOCK_N,), tl.int32)
    for start in range(0, last, BLOCK_N):
        at = start + tl.arange(0, BLOCK_N)
        there = at < last
        listed = tl.load(list_ptr + out * CAPACITY + at, mask=there & is_listed, other=0)
        place = tl.where(is_listed, listed, segment * SEGMENT + at)
        word = tl.load(open_ptr + row * words_per_row + place // 32, mask=there & (place < words_per_row * 32), other=0)
        index = item_at(place, GROUP, STRIDED, TILE)
        valid = there & (((word >> (place % 32)) & 1) == 1) & (index < num_items)
        scores = row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
        above += (valid & (scores > bar)).to(tl.int32)
    if found > 0:
        tl.atomic_add(count_ptr + row, tl.sum(above, axis=0), sem="relaxed")


@triton.jit(do_not_specialize=["num_items", "num_groups", "words_per_row", "k"])
def complete_kernel(
    query_ptr,
    table_ptr,
    maxima_ptr,
    bar_ptr,
    done_ptr,
    word_ptr,
    key_ptr,
    num_items,
    num_groups,
    words_per_row,
    k,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    DONE: tl.constexpr,
    EXCLUDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The k best keys of a row over every group that may hold one, unless those found already are the best.

    They are where the k-th one's score is above ``bar``, which no group that was not looked into exceeds. Else each
    pass over the groups finds the best key below the one before.
    """
    GROUPS: tl.constexpr = BLOCK_N // GROUP
    row = tl.program_id(0).to(tl.int64)
    bar = tl.load(bar_ptr + row)
    last = tl.load(key_ptr + row * k + k - 1)
    ordered = last >> 32
    worst = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(tl.int32).to(tl.float32, bitcast=True)
    passes = tl.where((worst > bar) | (bar == float("-inf")), 0, k)
    if DONE:
        passes = tl.where(tl.load(done_ptr + row), 0, passes)
    column = tl.arange(0, BLOCK_N)
    before = tl.full((), 0x7FFFFFFFFFFFFFFF, tl.int64)
    for rank in range(passes):
        best = tl.full((), _NONE, tl.int64)
        for start in range(0, num_groups, GROUPS):
            group = start + column // GROUP
            upper = tl.load(maxima_ptr + row * num_groups + group, mask=group < num_groups, other=float("-inf"))
            may = (upper >= worst) & (upper > float("-inf"))
            if tl.max(may.to(tl.int32), axis=0) > 0:
                index = start * GROUP + column
                valid = may & (index < num_items)
                scores = row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
                if EXCLUDE:
                    word = tl.load(word_ptr + row * words_per_row + index // 32, mask=valid, other=-1)
                    scores = tl.where(((word >> (index % 32)) & 1) == 0, scores, float("-inf"))
                key = order_key(scores, index + 1)
                best = tl.maximum(best, tl.max(tl.where(valid & (key < before), key, _NONE), axis=0))
        tl.store(key_ptr + row * k + rank, best)
        before = best


def list_bytes(num_items: int) -> int:
    """Bytes a row of what :func:`recount` and the bits before it take."""
    return 4 * triton.cdiv(num_items, 32) + (4 * _CAPACITY + 4) * triton.cdiv(num_items, _SEGMENT)


def recount(queries: Tensor, scan: Scan, bars: Bars) -> None:
    """Complete the counts of a pass for queries (B, d) float32: score every item that it left open.

    Rows that the pass has counted up to tau are left alone.
    """
    if bars.open is None or not len(queries):
        return
    table, (rows, words) = scan.table, bars.open.shape
    segments = triton.cdiv(words * 32, _SEGMENT)
    listed = torch.empty(rows, segments, _CAPACITY, dtype=torch.int32, device=queries.device)
    found = torch.empty(rows, segments, dtype=torch.int32, device=queries.device)
    sizes = {"SEGMENT": _SEGMENT, "CAPACITY": _CAPACITY}
    limit = table.num_items if scan.tau is None else scan.tau
    with launching():
        collect_kernel[(rows, segments)](
            bars.open, bars.count, listed, found, limit, words, segments, BLOCK=1024, enable_fp_fusion=True, **sizes
        )
        recheck_kernel[(rows, segments)](
            queries,
            table.weights,
            bars.best,
            bars.count,
            bars.open,
            listed,
            found,
            table.num_items,
            words,
            segments,
            GROUP=scan.group,
            STRIDED=scan.plan.strided,
            TILE=scan.plan.block_n,
            **sizes,
            **scan.plan.lone_rows(table.dim),
        )


def complete(
    queries: Tensor,
    scan: Scan,
    maxima: Tensor,
    bar: Tensor | None,
    keys: Tensor,
    bits: Tensor | None,
    done: Tensor | None = None,
) -> None:
    """Correct the best keys (B, k) in place where another group than those looked into may hold a better item.

    Parameters
    ----------
    maxima : (B, groups) float32
        No less than the best score in each group.
    bar : (B,) float32, optional
        The least of the maxima whose groups were looked into; None: all were.
    bits : (B, words) int32, optional
        Of the excluded items.
    done : (B,) bool, optional
        Rows whose best items nobody asks for.
    """
    if bar is None or scan.table.exact or not len(queries):
        return
    table = scan.table
    with launching():
        complete_kernel[(len(queries),)](
            queries,
            table.weights,
            maxima,
            bar,
            done,
            bits,
            keys,
            table.num_items,
            scan.num_groups,
            0 if bits is None else bits.shape[1],
            keys.shape[1],
            GROUP=scan.group,
            DONE=done is not None,
            EXCLUDE=bits is not None,
            **scan.plan.lone_rows(table.dim),
        )

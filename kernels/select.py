"""From group maxima to the exact best items: exclude, pick groups, look inside them.

Why k groups hold the k best items: order groups by (maximum descending, group ascending). An item outside the first k
groups comes after the best item of each of them: its logit is at most its own group's maximum, so at most theirs, and
where they are equal the other group holds lower ids.
"""

import triton
import triton.language as tl

from .arithmetic import dot_block, order_key


@triton.jit
def exclude_kernel(excluded_ptr, offset_ptr, word_ptr, words_per_row, BLOCK: tl.constexpr):
    """Set the bit of every excluded id in a row's bitmap: id - 1 is bit (id - 1) % 32 of word (id - 1) // 32."""
    row = tl.program_id(0).to(tl.int64)
    last = tl.load(offset_ptr + row + 1)
    for start in range(tl.load(offset_ptr + row), last, BLOCK):
        entry = start + tl.arange(0, BLOCK).to(tl.int64)
        index = tl.load(excluded_ptr + entry, mask=entry < last, other=1) - 1
        bit = tl.full((BLOCK,), 1, tl.int32) << (index % 32)
        tl.atomic_or(word_ptr + row * words_per_row + index // 32, bit, mask=entry < last, sem="relaxed")


@triton.jit
def repair_kernel(
    query_ptr,
    table_ptr,
    excluded_ptr,
    offset_ptr,
    word_ptr,
    maxima_ptr,
    num_items,
    num_groups,
    words_per_row,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write anew the maximum of each group that holds an excluded id, over its other items."""
    GROUPS: tl.constexpr = BLOCK_N // GROUP
    row = tl.program_id(0).to(tl.int64)
    last = tl.load(offset_ptr + row + 1)
    column = tl.arange(0, BLOCK_N)
    for start in range(tl.load(offset_ptr + row), last, GROUPS):
        entry = start + (column // GROUP).to(tl.int64)
        group = (tl.load(excluded_ptr + entry, mask=entry < last, other=1) - 1) // GROUP
        index = group * GROUP + column % GROUP
        valid = (entry < last) & (index < num_items)
        word = tl.load(word_ptr + row * words_per_row + index // 32, mask=valid, other=-1)
        scores = _row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
        scores = tl.where(((word >> (index % 32)) & 1) == 0, scores, float("-inf"))
        maxima = tl.max(tl.reshape(scores, (GROUPS, GROUP)), axis=1)
        entry = start + tl.arange(0, GROUPS).to(tl.int64)
        group = (tl.load(excluded_ptr + entry, mask=entry < last, other=1) - 1) // GROUP
        tl.store(maxima_ptr + row * num_groups + group, maxima, mask=entry < last)


@triton.jit
def pick_kernel(maxima_ptr, bar_ptr, need_ptr, pick_ptr, num_groups, num_picks, BLOCK: tl.constexpr):
    """The groups above ``bar`` and the first ``need`` of those equal to it: ``num_picks`` in all, ascending."""
    row = tl.program_id(0).to(tl.int64)
    bar = tl.load(bar_ptr + row)
    need = tl.load(need_ptr + row)
    equal_before = need * 0
    taken_before = need * 0
    for start in range(0, num_groups, BLOCK):
        group = start + tl.arange(0, BLOCK)
        value = tl.load(maxima_ptr + row * num_groups + group, mask=group < num_groups, other=float("nan"))
        equal = value == bar
        equal_rank = equal_before + tl.cumsum(equal.to(tl.int32), axis=0)
        take = (value > bar) | (equal & (equal_rank <= need))
        place = taken_before + tl.cumsum(take.to(tl.int32), axis=0) - 1
        tl.store(pick_ptr + row * num_picks + place, group, mask=take & (place < num_picks))
        equal_before += tl.sum(equal.to(tl.int32), axis=0)
        taken_before += tl.sum(take.to(tl.int32), axis=0)


@triton.jit
def rescore_kernel(
    query_ptr,
    table_ptr,
    pick_ptr,
    word_ptr,
    key_ptr,
    num_items,
    num_picks,
    words_per_row,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    EXCLUDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Order keys of every item in the picked groups (row = first grid axis, BLOCK_N candidates a program)."""
    row = tl.program_id(0).to(tl.int64)
    candidate = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = candidate < num_picks * GROUP
    group = tl.load(pick_ptr + row * num_picks + candidate // GROUP, mask=inside, other=0)
    index = group * GROUP + candidate % GROUP
    valid = inside & (index < num_items)
    scores = _row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
    if EXCLUDE:
        word = tl.load(word_ptr + row * words_per_row + index // 32, mask=valid, other=-1)
        scores = tl.where(((word >> (index % 32)) & 1) == 0, scores, float("-inf"))
    tl.store(key_ptr + row * num_picks * GROUP + candidate, order_key(scores, index + 1), mask=inside)


@triton.jit
def pool_kernel(
    query_ptr,
    table_ptr,
    pool_ptr,
    offset_ptr,
    word_ptr,
    key_ptr,
    width,
    words_per_row,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Order keys (rows, width) of a ragged pool. An id whose bit is set is left out: excluded, or seen already."""
    row = tl.program_id(0).to(tl.int64)
    candidate = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    entry = tl.load(offset_ptr + row) + candidate
    valid = entry < tl.load(offset_ptr + row + 1)
    index = tl.load(pool_ptr + entry, mask=valid, other=1) - 1
    bit = tl.full((BLOCK_N,), 1, tl.int32) << (index % 32)
    before = tl.atomic_or(word_ptr + row * words_per_row + index // 32, bit, mask=valid, sem="relaxed")
    scores = _row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
    scores = tl.where(valid & ((before & bit) == 0), scores, float("-inf"))
    tl.store(key_ptr + row * width + candidate, order_key(scores, index + 1), mask=candidate < width)


@triton.jit
def listed_kernel(
    query_ptr,
    table_ptr,
    id_ptr,
    offset_ptr,
    score_ptr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Logits of the items of ragged lists (row = first grid axis, BLOCK_N entries a program)."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.load(offset_ptr + row) + tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = entry < tl.load(offset_ptr + row + 1)
    index = tl.load(id_ptr + entry, mask=valid, other=1) - 1
    scores = _row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
    tl.store(score_ptr + entry, scores, mask=valid)


@triton.jit
def _row_scores(
    query_ptr,
    row,
    table_ptr,
    index,
    valid,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Logits (BLOCK_N,) of one query row against items ``index`` + 1; NaN and invalid ones are -inf.

    The row stands BLOCK_M times in the tile: 1 where a float32 dot is a chain of fused multiply-adds, 16 where it must
    take the same matrix instruction as the scan.
    """
    rows = row + tl.zeros((BLOCK_M,), tl.int64)
    scores = dot_block(
        query_ptr,
        rows,
        rows >= 0,
        table_ptr,
        index.to(tl.int64) + 1,
        valid,
        D,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
        "ieee",
    )
    scores = tl.where(scores == scores, scores, float("-inf"))
    return tl.where(valid, tl.max(scores, axis=0), float("-inf"))

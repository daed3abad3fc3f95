"""From group maxima to the exact best items: exclude, pick groups, look inside them.

Why k groups hold the k best items: order groups by (maximum descending, group ascending). An item outside the first k
groups comes after the best item of each of them: its logit is at most its own group's maximum, so at most theirs, and
where they are equal the other group holds lower ids.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import dot_block, order_key
from .plan import launching
from .scan import Scan
from .types import Best, Lists

__all__ = ["best_keys", "best_of_keys", "candidates", "exclusion_bits", "join", "pick", "repair", "row_scores"]


@triton.jit(do_not_specialize=["excluded_ptr", "offset_ptr", "end_ptr", "words_per_row"])
def exclude_kernel(excluded_ptr, offset_ptr, end_ptr, word_ptr, words_per_row, BLOCK: tl.constexpr):
    """Set the bit of every excluded id in a row's bitmap: id - 1 is bit (id - 1) % 32 of word (id - 1) // 32."""
    row = tl.program_id(0).to(tl.int64)
    first = tl.load(offset_ptr + row)
    last = tl.load(end_ptr + row)
    for tile in range(tl.cdiv(last - first, BLOCK).to(tl.int32)):
        entry = first + tile * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
        index = tl.load(excluded_ptr + entry, mask=entry < last, other=1) - 1
        bit = tl.full((BLOCK,), 1, tl.int32) << (index % 32)
        tl.atomic_or(word_ptr + row * words_per_row + index // 32, bit, mask=entry < last, sem="relaxed")


@triton.jit(do_not_specialize=["excluded_ptr", "offset_ptr", "end_ptr", "num_items", "num_groups", "words_per_row"])
def repair_kernel(
    query_ptr,
    table_ptr,
    excluded_ptr,
    offset_ptr,
    end_ptr,
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
    first = tl.load(offset_ptr + row)
    last = tl.load(end_ptr + row)
    column = tl.arange(0, BLOCK_N)
    for tile in range(tl.cdiv(last - first, GROUPS).to(tl.int32)):
        start = first + tile * GROUPS
        entry = start + (column // GROUP).to(tl.int64)
        group = (tl.load(excluded_ptr + entry, mask=entry < last, other=1) - 1) // GROUP
        index = group * GROUP + column % GROUP
        valid = (entry < last) & (index < num_items)
        word = tl.load(word_ptr + row * words_per_row + index // 32, mask=valid, other=-1)
        scores = row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
        scores = tl.where(((word >> (index % 32)) & 1) == 0, scores, float("-inf"))
        maxima = tl.max(tl.reshape(scores, (GROUPS, GROUP)), axis=1)
        entry = start + tl.arange(0, GROUPS).to(tl.int64)
        group = (tl.load(excluded_ptr + entry, mask=entry < last, other=1) - 1) // GROUP
        tl.store(maxima_ptr + row * num_groups + group, maxima, mask=entry < last)


@triton.jit(do_not_specialize=["num_groups", "num_picks"])
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


@triton.jit(do_not_specialize=["num_items", "num_picks", "words_per_row"])
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
    scores = row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
    if EXCLUDE:
        word = tl.load(word_ptr + row * words_per_row + index // 32, mask=valid, other=-1)
        scores = tl.where(((word >> (index % 32)) & 1) == 0, scores, float("-inf"))
    tl.store(key_ptr + row * num_picks * GROUP + candidate, order_key(scores, index + 1), mask=inside)


@triton.jit
def row_scores(
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


def candidates(queries: Tensor, scan: Scan, picks: Tensor, bits: Tensor | None) -> Tensor:
    """Order keys (rows, num_picks * group) int64 of all items in the picked groups that are not excluded."""
    table, group = scan.table, scan.group
    rows, num_picks = picks.shape
    constants = {"GROUP": group, **scan.plan.lone_rows(table.dim)}
    keys = torch.empty(rows, num_picks * group, dtype=torch.int64, device=queries.device)
    with launching():
        rescore_kernel[(rows, triton.cdiv(num_picks * group, scan.plan.row_block_n))](
            queries,
            table.weights,
            picks,
            bits,
            keys,
            table.num_items,
            num_picks,
            triton.cdiv(table.num_items, 32),
            EXCLUDE=bits is not None,
            **constants,
        )
    return keys


def repair(queries: Tensor, scan: Scan, maxima: Tensor, bits: Tensor, excluded: Lists) -> None:
    """Take the excluded ids, whose bits are set, out of the groups' maxima."""
    table = scan.table
    with launching():
        repair_kernel[(len(queries),)](
            queries,
            table.weights,
            excluded.ids,
            excluded.offsets,
            excluded.ends,
            bits,
            maxima,
            table.num_items,
            scan.num_groups,
            bits.shape[1],
            GROUP=scan.group,
            **scan.plan.lone_rows(table.dim),
        )


def pick(maxima: Tensor, num_picks: int) -> tuple[Tensor, Tensor | None]:
    """(rows, num_picks) int32 groups of largest maximum, lower groups first among equal ones; the least of their maxima
    (rows,), or None where they are all groups."""
    rows, num_groups = maxima.shape
    if num_picks == num_groups:
        return torch.arange(num_groups, dtype=torch.int32, device=maxima.device).expand(rows, -1).contiguous(), None
    top = maxima.topk(num_picks, dim=1, sorted=False).values
    bar = top.amin(dim=1)
    need = (top == bar[:, None]).sum(dim=1, dtype=torch.int32)
    picks = torch.empty(rows, num_picks, dtype=torch.int32, device=maxima.device)
    with launching():
        pick_kernel[(rows,)](maxima, bar, need, picks, num_groups, num_picks, BLOCK=1024, enable_fp_fusion=True)
    return picks, bar


def exclusion_bits(excluded: Lists | None, rows: int, num_items: int, device: torch.device) -> Tensor:
    """(rows, ceil(N / 32)) int32 bitmap of the excluded ids."""
    words = triton.cdiv(num_items, 32)
    bits = torch.zeros(rows, words, dtype=torch.int32, device=device)
    if excluded is not None:
        with launching():
            exclude_kernel[(rows,)](
                excluded.ids, excluded.offsets, excluded.ends, bits, words, BLOCK=64, num_warps=2, enable_fp_fusion=True
            )
    return bits


def best_keys(keys: Tensor, k: int) -> Tensor:
    """The k largest order keys of each row, or all; the largest first."""
    return keys.amax(dim=1, keepdim=True) if k == 1 else keys.topk(min(k, keys.shape[1]), dim=1).values


def best_of_keys(keys: Tensor) -> Best:
    """Decode order keys; the inverse of :func:`rsir.kernels.arithmetic.order_key`."""
    ordered = keys >> 32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).int()
    logits = bits.view(torch.float32)
    ids = 0x7FFFFFFF - (keys & 0xFFFFFFFF)
    return Best(torch.where(logits == -torch.inf, 0, ids), logits)


def join(parts: list[Best], k: int, device: torch.device) -> Best:
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

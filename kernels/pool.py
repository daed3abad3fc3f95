"""Items that each row lists: the best of a pool, and the logits of all."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import order_key
from .plan import aligned_rows, chunks, launching, make_plan, platform, scratch_of
from .select import best_keys, best_of_keys, exclusion_bits, join, row_scores
from .types import Best, ItemTable, Lists

__all__ = ["logits_of", "pool_best"]


@triton.jit(do_not_specialize=["pool_ptr", "offset_ptr", "width", "words_per_row"])
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
    scores = row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
    scores = tl.where(valid & ((before & bit) == 0), scores, float("-inf"))
    tl.store(key_ptr + row * width + candidate, order_key(scores, index + 1), mask=candidate < width)


@triton.jit(do_not_specialize=["id_ptr", "offset_ptr"])
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
    scores = row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
    tl.store(score_ptr + entry, scores, mask=valid)


def pool_best(
    queries: Tensor,
    table: ItemTable,
    pool: Lists,
    k: int,
    excluded: Lists | None,
    *,
    scratch_bytes: int | None = None,
) -> Best:
    """The k best items of each row's own pool, less the excluded ones. Always exact float32."""
    rows = len(queries)
    plan = make_plan(platform(), "ieee", table.dim, rows)
    words = triton.cdiv(table.num_items, 32)
    widest = max(1, int(pool.offsets.diff().max())) if rows else 1
    parts = []
    scratch_bytes = scratch_of(queries.device) if scratch_bytes is None else scratch_bytes
    for first, last in chunks(rows, aligned_rows(scratch_bytes // (4 * words + 8 * widest))):
        part = queries[first:last]
        seen = exclusion_bits(excluded and excluded.rows(first, last), last - first, table.num_items, part.device)
        ids, offsets, _ = pool.rows(first, last)
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
                **plan.lone_rows(table.dim),
            )
        parts.append(best_of_keys(best_keys(keys, k)))
    return join(parts, k, queries.device)


def logits_of(queries: Tensor, table: ItemTable, lists: Lists) -> Tensor:
    """(nnz,) float32 logits of the items each row lists; NaN is -inf. Always exact float32."""
    rows = len(queries)
    scores = torch.empty(len(lists.ids), dtype=torch.float32, device=queries.device)
    if not len(scores):
        return scores
    plan = make_plan(platform(), "ieee", table.dim, rows)
    with launching():
        listed_kernel[(rows, triton.cdiv(int(lists.offsets.diff().max()), plan.row_block_n))](
            queries, table.weights, lists.ids, lists.offsets, scores, **plan.lone_rows(table.dim)
        )
    return scores

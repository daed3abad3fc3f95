"""Cross-entropy against negatives that all positions share, with its gradients; no logits are stored.

Two passes form the logits anew, tile by tile: one over the negatives for each tile of positions, twice, first for the
sum of a softmax and then for the gradients of queries and targets; one over the positions for each tile of negatives.
Sums are added in a fixed order, without atomics: the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .plan import launching, platform

__all__ = ["MOST_DIMENSIONS", "sampled_softmax"]

MOST_DIMENSIONS = 256
"""A program holds whole queries and whole gradients of a tile."""

_SPLITS = 8  # parts of the positions whose gradients of the negatives are added at the end


@triton.jit
def product(a, b, acc, ROUND: tl.constexpr):
    """a @ b + acc in float32, of factors as they are (ROUND 0) or rounded to bfloat16: as such (1), or in float32 (2),
    for the interpreter, which multiplies no bfloat16."""
    if ROUND == 1:
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), acc)
    if ROUND == 2:
        a, b = nearest(a), nearest(b)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def nearest(x):
    """The nearest bfloat16, the even one of two, in float32; nan and infinities stay."""
    bits = x.to(tl.int32, bitcast=True)
    high = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
    return tl.where(x == x, high.to(tl.float32, bitcast=True), x)


@triton.jit
def logits_of(
    q,
    e,
    rows,
    columns,
    row_mask,
    column_mask,
    target_ptr,
    id_ptr,
    offset_ptr,
    HAS_OFFSETS: tl.constexpr,
    ROUND: tl.constexpr,
):
    """(M, N) logits of query and embedding tiles; -inf where a negative is the row's target or beyond the last."""
    logits = product(q, tl.trans(e), tl.zeros((q.shape[0], e.shape[0]), tl.float32), ROUND)
    if HAS_OFFSETS:
        logits += tl.load(offset_ptr + columns, mask=column_mask, other=0.0)[None, :]
    target = tl.load(target_ptr + rows, mask=row_mask, other=0)
    own = tl.load(id_ptr + columns, mask=column_mask, other=0)
    return tl.where((target[:, None] == own[None, :]) | ~column_mask[None, :], float("-inf"), logits)


@triton.jit(do_not_specialize=["num_rows", "num_columns"])
def softmax_rows_kernel(
    query_ptr,
    positive_ptr,
    negative_ptr,
    target_ptr,
    id_ptr,
    weight_ptr,
    target_offset_ptr,
    negative_offset_ptr,
    loss_ptr,
    top_ptr,
    scale_ptr,
    grad_query_ptr,
    grad_positive_ptr,
    num_rows,
    num_columns,
    D: tl.constexpr,
    HAS_TARGET_OFFSETS: tl.constexpr,
    HAS_NEGATIVE_OFFSETS: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Loss of each position, gradients of its query and target, and what turns logits into gradients: top and scale."""
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    k = tl.arange(0, BLOCK_D)
    weight = tl.load(weight_ptr + rows, mask=rows < num_rows, other=0.0)
    takes_part = weight != 0.0
    inside = takes_part[:, None] & (k < D)[None, :]
    place = rows[:, None] * D + k[None, :]
    q = tl.load(query_ptr + place, mask=inside, other=0.0)
    own = tl.sum(q * tl.load(positive_ptr + place, mask=inside, other=0.0), axis=1)
    if HAS_TARGET_OFFSETS:
        own += tl.load(target_offset_ptr + rows, mask=takes_part, other=0.0)

    top = own
    total = tl.full((BLOCK_M,), 1.0, tl.float32)  # the target's share of itself
    for first in range(0, num_columns, BLOCK_N):
        columns = (first + tl.arange(0, BLOCK_N)).to(tl.int64)
        there = columns < num_columns
        at = columns[:, None] * D + k[None, :]
        e = tl.load(negative_ptr + at, mask=there[:, None] & (k < D)[None, :], other=0.0)
        logits = logits_of(
            q, e, rows, columns, takes_part, there, target_ptr, id_ptr, negative_offset_ptr, HAS_NEGATIVE_OFFSETS, ROUND
        )
        # NaN must reach the sum and not the maximum, where it might get lost.
        higher = tl.maximum(top, tl.max(tl.where(logits == logits, logits, float("-inf")), axis=1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher[:, None]), axis=1)
        top = higher
    own_share = tl.exp(own - top)
    scale = tl.where(takes_part, weight / total, 0.0)
    tl.store(loss_ptr + rows, tl.where(takes_part, weight * (tl.log(total) + top - own), 0.0), mask=rows < num_rows)
    tl.store(top_ptr + rows, top, mask=rows < num_rows)
    tl.store(scale_ptr + rows, scale, mask=rows < num_rows)

    gradient = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for first in range(0, num_columns, BLOCK_N):
        columns = (first + tl.arange(0, BLOCK_N)).to(tl.int64)
        there = columns < num_columns
        at = columns[:, None] * D + k[None, :]
        e = tl.load(negative_ptr + at, mask=there[:, None] & (k < D)[None, :], other=0.0)
        logits = logits_of(
            q, e, rows, columns, takes_part, there, target_ptr, id_ptr, negative_offset_ptr, HAS_NEGATIVE_OFFSETS, ROUND
        )
        share = tl.exp(logits - top[:, None]) * scale[:, None]
        gradient = product(share, e, gradient, ROUND)
    pull = tl.where(takes_part, weight * (own_share / total - 1.0), 0.0)[:, None]
    written = (rows < num_rows)[:, None] & (k < D)[None, :]
    positive = tl.load(
        positive_ptr + place, mask=inside, other=0.0
    )  # again: kept, it would take the registers of others
    tl.store(grad_query_ptr + place, tl.where(inside, gradient + pull * positive, 0.0), mask=written)
    tl.store(grad_positive_ptr + place, tl.where(inside, pull * q, 0.0), mask=written)


@triton.jit(do_not_specialize=["num_rows", "num_columns", "tiles_per_program"])
def softmax_columns_kernel(
    query_ptr,
    negative_ptr,
    target_ptr,
    id_ptr,
    negative_offset_ptr,
    top_ptr,
    scale_ptr,
    grad_negative_ptr,
    num_rows,
    num_columns,
    tiles_per_program,
    D: tl.constexpr,
    HAS_NEGATIVE_OFFSETS: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Gradients of a tile of negatives from a part of the positions (second grid axis)."""
    columns = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    there = columns < num_columns
    k = tl.arange(0, BLOCK_D)
    inside = there[:, None] & (k < D)[None, :]
    e = tl.load(negative_ptr + columns[:, None] * D + k[None, :], mask=inside, other=0.0)
    own = tl.load(id_ptr + columns, mask=there, other=0)
    offset = tl.zeros((BLOCK_N,), tl.float32)
    if HAS_NEGATIVE_OFFSETS:
        offset += tl.load(negative_offset_ptr + columns, mask=there, other=0.0)
    gradient = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    first_tile = tl.program_id(1) * tiles_per_program
    for tile in range(first_tile, tl.minimum(first_tile + tiles_per_program, tl.cdiv(num_rows, BLOCK_M))):
        rows = (tile * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
        scale = tl.load(scale_ptr + rows, mask=rows < num_rows, other=0.0)
        takes_part = scale != 0.0  # NaN, too
        q = tl.load(query_ptr + rows[:, None] * D + k[None, :], mask=takes_part[:, None] & (k < D)[None, :], other=0.0)
        top = tl.load(top_ptr + rows, mask=takes_part, other=0.0)
        # Positions across: transposing the shares for the second product instead spills on NVIDIA.
        logits = product(e, tl.trans(q), tl.zeros((BLOCK_N, BLOCK_M), tl.float32), ROUND) + offset[:, None]
        target = tl.load(target_ptr + rows, mask=takes_part, other=0)
        counts = takes_part[None, :] & (target[None, :] != own[:, None])
        share = tl.where(counts, tl.exp(logits - top[None, :]) * scale[None, :], 0.0)
        gradient = product(share, q, gradient, ROUND)
    at = (tl.program_id(1) * num_columns + columns)[:, None] * D + k[None, :]
    tl.store(grad_negative_ptr + at, gradient, mask=inside)


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    weights: Tensor,
    target_offsets: Tensor | None,
    negative_offsets: Tensor | None,
    bfloat16: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, and gradients of queries and positives (T, d) and negatives (S, d), all float32 and contiguous.

    ``bfloat16`` rounds the factors of the three products, which are then for tensor cores; sums stay float32.

    Raises
    ------
    ValueError
        d above ``MOST_DIMENSIONS``.
    """
    rows, dim = queries.shape
    columns = len(negatives)
    if dim > MOST_DIMENSIONS:
        raise ValueError(f"queries: expected at most {MOST_DIMENSIONS} dimensions, got {dim}; use backend='reference'")
    sizes = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_D": max(16, triton.next_power_of_2(dim))}
    if platform() == "hip":
        options = {"num_warps": 4, "num_stages": 1}
    else:  # with one stage or fewer warps some Triton since 3.5 spills
        options = {"num_warps": 4 if dim <= 64 else 8 if dim <= 128 else 16, "num_stages": 2}
    losses, top, scale = (torch.empty(rows, dtype=torch.float32, device=queries.device) for _ in range(3))
    grad_queries, grad_positives = torch.empty_like(queries), torch.empty_like(positives)
    tiles = triton.cdiv(rows, sizes["BLOCK_M"])
    each = max(1, triton.cdiv(tiles, _SPLITS))
    splits = max(1, triton.cdiv(tiles, each))
    grad_negatives = torch.empty(splits, columns, dim, dtype=torch.float32, device=queries.device)
    has_offsets = negative_offsets is not None
    rounding = 0 if not bfloat16 else 2 if platform() == "interpreter" else 1
    with launching():
        if rows:
            softmax_rows_kernel[(tiles,)](
                queries,
                positives,
                negatives,
                targets,
                negative_ids,
                weights,
                target_offsets,
                negative_offsets,
                losses,
                top,
                scale,
                grad_queries,
                grad_positives,
                rows,
                columns,
                D=dim,
                HAS_TARGET_OFFSETS=target_offsets is not None,
                HAS_NEGATIVE_OFFSETS=has_offsets,
                ROUND=rounding,
                **(sizes | {"BLOCK_N": 16}),  # 32 takes all registers there are
                **options,
                enable_fp_fusion=True,
            )
        if columns:
            softmax_columns_kernel[(triton.cdiv(columns, sizes["BLOCK_N"]), splits)](
                queries,
                negatives,
                targets,
                negative_ids,
                negative_offsets,
                top,
                scale,
                grad_negatives,
                rows,
                columns,
                each,
                D=dim,
                HAS_NEGATIVE_OFFSETS=has_offsets,
                ROUND=rounding,
                **sizes,
                **options,
                enable_fp_fusion=True,
            )
    return losses.double().sum().float(), grad_queries, grad_positives, grad_negatives.sum(0)

"""The arithmetic that every kernel shares: one dot product, one order of scores, one random generator.

Exactness rests on all kernels producing the same bits for the same (query, item) pair. A float32 dot is a chain of
fused multiply-adds over ascending k on CUDA, whatever the tile; on AMD it is one fixed matrix instruction
(``matrix_instr_nonkdim = 16``) over ascending k. In the interpreter it is one matrix product per block of k.
"""

import triton
import triton.language as tl


@triton.jit
def dot_block(
    query_ptr,
    rows,
    row_mask,
    table_ptr,
    ids,
    id_mask,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Logits (BLOCK_M, BLOCK_N) float32 of int64 query rows against int64 table rows; masked ones come out as 0."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k0 in range(0, D, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        q = tl.load(query_ptr + rows[:, None] * D + k[None, :], mask=row_mask[:, None] & (k < D)[None, :], other=0.0)
        e = tl.load(table_ptr + ids[None, :] * D + k[:, None], mask=id_mask[None, :] & (k < D)[:, None], other=0.0)
        acc = tl.dot(q, e.to(q.dtype), acc, input_precision=PRECISION)
    return acc


@triton.jit
def order_key(logit, item):
    """An int64 that sorts by (logit descending, id ascending) when sorted downwards; -0.0 and 0.0 are equal."""
    logit = tl.where(logit == 0.0, 0.0, logit)
    bits = logit.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - item)


@triton.jit
def philox(item, c0, c1, c2, key0, key1):
    """First word of Philox4x32-10 for counter (item, c0, c1, c2) and key (key0, key1): blocks of uint32."""
    word, _, _, _ = tl.philox_impl(item, c0, c1, c2, key0, key1)
    return word

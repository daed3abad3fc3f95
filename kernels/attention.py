"""Softmax attention of one new item a sequence over the cached keys and values of those before it."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .plan import launching

__all__ = ["attend_cached"]


@triton.jit(do_not_specialize=["query_ptr", "key_ptr", "value_ptr", "stride", "heads", "max_len"])
def attend_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    at_ptr,
    keys_ptr,
    values_ptr,
    out_ptr,
    stride,
    heads,
    max_len,
    SCALE: tl.constexpr,
    E: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Of one sequence (first grid axis) and head: put its key and value at place ``at`` and attend up to there."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    e = tl.arange(0, BLOCK_E)
    inside = e < E
    at = tl.load(at_ptr + row).to(tl.int32)
    own = row * stride + head * E + e
    query = tl.load(query_ptr + own, mask=inside, other=0.0) * SCALE
    key = tl.load(key_ptr + own, mask=inside, other=0.0)
    value = tl.load(value_ptr + own, mask=inside, other=0.0)
    cached = (row * heads + head) * max_len * E
    tl.store(keys_ptr + cached + at * E + e, key, mask=inside)
    tl.store(values_ptr + cached + at * E + e, value, mask=inside)

    # The newest comes first: its score begins the running maximum.
    best = tl.sum(query * key, axis=0)
    total = best * 0.0 + 1.0
    for start in range(0, at, BLOCK_L):
        place = start + tl.arange(0, BLOCK_L)
        mask = (place < at)[:, None] & inside[None, :]
        entry = cached + place[:, None] * E + e[None, :]
        scores = tl.sum(query[None, :] * tl.load(keys_ptr + entry, mask=mask, other=0.0), axis=1)
        scores = tl.where(place < at, scores, float("-inf"))
        top = tl.maximum(best, tl.max(scores, axis=0))
        weights = tl.exp(scores - top)
        kept = tl.exp(best - top)
        value = value * kept + tl.sum(weights[:, None] * tl.load(values_ptr + entry, mask=mask, other=0.0), axis=0)
        total = total * kept + tl.sum(weights, axis=0)
        best = top
    tl.store(out_ptr + (row * heads + head) * E + e, value / total, mask=inside)


def attend_cached(query: Tensor, key: Tensor, value: Tensor, at: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one new item of each of n sequences over itself and those before it.

    Parameters
    ----------
    query, key, value : (n, heads, e) float32
        Of one layout: a head's numbers lie together, heads one after the other, rows at equal distances.
    at : (n,) int64
        How many items each sequence had before; its new key and value are stored at that place.
    keys, values : (n or more, heads, max_len, e) float32, contiguous
        Changed in place.

    Returns
    -------
    (n, heads * e) float32
    """
    rows, heads, size = query.shape
    out = torch.empty(rows, heads * size, dtype=torch.float32, device=query.device)
    with launching():
        attend_kernel[(rows, heads)](
            query,
            key,
            value,
            at,
            keys,
            values,
            out,
            query.stride(0),
            heads,
            keys.shape[2],
            SCALE=1 / math.sqrt(size),
            E=size,
            BLOCK_E=triton.next_power_of_2(size),
            BLOCK_L=32,
            enable_fp_fusion=True,
        )
    return out

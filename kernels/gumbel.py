"""Gumbel-max draws with Philox noise, in float64 as on the CPU."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import philox
from .plan import launching
from .types import Best

__all__ = ["draw", "signed"]


@triton.jit(do_not_specialize=["counter_ptr", "num_entries", "k", "key0", "key1"])
def noise_kernel(item_ptr, counter_ptr, word_ptr, num_entries, k, key0, key1, BLOCK: tl.constexpr):
    """First Philox word of each (row, item), as int64 in 0..2^32 - 1: items (rows, k) int64, counters (rows, 3) int64.

    The key's two words come as int32 of the same bits.
    """
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = entry < num_entries
    item = tl.load(item_ptr + entry, mask=mask, other=0)
    counter = counter_ptr + (entry // k) * 3
    c0 = tl.load(counter, mask=mask, other=0)
    c1 = tl.load(counter + 1, mask=mask, other=0)
    c2 = tl.load(counter + 2, mask=mask, other=0)
    zero = tl.zeros((BLOCK,), tl.int32)
    word = philox(
        item.to(tl.uint32),
        c0.to(tl.uint32),
        c1.to(tl.uint32),
        c2.to(tl.uint32),
        (zero + key0).to(tl.uint32, bitcast=True),
        (zero + key1).to(tl.uint32, bitcast=True),
    )
    tl.store(word_ptr + entry, word.to(tl.int64), mask=mask)


@triton.jit(do_not_specialize=["num_rows", "k"])
def draw_kernel(
    item_ptr,
    scaled_ptr,
    word_ptr,
    place_ptr,
    num_rows,
    k,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Place of the winner of each row: argmax of scaled logit + Gumbel over items (rows, k), ties to the lower id.

    Places hold id 0 where there is no item; a row of such places answers 0.
    """
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    best = tl.full((BLOCK_M,), float("-inf"), tl.float64)
    best_item = tl.full((BLOCK_M,), 0x7FFFFFFF, tl.int64)
    best_place = tl.zeros((BLOCK_M,), tl.int32)
    for start in range(0, k, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        at = rows[:, None] * k + column[None, :]
        mask = (rows < num_rows)[:, None] & (column < k)[None, :]
        item = tl.load(item_ptr + at, mask=mask, other=0)
        scaled = tl.load(scaled_ptr + at, mask=mask, other=0.0)
        word = tl.load(word_ptr + at, mask=mask, other=0)
        u = (word.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32
        noisy = tl.where(item > 0, scaled - tl.log(-tl.log(u)), float("-inf"))
        top = tl.max(noisy, axis=1)
        wins = (noisy == top[:, None]) & (item > 0)
        top_item = tl.min(tl.where(wins, item, 0x7FFFFFFF), axis=1)
        top_place = tl.min(tl.where(wins & (item == top_item[:, None]), column[None, :], k), axis=1)
        better = (top > best) | ((top == best) & (top_item < best_item))
        best = tl.where(better, top, best)
        best_item = tl.where(better, top_item, best_item)
        best_place = tl.where(better, top_place, best_place)
    tl.store(place_ptr + rows, tl.where(best_item < 0x7FFFFFFF, best_place, 0).to(tl.int64), mask=rows < num_rows)


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
            ids, counters, words, ids.numel(), k, signed(seed), signed(seed >> 32), BLOCK=256, enable_fp_fusion=True
        )
        draw_kernel[(triton.cdiv(rows, 8),)](
            ids, scaled, words, place, rows, k, BLOCK_M=8, BLOCK_N=32, enable_fp_fusion=True
        )
    return place


def signed(word: int) -> int:
    """The int32 with the low 32 bits of ``word``."""
    return int(np.uint32(word & 0xFFFFFFFF).astype(np.int32))

"""Philox4x32-10 in the kernel gives the words that its authors publish with Random123."""

import pytest
import torch

pytest.importorskip("triton", minversion="3.5")

from rsir.kernels.gumbel import noise_kernel, signed


@pytest.mark.parametrize(
    ("counter", "key", "word"),
    [
        ((0, 0, 0, 0), (0, 0), 0x6627E8D5),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, 0x408F276D),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), 0xD16CFE09),
    ],
)
def test_known_answers(counter, key, word):
    items, counters = torch.tensor([counter[:1]]), torch.tensor([counter[1:]])
    got = torch.empty_like(items)
    noise_kernel[(1,)](items, counters, got, 1, 1, signed(key[0]), signed(key[1]), BLOCK=16)
    assert got.tolist() == [[word]]

"""Attention over cached keys and values against torch's own, and what it writes."""

import pytest
import torch

pytest.importorskip("triton", minversion="3.5")

from rsir.kernels import attend_cached
from torch.nn.functional import scaled_dot_product_attention


@pytest.mark.parametrize(("heads", "size", "longest"), [(1, 1, 1), (2, 8, 40), (3, 5, 70)])
def test_attention(heads, size, longest):
    make = torch.Generator(torch.get_default_device()).manual_seed(0)
    rows = 4
    at = torch.tensor([0, longest - 1, longest // 2, 0])
    newest = torch.randn(rows, 3, heads, size, generator=make)
    keys, values = torch.randn(2, rows + 1, heads, longest, size, generator=make)
    keys[at.max() + 1 :], values[0, :, 1:] = torch.nan, torch.nan  # beyond a sequence nothing is read
    before = keys.clone(), values.clone()
    got = attend_cached(*newest.unbind(1), at, keys, values)
    for row, place in enumerate(at.tolist()):
        for cache, old, new in zip((keys, values), before, newest[row, 1:], strict=True):
            torch.testing.assert_close(cache[row, :, place], new, rtol=0, atol=0)
            others = torch.arange(longest) != place
            torch.testing.assert_close(cache[row][:, others], old[row][:, others], rtol=0, atol=0, equal_nan=True)
        query = newest[row, 0][:, None]
        expected = scaled_dot_product_attention(query, keys[row, :, : place + 1], values[row, :, : place + 1])
        torch.testing.assert_close(got[row], expected.flatten(), rtol=1e-5, atol=1e-6)

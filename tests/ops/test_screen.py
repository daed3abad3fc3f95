"""The screen of bytes: answers are those of the scan to the bit, however close logits lie and whatever their size."""

from __future__ import annotations

import pytest
import torch

from rsir import _core, ops
from tests.ops.naive import ragged

pytestmark = pytest.mark.skipif("avx512vnni" not in _core.instruction_sets(), reason="needs AVX-512 VNNI")

K = 5


def _answers(queries, items, name, dtype=None):
    """Every answer of a scan, and how many rows of scans were screened."""
    table = ops.pack(items, instruction_set=name, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    count = len(items) - 1
    targets, excluded = (
        ragged([torch.randint(1, count + 1, (n,), generator=generator).tolist() for _ in queries]) for n in (2, 40)
    )
    bars = ops.logits_of(queries, table, ragged([[1 + row % count] for row in range(len(queries))]))
    found = [
        ops.rank_within(queries, table, targets, 30),
        ops.rank_within(queries, table, targets),
        ops.count_above(queries, table, bars, None),
        *ops.topk(queries, table, K, excluded=excluded),
        *ops.rank_and_topk(queries, table, targets, 200, K, excluded=excluded),
    ]
    return found, table.handle[0].rows_screened


def _check(queries, items, dtype=None) -> int:
    """-> how many of the rows of five scans were screened."""
    got, screened = _answers(queries, items, "avx512vnni", dtype)
    want, none = _answers(queries, items, "avx512", dtype)
    assert none == 0
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)
    return screened


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("dim", [1, 6, 64, 100])
def test_random_items(dim, dtype):
    assert _check(_normal(70, dim), _normal(2500, dim, seed=1), dtype) > 100


@pytest.mark.parametrize("near", [12, 60])
def test_items_whose_logits_differ_by_the_last_bit(near):
    """The best items of each row are copies of one another, moved by units in the last place: codes see none of it."""
    queries, items = _normal(40, 64), 0.3 * _normal(3001, 64, seed=1)
    place = torch.randperm(3000, generator=torch.Generator().manual_seed(2))[: 40 * near] + 1
    copies = queries.repeat_interleave(near, 0) if near * 40 <= 3000 else queries.repeat(near, 1)[: len(place)]
    items[place] = copies[: len(place)] * (1 + torch.arange(len(place))[:, None] % 9 * 2.0**-23)
    assert _check(queries, items) > 0


def test_all_items_within_a_few_units_in_the_last_place():
    items = torch.ones(2001, 1) * _normal(1, 64) * (1 + torch.randint(0, 4, (2001, 1)) * 2.0**-23)
    _check(_normal(30, 64, seed=1), items)


def test_ties_of_all_items():
    _check(_normal(30, 8), torch.ones(1501, 8))


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-3, 1e12, 1e25, 1e37])
def test_sizes_from_the_smallest_to_those_that_overflow(size):
    _check(_normal(40, 16) * size, _normal(1501, 16, seed=1))
    _check(_normal(40, 16), _normal(1501, 16, seed=1) * size)
    _check(_normal(40, 16) * min(size, 1e19), _normal(1501, 16, seed=1) * min(size, 1e19))


def test_dimensions_and_items_of_very_different_sizes():
    scale = 10.0 ** torch.arange(-8, 8).float()
    assert _check(_normal(70, 16), _normal(2001, 16, seed=1) * scale) > 0
    assert _check(_normal(70, 16), _normal(2001, 16, seed=1) * 10 ** _normal(2001, 1, seed=2)) > 0


def test_rows_and_items_that_are_not_finite_or_zero():
    queries, items = _normal(40, 16), _normal(1501, 16, seed=1)
    queries[3] = 0.0
    queries[5, 2], queries[8, 2], queries[9, 2] = float("nan"), float("inf"), -float("inf")
    assert _check(queries, items) > 0
    items[4, 2] = float("inf")
    assert _check(queries, items) == 0
    assert _check(_normal(40, 16), torch.zeros(1501, 16)) == 0


def test_codes_are_made_once_enough_rows_were_scanned():
    queries, items = _normal(200, 16), _normal(1501, 16, seed=1)
    table = ops.pack(items)
    first = ops.topk(queries, table, K)
    assert table.handle[0].rows_screened == 0
    second = ops.topk(queries, table, K)
    assert table.handle[0].rows_screened == 200
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.ids, second.ids)

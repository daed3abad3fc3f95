"""The compiled loops for data against the same loops in Python, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.data import drawing, packing
from rsir.runtime.core import _core
from tests.data import naive


@settings(max_examples=100)
@given(st.lists(st.integers(1, 10), max_size=60), st.integers(0, 2**31))
def test_packing(lengths, seed):
    """The very rows and places, whatever is packed, and its soft targets."""
    random = np.random.default_rng(seed)
    lengths = np.array(lengths, np.int64)
    placed, expected = packing.assign(lengths, 10), naive.assign(lengths, 10)
    for found, want in zip(placed, expected, strict=True):
        np.testing.assert_array_equal(found, want)
    row, column, rows = placed
    ends = np.cumsum(lengths + 1)
    items = random.integers(1, 100, int(ends[-1]) if len(ends) else 0).astype(np.int32)
    weight = random.random(len(lengths)).astype(np.float32)
    grids = [(np.zeros((4, rows, 10), np.int64), np.zeros((rows, 10), np.float32)) for _ in range(2)]
    for module, grid in zip((packing, naive), grids, strict=True):
        module.fill(items, ends, lengths, row, column, weight, *grid)
    for found, want in zip(*grids, strict=True):
        np.testing.assert_array_equal(found, want)
    chosen = random.integers(0, 4, len(items))  # how many soft targets
    ids = np.where(np.arange(3) < chosen[:, None], random.integers(1, 100, (len(items), 3)), 0).astype(np.int32)
    cumulative = np.cumsum(random.random((len(items), 3)), 1).astype(np.float32)
    cumulative /= cumulative[:, -1:].clip(1e-9)
    numbers = random.random((2, int(lengths.sum())))
    soft = [grid[0][1].copy() for grid in grids]
    for module, targets in zip((packing, naive), soft, strict=True):
        module.soften(ids, cumulative, 0.7, numbers, ends, lengths, row, column, targets)
    np.testing.assert_array_equal(*soft)


@pytest.mark.parametrize("seed", range(5))
def test_drawing(seed):
    random = np.random.default_rng(seed)
    centres, points = (2 * np.pi * random.random((n, 2)) for n in (30, 200))
    home = random.integers(0, 30, 200).astype(np.int32)
    close = drawing.near(centres, 1.5)
    for found, want in zip(close, naive.near(centres, 1.5), strict=True):
        np.testing.assert_array_equal(found, want)
        assert found.dtype == want.dtype
    users, uniform = random.integers(0, 200, 500), random.random(500)
    arguments = users, uniform, points, home, centres, *close, 8.0
    drawn = drawing.draw_genres(*arguments)
    np.testing.assert_array_equal(drawn, naive.draw_genres(*arguments))
    assert len(set(drawn.tolist())) > 10
    offsets = np.arange(0, 201 * 6, 6)
    rows = [random.integers(1, 9, 1200).astype(np.int32)] * 2
    rows = [row.copy() for row in rows]
    who, what = np.arange(0, 200, 2), random.integers(1, 9, 100).astype(np.int32)
    repeats = [m.find_repeats(who, what, 4, row, offsets) for m, row in zip((drawing, naive), rows, strict=True)]
    np.testing.assert_array_equal(*repeats)
    np.testing.assert_array_equal(*rows)
    assert 0 < repeats[0].sum() < 100


def ints(*values):
    return np.array(values, np.int64)


def refused(message, op, *arguments):
    with pytest.raises(ValueError, match=message):
        op(*arguments)


def test_places_out_of_range_are_refused():
    """Nothing is read or written outside the arrays."""
    items, weight = np.ones(5, np.int32), np.ones(1, np.float32)
    grid, weights = np.zeros((4, 1, 3), np.int64), np.zeros((1, 3), np.float32)
    refused(r"lengths: expected 1\.\.3, got 4", _core.assign_rows, ints(4), 3)
    refused("width: expected at least 1", _core.assign_rows, ints(), 0)
    for ends, lengths, row, column in ((6, 2, 0, 0), (3, 3, 0, 0), (3, 2, 1, 0), (3, 2, 0, 2), (3, 2, 0, -1)):
        places = ints(ends), ints(lengths), ints(row), ints(column)
        refused("expected", _core.fill_rows, items, *places, weight, grid, weights)
        soft = np.ones((5, 2), np.int32), np.ones((5, 2), np.float32), 0.5, np.zeros((2, lengths))
        refused("expected", _core.soften_rows, *soft, *places, grid[1])
    points, home, ids = np.zeros((2, 2)), np.zeros(2, np.int32), np.zeros(1, np.int32)
    one = ints(0), np.zeros(1), points, home, points[:1], ints(0, 1), ids, 1.0
    assert _core.draw_genres(*one).tolist() == [0]
    for at, wrong in ((0, ints(2)), (3, home + 1), (5, ints(0, 2)), (5, ints(0, 0)), (6, ids + 1)):
        refused("expected", _core.draw_genres, *one[:at], wrong, *one[at + 1 :])
    rows, what = np.zeros(4, np.int32), np.ones(1, np.int32)
    refused("users: expected", _core.find_repeats, ints(2), what, 0, rows, ints(0, 2, 4))
    refused("step: expected a place in the row of user 1", _core.find_repeats, ints(1), what, 2, rows, ints(0, 2, 4))
    refused("step: expected", _core.find_repeats, ints(0), what, 1, rows, ints(0, 9))

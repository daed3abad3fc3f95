"""Rows of different lengths against lists of lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir.data import Ragged
from rsir.errors import DataError

ROWS = st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=8)


def lists_of(ragged: Ragged) -> list[list[int]]:
    return [ragged[row].tolist() for row in range(len(ragged))]


@given(ROWS, st.data())
def test_rows_parts_and_windows_are_those_of_lists(rows, data):
    ragged = Ragged.from_lists(rows)
    assert lists_of(ragged) == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert (ragged.values.dtype, ragged.offsets.dtype) == (np.int32, np.int64)
    assert rows == [] or ragged[-1].tolist() == rows[-1]
    first = data.draw(st.integers(0, len(rows)))
    last = data.draw(st.integers(first, len(rows)))
    assert lists_of(ragged.rows(first, last)) == rows[first:last]
    assert lists_of(ragged.where(ragged.values > 4)) == [[value for value in row if value > 4] for row in rows]
    picked = np.array([row for row in data.draw(st.permutations(range(len(rows)))) if rows[row]], np.int64)
    lengths = ragged.lengths[picked] - 1
    assert lists_of(Ragged.windows(ragged.values, ragged.offsets[picked] + 1, lengths)) == [rows[r][1:] for r in picked]


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 1]])
def test_offsets_that_are_not_those_of_the_values_are_refused(offsets):
    with pytest.raises(DataError, match="offsets: expected to go from 0 to the number of values, 2, got"):
        Ragged(np.array([3, 4]), np.array(offsets, np.int64))

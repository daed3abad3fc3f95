"""Compiled loops behind :mod:`rsir.data.batches`; imported when the first batch is built, for numba takes a while."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsir.runtime.jit import compiled

__all__ = ["assign", "fill"]

Int64Array = npt.NDArray[np.int64]


@compiled(nogil=True)
def assign(lengths: Int64Array, width: int) -> tuple[Int64Array, Int64Array, int]:
    """Best-fit decreasing: give each sequence a row of the given width with room for it.

    Parameters
    ----------
    lengths : (n,) int64
        In 1..width.
    width : int

    Returns
    -------
    row, column : (n,) int64
        Where each sequence starts.
    rows : int
        Number of rows used.
    """
    n = lengths.size
    # Sequences in order of falling length, the first one first among equals (a counting sort).
    start = np.zeros(width + 2, np.int64)
    for length in lengths:
        start[width - length + 1] += 1
    for length in range(width + 1):
        start[length + 1] += start[length]
    order = np.empty(n, np.int64)
    for i in range(n):
        place = width - lengths[i]
        order[start[place]] = i
        start[place] += 1
    # Rows with equal room form a stack: head[room] is its top, below[row] what lies under a row.
    head = np.full(width + 1, -1, np.int64)
    below = np.empty(n, np.int64)
    row = np.empty(n, np.int64)
    column = np.empty(n, np.int64)
    rows = 0
    for j in range(n):
        i = order[j]
        length = lengths[i]
        room = length
        while room <= width and head[room] < 0:
            room += 1
        if room > width:
            room = width
            row[i] = rows
            rows += 1
        else:
            row[i] = head[room]
            head[room] = below[row[i]]
        column[i] = width - room
        below[row[i]] = head[room - length]
        head[room - length] = row[i]
    return row, column, rows


@compiled(nogil=True)
def fill(
    items: npt.NDArray[np.int32],
    ends: Int64Array,
    lengths: Int64Array,
    row: Int64Array,
    column: Int64Array,
    weight: npt.NDArray[np.float32],
    grid: Int64Array,
    weights: npt.NDArray[np.float32],
) -> None:
    """Write packed sequences.

    Parameters
    ----------
    items : (nnz,) int32
    ends, lengths, row, column : (n,) int64
        Sequence i has ``lengths[i]`` inputs, ``items[ends[i] - 1 - lengths[i] : ends[i] - 1]``; the target of each is
        the item after it.
    weight : (n,) float32
    grid : (4, rows, width) int64, zeros
        Written: inputs, targets, positions, segments (counted from 1 in each row).
    weights : (rows, width) float32, zeros
        Written.
    """
    segments = np.zeros(grid.shape[1], np.int64)
    for i in range(ends.size):
        r = row[i]
        segments[r] += 1
        first = ends[i] - 1 - lengths[i]
        for j in range(lengths[i]):
            c = column[i] + j
            grid[0, r, c] = items[first + j]
            grid[1, r, c] = items[first + j + 1]
            grid[2, r, c] = j
            grid[3, r, c] = segments[r]
            weights[r, c] = weight[i]


@compiled(nogil=True)
def soften(
    ids: npt.NDArray[np.int32],
    cumulative: npt.NDArray[np.float32],
    share: float,
    numbers: npt.NDArray[np.float64],
    ends: Int64Array,
    lengths: Int64Array,
    row: Int64Array,
    column: Int64Array,
    targets: Int64Array,
) -> None:
    """Replace a share of packed targets by draws from their soft targets.

    Parameters
    ----------
    ids, cumulative, share
        See :class:`rsir.data.batches.SoftTargets`.
    numbers : (2, sum of lengths) float64
        In [0, 1): for each target whether it is replaced, and by what.
    ends, lengths, row, column
        As for :func:`fill`.
    targets : (rows, width) int64
        Changed in place.
    """
    at = 0
    for i in range(ends.size):
        first = ends[i] - lengths[i]  # of the interactions that are targets
        for j in range(lengths[i]):
            interaction = first + j
            if numbers[0, at] < share and ids[interaction, 0] > 0:
                place = 0
                while place + 1 < ids.shape[1] and cumulative[interaction, place] <= numbers[1, at]:
                    place += 1
                while ids[interaction, place] == 0:
                    place -= 1
                targets[row[i], column[i] + j] = ids[interaction, place]
            at += 1

"""Training batches: sequences laid one after the other into rows, by the compiled core."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsir.runtime.core import _core

__all__ = ["assign", "fill", "soften"]

Int64Array = npt.NDArray[np.int64]


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
    return _core.assign_rows(lengths, width)


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
    _core.fill_rows(items, ends, lengths, row, column, weight, grid, weights)


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
    _core.soften_rows(ids, cumulative, share, numbers, ends, lengths, row, column, targets)

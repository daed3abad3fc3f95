"""Loops of :mod:`rsir.data.simulate`, by the compiled core."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsir.runtime.core import _core

__all__ = ["draw_genres", "find_repeats", "near"]

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def near(points: FloatArray, reach: float) -> tuple[Int64Array, Int32Array]:
    """Of each point (G, 2) on the torus those within reach of it, in ascending order.

    Parameters
    ----------
    points : (G, 2) float64
        Angles.
    reach : float
        Upper bound of ``2 - cos(difference of the first angles) - cos(difference of the second)``.

    Returns
    -------
    offsets : (G + 1,) int64
    ids : (nnz,) int32
    """
    return _core.near_points(points, reach)


def draw_genres(
    users: Int64Array,
    uniform: FloatArray,
    points: FloatArray,
    home: Int32Array,
    centres: FloatArray,
    offsets: Int64Array,
    ids: Int32Array,
    concentration: float,
) -> Int64Array:
    """A genre for each of some users, by their taste.

    Parameters
    ----------
    users : (n,) int64
    uniform : (n,) float64
        In [0, 1).
    points : (U, 2) float64
    home : (U,) int32
        A genre close to each user.
    centres : (G, 2) float64
    offsets, ids
        Items of each genre that are close enough to it to count (:func:`near`).
    concentration : float
    """
    return _core.draw_genres(users, uniform, points, home, centres, offsets, ids, concentration)


def find_repeats(
    users: Int64Array, drawn: Int32Array, step: int, items: Int32Array, offsets: Int64Array
) -> npt.NDArray[np.bool_]:
    """Write an item for each of some users at place `step` of their row; -> whether they have had it before.

    Parameters
    ----------
    users : (n,) int64
    drawn : (n,) int32
    step : int
    items : (nnz,) int32
        Written.
    offsets : (U + 1,) int64
    """
    return _core.find_repeats(users, drawn, step, items, offsets)

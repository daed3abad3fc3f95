"""Compiled loops behind :mod:`rsir.data.simulate`; imported when something is simulated, for numba takes a while."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rsir.runtime.jit import compiled

__all__ = ["draw_genres", "find_repeats", "near"]

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@compiled()
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
    n = len(points)
    offsets = np.zeros(n + 1, np.int64)
    ids = np.empty(0, np.int32)
    for counting in (True, False):
        at = 0
        for i in range(n):
            for j in range(n):
                apart = 2 - math.cos(points[i, 0] - points[j, 0]) - math.cos(points[i, 1] - points[j, 1])
                if apart <= reach:
                    if not counting:
                        ids[at] = j
                    at += 1
            offsets[i + 1] = at
        if counting:
            ids = np.empty(at, np.int32)
    return offsets, ids


@compiled()
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
    out = np.empty(users.size, np.int64)
    running = np.empty(np.max(offsets[1:] - offsets[:-1]), np.float64)
    cosine, sine = np.cos(centres), np.sin(centres)
    for i in range(users.size):
        user = users[i]
        first, last = offsets[home[user]], offsets[home[user] + 1]
        total, (a, b) = 0.0, points[user]
        cos_a, sin_a, cos_b, sin_b = math.cos(a), math.sin(a), math.cos(b), math.sin(b)
        for j in range(first, last):
            centre = ids[j]
            close = cosine[centre, 0] * cos_a + sine[centre, 0] * sin_a  # the cosine of the difference
            close += cosine[centre, 1] * cos_b + sine[centre, 1] * sin_b
            total += math.exp(concentration * close)
            running[j - first] = total
        place = 0
        while place < last - first - 1 and running[place] <= uniform[i] * total:
            place += 1
        out[i] = ids[first + place]
    return out


@compiled()
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
    repeated = np.zeros(users.size, np.bool_)
    for i in range(users.size):
        first = offsets[users[i]]
        items[first + step] = drawn[i]
        for j in range(first, first + step):
            if items[j] == drawn[i]:
                repeated[i] = True
                break
    return repeated

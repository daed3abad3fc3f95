"""Times of generated sequences, by one convention: a place of a sequence has its time, whatever item stands there.

The item at place p of a trajectory has the time of the event at place p of the real sequence that it started from.
Beyond the end of that sequence events go on at its mean gap, as far as int64 reaches. So a trajectory's times depend on
its source and its length alone, and are known before its items are drawn.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rsir.data.ragged import Int64Array
from rsir.data.sequences import Sequences, ragged_indices
from rsir.models.times import uses_times

__all__ = ["are_timed", "times_at", "with_times"]


def are_timed(model: object, sources: Sequences) -> bool:
    """Whether what a model generates from some rows has times: it uses them, and the real sequences have some."""
    return uses_times(model) and sources.times is not None and sources.num_real > 0


def times_at(sources: Sequences, row: npt.NDArray[np.int64], place: npt.NDArray[np.int64]) -> Int64Array:
    """The time of places in sequences that start from rows of ``sources``, which have times.

    Parameters
    ----------
    sources : Sequences
        A generated row stands for the real one that it came from, which must be there.
    row, place : int64
        Of shapes that broadcast; places count from 0.
    """
    assert sources.times is not None
    real = sources.source[row]
    first, last = sources.offsets[real], sources.offsets[real + 1] - 1
    begin, end = sources.times[first], sources.times[last]
    gap = np.maximum((end - begin) // np.maximum(last - first, 1), 0)  # a difference beyond int64 comes out negative
    room = np.iinfo(np.int64).max - np.maximum(end, 0)
    beyond = np.minimum(np.maximum(place - (last - first), 0), room // np.maximum(gap, 1))
    times: Int64Array = sources.times[np.minimum(first + place, last)] + beyond * gap
    return times


def with_times(trajectories: Sequences, sources: Sequences) -> Sequences:
    """Generated sequences with the times that their places have; ``sources`` hold the real ones they started from."""
    lengths = trajectories.lengths
    place = ragged_indices(np.zeros_like(lengths), lengths)
    return replace(trajectories, times=times_at(sources, np.repeat(trajectories.source, lengths), place))

"""Acquisition: which verified trajectories enter the next training set."""

from __future__ import annotations

import numpy as np

from .config import AcquisitionConfig
from .data.sequences import Sequences
from .philox import Stream, counters, uniform

__all__ = ["acquire"]


def acquire(trajectories: Sequences, config: AcquisitionConfig, *, seed: int, round_: int) -> Sequences:
    """Choose among verified trajectories.

    Parameters
    ----------
    trajectories : Sequences
        Generated rows in order of source.
    config : AcquisitionConfig
        "all" keeps everything (RSIR); "capped" keeps at most ``cap`` of each source, drawn at random.
    seed : int
        Of the run.
    round_ : int
        The round they were generated for.

    Returns
    -------
    Sequences
        Some of the rows, in their order.
    """
    if config.policy == "all":
        return trajectories
    number = _number_within(trajectories.source)
    words = counters(Stream.ACQUISITION, round_, trajectories.source, number, np.zeros_like(number))
    shuffled = np.lexsort((uniform(seed, words), trajectories.source))
    chosen = shuffled[_number_within(trajectories.source[shuffled]) < config.cap]
    return trajectories.select(np.sort(chosen))


def _number_within(sorted_groups: np.ndarray) -> np.ndarray:
    """Place of each entry within its run of equal values: [7, 7, 9] -> [0, 1, 0]."""
    n = np.arange(len(sorted_groups))
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1) != 0)
    return n - np.repeat(starts, np.diff(np.append(starts, len(n))))

"""Acquisition: which verified trajectories enter the next training set."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from rsir.config import AcquisitionConfig
from rsir.config.registry import Registry
from rsir.data.sequences import Sequences, ragged_indices
from rsir.generation.disagreement import disagreement
from rsir.models.protocol import Backbone
from rsir.runtime import memory
from rsir.runtime.philox import Stream, counters, uniform
from rsir.runtime.runtime import RUNTIME, Runtime

__all__ = ["POLICIES", "Policy", "acquire", "novel_share", "register"]


class Policy(Protocol):
    """What is registered: a function that chooses among verified trajectories; its arguments are :func:`acquire`'s."""

    def __call__(
        self,
        trajectories: Sequences,
        config: AcquisitionConfig,
        model: Backbone,
        *,
        seed: int,
        round_: int,
        runtime: Runtime,
    ) -> Sequences: ...


POLICIES: Registry[Policy] = Registry("acquisition.policy")
"""Every acquisition policy by name."""

register = POLICIES.register
"""Decorator: make a policy known by a name, which ``acquisition.policy`` may then have. See :class:`Policy`."""


def acquire(
    trajectories: Sequences,
    config: AcquisitionConfig,
    model: Backbone,
    *,
    seed: int,
    round_: int,
    runtime: Runtime = RUNTIME,
) -> Sequences:
    """Choose among verified trajectories.

    Parameters
    ----------
    trajectories : Sequences
        Generated rows.
    config : AcquisitionConfig
        Names a registered policy: "all" keeps everything (RSIR); "capped" keeps at most ``cap`` of each source, drawn
        at random; "disagreement" orders those of a source by :mod:`rsir.generation.disagreement`, cuts them into
        ``cap`` strata of like size and draws one from each (DA-RSIR, arXiv 2610.04302).
    model : Backbone
        The generator; asked only by "disagreement".
    seed : int
        Seed of the run.
    round_ : int
        The round they were generated for.
    runtime : Runtime, optional
        The processes that call this together and divide what there is to compute.

    Returns
    -------
    Sequences
        Some of the rows, in their order.

    Raises
    ------
    ConfigError
        No policy of that name (the message lists those known).
    BackboneError
        A model without dropout, for "disagreement".
    """
    return POLICIES[config.policy](trajectories, config, model, seed=seed, round_=round_, runtime=runtime)


@register("all")
def _all(
    trajectories: Sequences, config: AcquisitionConfig, model: Backbone, *, seed: int, round_: int, runtime: Runtime
) -> Sequences:
    return trajectories


@register("capped")
def _capped(
    trajectories: Sequences, config: AcquisitionConfig, model: Backbone, *, seed: int, round_: int, runtime: Runtime
) -> Sequences:
    chosen = _first(config.cap, _drawn(trajectories, seed, round_), trajectories.source)
    return trajectories.select(np.sort(chosen))


@register("disagreement")
def _disagreement(
    trajectories: Sequences, config: AcquisitionConfig, model: Backbone, *, seed: int, round_: int, runtime: Runtime
) -> Sequences:
    # The dropout of a round must not repeat that of another.
    scores = disagreement(model, trajectories, passes=config.passes, seed=seed ^ round_ << 40, runtime=runtime)
    strata = trajectories.source * config.cap + _strata(scores, trajectories.source, config.cap)
    return trajectories.select(np.sort(_first(1, _drawn(trajectories, seed, round_), strata)))


def _drawn(trajectories: Sequences, seed: int, round_: int) -> npt.NDArray[np.float64]:
    """(n,): a random number in [0, 1) for each trajectory, keyed by its source and its number there."""
    source = trajectories.source
    number = _places(np.argsort(source, kind="stable"), source)
    return uniform(seed, counters(Stream.ACQUISITION, round_, source, number, np.zeros_like(number)))


def novel_share(trajectories: Sequences, real: Sequences) -> float:
    """Share of the trajectories' items that their user's real sequence does not hold."""
    if not len(trajectories):
        return float("nan")
    catalogue, novel = real.num_items + 1, 0
    by_source = np.argsort(trajectories.source, kind="stable")
    sources = trajectories.source[by_source]
    for rows in memory.row_blocks(real.offsets):
        own = _keys(real, np.arange(rows.start, rows.stop), np.arange(rows.start, rows.stop), catalogue)
        first, last = np.searchsorted(sources, [rows.start, rows.stop])
        generated = _keys(trajectories, by_source[first:last], sources[first:last], catalogue)
        novel += int(np.count_nonzero(np.isin(generated, own, invert=True)))
    return novel / trajectories.num_interactions


def _keys(
    data: Sequences, rows: npt.NDArray[np.int64], source: npt.NDArray[np.int64], catalogue: int
) -> npt.NDArray[np.int64]:
    """A number for each item of some rows, the same for equal items of one source."""
    starts = data.offsets[rows]
    lengths = data.offsets[rows + 1] - starts
    keys: npt.NDArray[np.int64] = np.repeat(source, lengths) * catalogue + data.items[ragged_indices(starts, lengths)]
    return keys


def _first(count: int, keys: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of the entries with the lowest keys of each group, at most ``count`` a group."""
    ordered = np.lexsort((keys, groups))
    return ordered[_number_within(groups[ordered]) < count]


def _strata(scores: npt.NDArray[np.float64], source: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Stratum of each entry, 0 for the lowest scores of its source; a source of n <= count entries fills n strata."""
    place = _places(np.lexsort((scores, source)), source)
    _, inverse, sizes = np.unique(source, return_inverse=True, return_counts=True)
    return place * count // sizes[inverse]


def _places(order: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each entry within its group, in an order that has the groups one after the other."""
    places = np.empty_like(order)
    places[order] = _number_within(groups[order])
    return places


def _number_within(sorted_groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each entry within its run of equal values: [7, 7, 9] -> [0, 1, 0]."""
    n = np.arange(len(sorted_groups))
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1) != 0)
    return n - np.repeat(starts, np.diff(np.append(starts, len(n))))

"""A short search of the item-kNN's parameters, on validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rsir.config import ItemKnnConfig
from rsir.data.sequences import Sequences, ragged_indices
from rsir.data.splits import EvaluationSet
from rsir.evaluation import CUTOFFS, Evaluation
from rsir.metrics import CRITERION
from rsir.models.itemknn import ItemKnn
from rsir.runtime.interrupts import check

__all__ = ["GRID", "searched"]

GRID: dict[str, tuple[float, ...]] = {
    "age_decay": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "item_exponent": (0.0, 0.1, 0.2, 0.3, 0.4),
    "history_exponent": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6),
    "decay": (0.5, 0.7, 0.8, 0.9, 0.95, 1.0),
    "backward": (0.0, 0.15, 0.3, 0.5, 0.75, 1.0),
    "window": (5, 10, 20, 50),
}
"""What is tried of each parameter, in this order."""

_SWEEPS = 2
_TASKS = 10_000  # validation tasks at most, which bounds the time
_LISTED = 50  # scored items a history, enough for the first 20


def searched(
    config: ItemKnnConfig, train: Sequences, validation: EvaluationSet, threads: int | None = None
) -> ItemKnnConfig:
    """The parameters with the best validation NDCG@20 of the count alone, of those that are none in `config`.

    One parameter is changed at a time, from the fixed values on: :data:`GRID` is gone through twice at most. A value
    that is no better than the one before is not taken.

    Parameters
    ----------
    config : ItemKnnConfig
    train : Sequences
        What is counted.
    validation : EvaluationSet
        Of more than 10,000 tasks so many are taken, evenly spaced.
    threads : int, optional
        Default: torch's number. The result is the same for any.

    Returns
    -------
    ItemKnnConfig
        With every parameter.
    """
    trials = _Trials(train, validation, threads)
    best = config.filled()
    for _ in range(_SWEEPS):
        before = best
        for name in GRID:
            if getattr(config, name) is None:
                values = [best.filled(best.parameters() | {name: each}) for each in GRID[name]]
                best = max([best, *values], key=trials.value)  # the first of equals
        if best == before:
            break
    return best


class _Trials:
    """Validation NDCG@20 by configuration, each counted once."""

    def __init__(self, train: Sequences, validation: EvaluationSet, threads: int | None) -> None:
        self._train, self._validation, self._threads = train, validation, threads
        tasks = min(len(validation), _TASKS)
        self._picked = np.arange(tasks) * len(validation) // tasks
        self._known: dict[ItemKnnConfig, float] = {}
        self._counted: ItemKnn | None = None

    def value(self, config: ItemKnnConfig) -> float:
        if config not in self._known:
            check()
            ranks = _ranks(self._count(config), self._validation, self._picked, self._threads)
            self._known[config] = float(Evaluation({}, ranks).gains(CRITERION).mean())
        return self._known[config]

    def _count(self, config: ItemKnnConfig) -> ItemKnn:
        before = self._counted  # whose counts are the same where age_decay alone differs
        if before is not None and replace(before.config, age_decay=config.age_decay) == config:
            return ItemKnn(before.lists, config)
        self._counted = ItemKnn.fit(self._train, config, threads=self._threads)
        return self._counted


def _ranks(
    knn: ItemKnn, tasks: EvaluationSet, picked: npt.NDArray[np.int64], threads: int | None
) -> npt.NDArray[np.int64]:
    """(n,) place of the target of each picked task among the items that the count lists, from 1; 0 beyond the last
    cutoff, or not listed.

    As :func:`rsir.evaluation.evaluate` finds them but for the rounding of nearly equal scores, and for a target that is
    not listed: that may place it by its id, behind a list of fewer than 20 items.
    """
    histories, targets, excluded = tasks.histories, tasks.targets[picked], tasks.repeats == "excluded"
    begins, ends = histories.offsets[picked], histories.offsets[picked + 1]
    most = None if tasks.repeats == "targets" else _LISTED
    found = knn.shares_between(histories.values, begins, ends, most=most, without_own=excluded, threads=threads)
    row = np.repeat(np.arange(len(picked)), np.diff(found.offsets))
    value = np.zeros(len(picked), found.values.dtype)
    hit = found.ids == targets[row]
    value[row[hit]] = found.values[hit]
    above = (found.values > value[row]) | ((found.values == value[row]) & (found.ids < targets[row]))
    if tasks.repeats == "targets":  # of the history the target alone is ranked
        size, lengths = knn.num_items + 1, ends - begins
        own = np.repeat(np.arange(len(picked)), lengths) * size + histories.values[ragged_indices(begins, lengths)]
        above &= ~np.isin(row * size + found.ids, own)
    ranks = 1 + np.bincount(row[above], minlength=len(picked))
    listed = np.bincount(row[hit], minlength=len(picked)) > 0
    return np.where(listed & (ranks <= max(CUTOFFS)), ranks, 0).astype(np.int64)

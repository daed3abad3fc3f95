"""Each new round held against round 0 and against the best round before it, user by user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rsir.evaluation import Evaluation, difference_beyond_seeds, mean_interval
from rsir.metrics import CRITERION, HEADLINE
from rsir.runs.rounds import RoundResult, best_round

__all__ = ["Comparison"]


class Comparison:
    """The gains of round 0 and of the best round so far, that each new round is held against.

    Parameters
    ----------
    evaluate : callable
        Takes the number of a finished round and "validation" or "test"; for rounds that were not made in this process.
    noise : float
        ``RecursionConfig.guard_noise``.
    """

    def __init__(self, evaluate: Callable[[int, str], Evaluation], noise: float) -> None:
        self._evaluate, self._noise = evaluate, noise
        self._best: Any = None  # (n,) float64, on validation
        self._base: dict[str, np.ndarray] = {}  # (n,) float64 by part and metric

    def add(self, before: Sequence[RoundResult], found: Mapping[str, Evaluation]) -> dict[str, Any]:
        """How a round compares with those before it, as the fields of its :class:`RoundResult`.

        Parameters
        ----------
        before : sequence of RoundResult
            All rounds before it.
        found : mapping
            Its evaluations on "validation" and "test".
        """
        gains = {f"{part}/{metric}": found[part].gains(metric) for part, metric in HEADLINE}
        if not before:
            self._best, self._base = gains[f"validation/{CRITERION}"], gains
            return {"against_best": {}, "against_base": {}}
        return {
            "against_best": self._with_best(best_round(list(before)), gains[f"validation/{CRITERION}"]),
            "against_base": self._with_base(gains),
        }

    def _with_best(self, best: int, gains: np.ndarray) -> dict[str, float]:
        """The difference from the best round before, whose place the new one takes if it is better."""
        if self._best is None:  # read back, or taken over
            self._best = self._evaluate(best, "validation").gains(CRITERION)
        difference, low, high = difference_beyond_seeds(self._best, gains, self._noise)
        if gains.mean() > self._best.mean():
            self._best = gains
        bounds = {"low": low, "high": high} if len(gains) > 1 else {}  # of one user's gain there is no interval
        return {"round": best, "difference": difference, **bounds}

    def _with_base(self, gains: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
        """The differences from round 0."""
        if not self._base:  # read back, or taken over
            found = {part: self._evaluate(0, part) for part in ("validation", "test")}
            self._base = {f"{part}/{metric}": found[part].gains(metric) for part, metric in HEADLINE}
        return {name: list(mean_interval(gains[name] - base)) for name, base in self._base.items() if len(base) > 1}

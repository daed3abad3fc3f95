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
    evaluate, evaluate_network : callable
        Of what a round recommends with, and of its network alone. Take the number of a finished round and "validation"
        or "test"; for rounds that were not made in this process.
    noise : float
        ``RecursionConfig.guard_noise``.
    """

    def __init__(
        self,
        evaluate: Callable[[int, str], Evaluation],
        evaluate_network: Callable[[int, str], Evaluation],
        noise: float,
    ) -> None:
        self._evaluate, self._evaluate_network, self._noise = evaluate, evaluate_network, noise
        self._best: Any = None  # (n,) float64, on validation
        self._base: dict[str, np.ndarray] = {}  # (n,) float64 by part and metric
        self._network: dict[str, np.ndarray] = {}  # the same of the network alone

    def add(
        self, before: Sequence[RoundResult], found: Mapping[str, Evaluation], alone: Mapping[str, Evaluation]
    ) -> dict[str, Any]:
        """How a round compares with those before it, as the fields of its :class:`RoundResult`.

        Parameters
        ----------
        before : sequence of RoundResult
            All rounds before it.
        found, alone : mapping
            Evaluations on "validation" and "test" of what it recommends with, and of its network alone.
        """
        gains, network = _gains(found), _gains(alone)
        if not before:
            self._best, self._base, self._network = gains[f"validation/{CRITERION}"], gains, network
            return {"against_best": {}, "against_base": {}, "alone_against_base": {}}
        self._base = self._base or _gains({part: self._evaluate(0, part) for part in found})
        self._network = self._network or _gains({part: self._evaluate_network(0, part) for part in found})
        return {
            "against_best": self._with_best(best_round(list(before)), gains[f"validation/{CRITERION}"]),
            "against_base": _differences(self._base, gains),
            "alone_against_base": _differences(self._network, network),
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


def _gains(found: Mapping[str, Evaluation]) -> dict[str, np.ndarray]:
    """(n,) float64 by part and metric."""
    return {f"{part}/{metric}": found[part].gains(metric) for part, metric in HEADLINE}


def _differences(base: Mapping[str, np.ndarray], gains: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """By part and metric [difference, low, high]; of one user's gain there is no interval."""
    return {name: list(mean_interval(gains[name] - before)) for name, before in base.items() if len(before) > 1}

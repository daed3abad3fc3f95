"""The models of a run by round, and which of them recommend together (retention, arXiv 2610.07105)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rsir.data.ragged import Ragged
from rsir.errors import DataError
from rsir.evaluation import recommend
from rsir.models.ensemble import Ensemble
from rsir.models.protocol import Backbone
from rsir.runs.rounds import voters
from rsir.runs.store import RunStore

__all__ = ["Lineage", "overlap", "separation"]

TOP = 20


class Lineage:
    """The models of a run by round.

    Parameters
    ----------
    store : RunStore
        Where models are read back from.
    retention : str
        ``RecursionConfig.retention``.
    device : str
        Where models that are read back are put.

    Attributes
    ----------
    newest : Backbone or None
        The model of the newest round; None before there is one.
    """

    def __init__(self, store: RunStore, retention: str, device: str) -> None:
        self.newest: Any = None
        self._store, self._retention, self._device = store, retention, device
        self._models: dict[int, Any] = {}  # those that recommend after the newest round, oldest first

    def append(self, round_: int, model: Any) -> None:
        """Make a round's model the newest."""
        self.newest = model
        kept = voters(self._retention, round_)
        self._models = {number: one for number, one in self._models.items() if number in kept} | {round_: model}

    def read_back(self, last: int) -> None:
        """Take over a stored run's models, as far as they are needed after its last finished round."""
        for round_ in voters(self._retention, last):
            self.append(round_, self._store.load_model(round_, self._device))

    def recommender(self, round_: int | None = None) -> Any:
        """What a round recommends with, its model or the ensemble that retention makes of it, read from the store;
        default: the newest round, from memory."""
        if round_ is None:
            return _together(list(self._models.values()))
        return _together([self._store.load_model(one, self._device) for one in voters(self._retention, round_)])


def _together(models: list[Any]) -> Any:
    return Ensemble(models) if len(models) > 1 else models[0]


def overlap(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    """Mean share of one model's recommendations that the other makes, too.

    Parameters
    ----------
    first, second : (n, k) int64
        Item ids for the same n histories; 0 where the catalogue ran out.
    """
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise DataError(f"expected two (n, k) arrays of the same histories, got {first.shape} and {second.shape}")
    both = ((first[:, :, None] == second[:, None, :]) & (first[:, :, None] > 0)).any(2).sum(1)
    return float((both / np.maximum((first > 0).sum(1), 1)).mean())


def separation(
    older: tuple[Backbone, Backbone],
    newer: tuple[Backbone, Backbone],
    histories: Ragged,
) -> float:
    """Sep20 of arXiv 2610.07105: how much two generations differ beyond what two seeds of one generation do.

    The mean overlap of the top 20 within a generation, less that across generations. Above 0, a pair across
    generations brings the more diverse votes; otherwise a pair of seeds of the newest generation does as well. No
    label is looked at.

    Parameters
    ----------
    older, newer : pair of Backbone
        Two seeds of each generation.
    histories : Ragged
        To recommend for: item ids, oldest first.
    """
    tops = [recommend(model, histories, TOP).ids.cpu().numpy() for model in (*older, *newer)]
    within = (overlap(tops[0], tops[1]) + overlap(tops[2], tops[3])) / 2
    across = np.mean([overlap(a, b) for a in tops[:2] for b in tops[2:]])
    return float(within - across)

"""The models of a run by round, and which of them recommend together (retention, arXiv 2610.07105)."""

from __future__ import annotations

from typing import Any

from rsir.models.ensemble import Ensemble
from rsir.runs.rounds import voters
from rsir.runs.store import RunStore

__all__ = ["Lineage"]


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

"""The item-kNN in a run: the one that is measured, and the one that votes beside the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from rsir.config import RecursionConfig
from rsir.data.io.items import ItemVectors
from rsir.data.splits import Split
from rsir.models import ItemKnn, pack_items
from rsir.models.itemknn import with_vote
from rsir.runs.rounds import RoundResult
from rsir.runtime.runtime import Runtime
from rsir.training.voting import best_vote

__all__ = ["Counts"]


class Counts:
    """What votes beside the networks of each round, and with which weight.

    Parameters
    ----------
    config : RecursionConfig
    parts : Split
    measured : ItemKnn, optional
        The one that the run is measured beside, from :func:`rsir.recursion.baselines.counted`.
    items : ItemVectors, optional
    results : sequence of RoundResult
        Of the rounds that are finished, in a list that grows.
    runtime : Runtime
    """

    def __init__(
        self,
        config: RecursionConfig,
        parts: Split,
        measured: ItemKnn | None,
        items: ItemVectors | None,
        results: Sequence[RoundResult],
        runtime: Runtime,
    ) -> None:
        self.measured = measured
        self._config, self._parts, self._items, self._results, self._runtime = config, parts, items, results, runtime

    def choose(self, networks: Any) -> tuple[ItemKnn | None, float]:
        """What votes beside a new round's networks: the base chooses which, every round its weight."""
        if self.measured is None or self._config.itemknn.vote == "off":
            return None, 0.0
        return self._best(networks, [self._voter] if self._results else [self._fixed, self.measured])

    def beside(self, networks: Any, round_: int) -> Any:
        """Networks with the vote of a finished round."""
        vote = self._results[round_].vote
        return with_vote(networks, self._voter, vote) if vote else networks

    def beside_generator(self, networks: Any) -> Any:
        """Networks with a vote for what generates, also where none recommends."""
        if self._config.itemknn.vote == "auto":
            return self.beside(networks, -1)
        return with_vote(networks, *self._best(networks, [self.measured]))

    @cached_property
    def _voter(self) -> ItemKnn | None:
        """What the base has chosen."""
        chosen, measured = self._results[0].itemknn, self.measured
        if not chosen or measured is None or chosen == measured.config.parameters():
            return measured
        return self._fixed if chosen == self._config.itemknn.parameters() else self._fit(chosen)

    @cached_property
    def _fixed(self) -> ItemKnn | None:
        """The item-kNN without what a search has found."""
        fixed = self._config.itemknn.parameters()
        if self.measured is None or self.measured.config.parameters() == fixed:
            return self.measured
        return self._fit(fixed)

    def _fit(self, parameters: Mapping[str, Any]) -> ItemKnn:
        config = self._config.itemknn.filled(parameters)
        return ItemKnn.fit(self._parts.train, config, items=self._items, threads=self._runtime.threads)

    def _best(self, networks: Any, counts: Sequence[ItemKnn | None]) -> tuple[ItemKnn, float]:
        table = pack_items(networks, dtype=self._config.item_table)
        different = [knn for knn in dict.fromkeys(counts) if knn is not None]
        return best_vote(networks, different, self._parts.validation, table=table, runtime=self._runtime)

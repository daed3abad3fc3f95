"""What the item-kNN says that was counted without one user: counted again for each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsir.config import ItemKnnConfig
from rsir.data import Sequences
from rsir.models.itemknn import ItemKnn

__all__ = ["Recounted"]


class Recounted:
    """Ranks by counts of all sequences but one."""

    def __init__(self, train: Sequences, config: ItemKnnConfig | None = None) -> None:
        self.train, self.config = train, config
        self.counts: dict[int, ItemKnn] = {}

    def rank(self, user: int, history: Sequence[int], targets: Sequence[int], tau: int) -> int:
        """That of the best target, at most tau + 1; scores that differ by a millionth are ties."""
        if user not in self.counts:
            others = [self.train[row] for row in range(len(self.train)) if row != user]
            rest = Sequences.from_lists(others, self.train.num_items)
            self.counts[user] = ItemKnn.fit(rest, self.config, backend="reference")
        own, scores = np.array(history, np.int32), np.zeros(self.train.num_items + 1)
        shares = self.counts[user].shares(own, np.array([0, len(own)]), without_own=True)
        scores[shares.ids] = shares.values
        best = max(scores[target] for target in targets)
        if best == 0:
            return tau + 1
        first = min(target for target in targets if scores[target] >= best * (1 - 1e-6))
        others = np.setdiff1d(np.arange(1, len(scores)), targets)
        above = scores[others] > best * (1 + 1e-6)
        ties = ~above & (scores[others] >= best * (1 - 1e-6)) & (others < first)
        return min(tau, int((above | ties).sum())) + 1

"""The item-kNN as its formulas say, in (N + 1)**2 doubles: the truth that ``rsir._core.ItemKnn`` is tested against."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rsir.models.cold_items import ColdItems, Lists

__all__ = ["ReferenceItemKnn", "reference_with_cold_items"]


class ReferenceItemKnn:
    """Every member is that of ``rsir._core.ItemKnn``."""

    def __init__(
        self, ids: npt.NDArray[np.int32], values: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]
    ) -> None:
        self.ids, self.values, self.offsets = ids, values, offsets
        self.num_items = len(offsets) - 2

    @staticmethod
    def fit(
        items: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        num_items: int,
        window: int,
        decay: float,
        backward: float,
        history_exponent: float,
        item_exponent: float,
        neighbours: int,
        threads: int,
    ) -> ReferenceItemKnn:
        follows = np.zeros((num_items + 1, num_items + 1))
        for begin, end in pairwise(offsets):
            follows += follows_of(items[begin:end], num_items, window, decay)
        counts = np.maximum(np.bincount(items, minlength=num_items + 1), 1).astype(np.float64)
        both = follows + backward * follows.T
        values = counts[:, None] ** -history_exponent * both * counts**-item_exponent
        return ReferenceItemKnn(*_listed(values, neighbours))

    def score(
        self,
        items: npt.NDArray[np.int32],
        begins: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        decay: float,
        newest: int,
        most: int,
        without_own: bool,
        threads: int,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        shares = np.zeros((len(begins), self.num_items + 1))
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            history = items[begin:end]
            for age, item in enumerate(history[::-1][:newest]):
                entries = slice(self.offsets[item], self.offsets[item + 1])
                shares[row, self.ids[entries]] += decay**age * self.values[entries].astype(np.float64)
            if without_own:
                shares[row, history] = 0
            shares[row] /= shares[row].sum() or 1
        return _listed(shares, most)

    def ranks_unseen(
        self,
        occurrences: npt.NDArray[np.int64],
        own: npt.NDArray[np.int32],
        own_offsets: npt.NDArray[np.int64],
        histories: npt.NDArray[np.int32],
        history_offsets: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int32],
        target_offsets: npt.NDArray[np.int64],
        window: int,
        decay: float,
        backward: float,
        history_exponent: float,
        item_exponent: float,
        age_decay: float,
        newest: int,
        tau: int,
        threads: int,
    ) -> npt.NDArray[np.int64]:
        listed = np.zeros((self.num_items + 1, self.num_items + 1))
        listed[np.repeat(np.arange(self.num_items + 1), np.diff(self.offsets)), self.ids] = self.values
        total = np.maximum(occurrences, 1).astype(np.float64)
        both = total[:, None] ** history_exponent * listed * total**item_exponent
        ranks = np.full(len(own_offsets) - 1, tau + 1)
        for row, ((a, b), (c, d), (e, f)) in enumerate(
            zip(pairwise(own_offsets), pairwise(history_offsets), pairwise(target_offsets), strict=True)
        ):
            follows = follows_of(own[a:b], self.num_items, window, decay)
            rest = both - follows - backward * follows.T
            rest[rest <= 1e-6 * both] = 0  # values are float32: that much is none
            left = occurrences - np.bincount(own[a:b], minlength=self.num_items + 1)
            weights = [np.where(left > 0, np.maximum(left, 1.0) ** -by, 0) for by in (history_exponent, item_exponent)]
            values = weights[0][:, None] * rest * weights[1]
            history = histories[c:d]
            scores = np.zeros(self.num_items + 1)
            for age, item in enumerate(history[::-1][:newest]):
                scores += age_decay**age * values[item]
            scores[history] = 0
            wanted = np.unique(targets[e:f])
            best = scores[wanted].max(initial=0)
            if best == 0:
                continue
            first = wanted[scores[wanted] >= best * (1 - 1e-6)].min()
            scores[wanted] = 0
            ties = (scores >= best * (1 - 1e-6)) & (np.arange(len(scores)) < first)
            ranks[row] = min(tau, int(((scores > best * (1 + 1e-6)) | ties).sum())) + 1
        return ranks


def reference_with_cold_items(lists: Lists, cold: ColdItems, most: int) -> Lists:
    """What :func:`rsir.models.cold_items.with_cold_items` says, by products of matrices."""
    ids, values, offsets = lists
    size = len(offsets) - 1
    listed = np.zeros((size, size))
    listed[np.repeat(np.arange(size), np.diff(offsets)), ids] = values
    counted_as = np.eye(size)
    for item, seen, weights in zip(cold.ids, cold.seen, cold.weights, strict=True):
        counted_as[item] = 0
        np.add.at(counted_as[item], seen[weights > 0], weights[weights > 0])
    return _listed(counted_as @ listed @ counted_as.T, most)


def follows_of(row: npt.NDArray[np.int32], num_items: int, window: int, decay: float) -> npt.NDArray[np.float64]:
    """(N + 1, N + 1): what a sequence counts for each pair of an item and one that comes after it."""
    follows = np.zeros((num_items + 1, num_items + 1))
    for first in range(len(row)):
        for second in range(first + 1, min(len(row), first + 1 + window)):
            follows[row[first], row[second]] += decay ** (second - first - 1)
    return follows


def _listed(
    values: npt.NDArray[np.float64], most: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Of each row the columns that are not 0, by ascending id, at most so many, the largest; ties: the lower id."""
    kept = [np.sort(np.lexsort((np.arange(len(row)), -row))[: min(most, np.count_nonzero(row))]) for row in values]
    offsets = np.concatenate([[0], np.cumsum([len(columns) for columns in kept])]).astype(np.int64)
    ids = np.concatenate([*kept, []]).astype(np.int32)
    found = np.concatenate([*(row[columns] for row, columns in zip(values, kept, strict=True)), []])
    return ids, found.astype(np.float32), offsets

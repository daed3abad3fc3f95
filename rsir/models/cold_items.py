"""Items without an event, which the item-kNN counts as the seen items whose vectors are nearest to theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rsir import ops
from rsir.data.io.items import ItemVectors
from rsir.data.sequences import offsets_of, ragged_indices

__all__ = ["ColdItems", "Lists", "cold_items", "held_at_most", "with_cold_items"]

Lists = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""ids and values (nnz,) and offsets (N + 2,): for each item 0..N those that go with it, by ascending id."""

_ENTRIES = 2**20  # products that are held at once, 80 bytes each
_QUERIES = 4096


@dataclass(frozen=True, eq=False)
class ColdItems:
    """Items without an event, and the seen ones that each is counted as.

    Attributes
    ----------
    ids : (n,) int64
        Ascending.
    seen : (n, k) int64
        The nearest first; 0 where there are fewer.
    weights : (n, k) float64
        A row's sum to 1, or all are 0.
    """

    ids: npt.NDArray[np.int64]
    seen: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]


def held_at_most(listed: int) -> int:
    """Bytes that :func:`with_cold_items` takes beside the lists it is given, where it lists this many items in all."""
    return 80 * _ENTRIES + 24 * listed


def cold_items(
    items: ItemVectors, occurrences: npt.NDArray[np.int64], most: int, *, threads: int | None = None
) -> ColdItems:
    """The nearest seen items of each item that has a vector and no event.

    Near is by the cosine of the vectors less the mean of the seen ones, in float32; among equals the lower id. A seen
    item weighs its cosine; those at a right angle or farther weigh nothing.

    Parameters
    ----------
    items : ItemVectors
    occurrences : (N + 1,) int64
        Events of each item.
    most : int
        Seen items a cold one, at least 1.
    threads : int, optional
        Default: torch's number.
    """
    cold, seen = (np.flatnonzero(items.has & which) for which in (occurrences == 0, occurrences > 0))
    if not (cold.size and seen.size and items.vectors.shape[1]):
        return ColdItems(cold[:0], np.zeros((0, 1), np.int64), np.zeros((0, 1)))
    middle = items.vectors[seen].mean(0, dtype=np.float64)
    table = ops.pack(torch.from_numpy(np.r_[np.zeros((1, len(middle)), np.float32), _directions(items, seen, middle)]))
    near = np.zeros((cold.size, min(most, seen.size)), np.int64)
    cosines = np.zeros(near.shape)
    for first in range(0, cold.size, _QUERIES):
        rows = slice(first, first + _QUERIES)
        queries = torch.from_numpy(_directions(items, cold[rows], middle))
        found = ops.topk(queries, table, near.shape[1], threads=threads)
        near[rows], cosines[rows] = found.ids.numpy(), found.logits.numpy()
    weights = np.maximum(cosines, 0)
    sums = weights.sum(1, keepdims=True)
    weights = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
    return ColdItems(cold, np.where(weights > 0, np.append(0, seen)[near], 0), weights)


def _directions(
    items: ItemVectors, ids: npt.NDArray[np.int64], middle: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    vectors = items.vectors[ids] - middle
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0).astype(np.float32)


def with_cold_items(lists: Lists, cold: ColdItems, most: int) -> Lists:
    """What goes with each item, the cold ones counted as their seen ones.

    With S[a, b] what is listed of seen items, and E[u, a] the weight of a seen item in a cold one (E[a, a] = 1 of the
    seen ones), it is E S E'.

    Parameters
    ----------
    lists : Lists
        Of all items; nothing is listed of the cold ones.
    cold : ColdItems
    most : int
        Items kept of each, those of the largest values; ties: the lower id.
    """
    rows, columns = np.nonzero(cold.weights)
    if not rows.size:
        return lists
    ids, values, offsets = lists
    size = len(offsets) - 1
    itself = np.setdiff1d(np.arange(size), cold.ids)
    one = np.r_[itself, cold.ids[rows]]
    other, weight = np.r_[itself, cold.seen[rows, columns]], np.r_[np.ones(itself.size), cold.weights[rows, columns]]
    by_row, by_column = _Rows.of(one, other, weight, size), _Rows.of(other, one, weight, size)
    entries = _Rows(ids.astype(np.int64), values.astype(np.float64), offsets)
    work = by_row.sums(entries.sums(by_column.lengths[entries.ids].astype(np.float64))[by_row.ids])
    found: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]] = []
    lengths = np.zeros(size, np.int64)
    first = 0
    filled = np.append(0, np.cumsum(work))
    while first < size:
        last = max(first + 1, int(np.searchsorted(filled, filled[first] + _ENTRIES, "right")) - 1)
        row, column, value = np.arange(first, last), np.arange(first, last), np.ones(last - first)
        for factor in (by_row, entries, by_column):
            row, column, value = factor.times(row, column, value)
        row, column, value = _kept(*_summed(row, column, value, size), most)
        lengths += np.bincount(row, minlength=size)
        found.append((column.astype(np.int32), value.astype(np.float32)))
        first = last
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found]), offsets_of(lengths)


@dataclass(frozen=True, eq=False)
class _Rows:
    """A sparse matrix by rows."""

    ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], values: npt.NDArray[np.float64], size: int
    ) -> _Rows:
        order = np.lexsort((columns, rows))
        return cls(columns[order], values[order], offsets_of(np.bincount(rows, minlength=size)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def sums(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sum over each row of values (nnz,) of its entries."""
        return np.diff(np.append(0.0, np.cumsum(values))[self.offsets])

    def times(
        self, row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], value: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Entries of another matrix times this one, one for each pair that meets."""
        lengths = self.lengths[column]
        places = ragged_indices(self.offsets[column], lengths)
        return np.repeat(row, lengths), self.ids[places], np.repeat(value, lengths) * self.values[places]


def _summed(
    row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], value: npt.NDArray[np.float64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Entries by ascending row and column, those of one place added up."""
    key = row * size + column
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    sums = np.add.reduceat(value[order], starts) if starts.size else value[:0]
    return key[starts] // size, key[starts] % size, sums


def _kept(
    row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], value: npt.NDArray[np.float64], most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Of each row the entries of the largest values; ties: the lower column."""
    if not row.size or np.bincount(row).max() <= most:
        return row, column, value
    order = np.lexsort((column, -value, row))
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    place = np.arange(row.size) - np.repeat(starts, np.diff(np.append(starts, row.size)))
    kept = np.sort(order[place < most])
    return row[kept], column[kept], value[kept]

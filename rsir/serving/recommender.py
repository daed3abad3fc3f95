"""Recommending by ids: a model, its packed items, and what is recommended to somebody of whom nothing is known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rsir import ops
from rsir.config import ItemKnnConfig
from rsir.config.values import shown
from rsir.data import Sequences
from rsir.data.io.events import Histories
from rsir.data.io.items import ItemVectors
from rsir.data.ragged import Ragged, Timed, offsets_of
from rsir.data.sequences import item_popularity
from rsir.data.splits import Repeats
from rsir.errors import DataError
from rsir.models.encoding import added_scores, encode_sequences
from rsir.models.itemknn import ItemKnn, WithItemKnn, network_of
from rsir.models.items import pack_items
from rsir.models.protocol import Backbone, require
from rsir.models.times import uses_times
from rsir.ops import ItemTable
from rsir.ops.types import SparseScores
from rsir.runtime.torch_state import plain_torch
from rsir.serving.names import Names

__all__ = ["EVERYTHING", "Best", "Offer", "Recommender", "Similarity"]

Similarity = Literal["vectors", "count"]

BLOCK = 8192
"""Histories scored at a time."""
_PLACES = 1 << 22  # of a block's answer: with a large k fewer histories are scored at a time
_LISTED = 1 << 18  # excluded items of a block that are listed for each of its rows; of more, the others are packed
_KEPT = 8  # tables of candidates


@dataclass(frozen=True, eq=False)
class Offer:
    """What of the catalogue may be recommended; made by :meth:`Recommender.offer`.

    Attributes
    ----------
    candidates : (C,) int64, ascending, or None
        These alone; None: every item.
    excluded : (E,) int64, ascending
        Not these; empty where there are candidates, which then lack them.
    unknown : int
        Names of candidates that are not in the catalogue, and were left out.
    """

    candidates: npt.NDArray[np.int64] | None = None
    excluded: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    unknown: int = 0


EVERYTHING = Offer()


class Best(NamedTuple):
    """What is recommended after some histories."""

    ids: npt.NDArray[np.int64]
    """(n, k), best first; 0 where no item is left."""
    scores: npt.NDArray[np.float32]
    """(n, k); the model's, or how often an item occurs in the data where `popular` is true; -inf at id 0."""
    popular: npt.NDArray[np.bool_]
    """(n,) whether the history is empty, so that the most popular items are recommended."""


class _Part(NamedTuple):
    """Some of the items, packed."""

    ids: npt.NDArray[np.int64]  # (C,) ascending
    table: ItemTable


class Recommender:
    """One model over one catalogue. What is the same for every request is made once.

    Parameters
    ----------
    model : Backbone
    data : Sequences
        Real sequences whose items the model knows: names of users and items, histories by user, popularity.
    table : ItemTable, optional
        The model's items where they are packed already; default: packed here.
    repeats : {"excluded", "included"}
        Whether items of a history are recommended, where a request does not say.
    threads : int, optional
        CPU threads of the scoring ops; default: torch's number.
    titles : (num_items,) pyarrow array of strings, optional
        What items are called beside their names; null where an item has none.
    """

    def __init__(
        self,
        model: Backbone,
        data: Sequences,
        *,
        table: ItemTable | None = None,
        repeats: Repeats = "excluded",
        threads: int | None = None,
        titles: pa.Array | None = None,
    ) -> None:
        require(model, Backbone)
        if data.num_items != model.num_items:
            raise DataError(f"data: expected the {model.num_items} items of the model, got {data.num_items}")
        self.model, self.data, self.repeats, self.threads = model, data, repeats, threads
        self.titles = titles
        self.table = pack_items(model, table)
        self.items = Names("item", data.item_labels, data.num_items)
        self.users = Names("user", data.user_labels, data.num_real)
        self._knn: ItemKnn | None = model.knn if isinstance(model, WithItemKnn) else None
        self._parts: OrderedDict[bytes, _Part] = OrderedDict()

    def titled(self, ids: npt.NDArray[np.int64]) -> pa.Array | None:
        """The titles of ids (n,); None where there are none at all."""
        return None if self.titles is None else self.titles.take(pa.array(ids - 1))

    def histories(self, lists: Iterable[Sequence[Any]]) -> Histories:
        """Histories of item names, oldest first; names that are not in the catalogue are left out and counted.

        Raises
        ------
        DataError
            Something that is no list of names, or no name in any of them is known.
        """
        rows = list(lists)
        for number, row in enumerate(rows):
            if isinstance(row, (str, bytes)) or not isinstance(row, Iterable):
                raise DataError(f"history {number}: expected a list of items, got {row!r}; write [{row!r}]")
        rows = [list(row) for row in rows]
        flat = [name for row in rows for name in row]
        ids, offsets = self.items.ids(flat), offsets_of([len(row) for row in rows])
        known = ids > 0
        if len(flat) and not known.any():
            raise DataError(f"histories: none of their items, {flat[0]!r} for one, is in the catalogue")
        given = Ragged(ids.astype(np.int32), offsets)
        kept = given if known.all() else given.where(known)
        emptied = int(np.count_nonzero((given.lengths > 0) & (kept.lengths == 0)))
        return Histories(pa.array(np.arange(len(rows))), kept, len(flat) - int(known.sum()), emptied)

    def histories_of(self, users: Iterable[Any] | None = None) -> Histories:
        """What users have in the data, held-out events included; default: of all.

        Raises
        ------
        DataError
            A user that is not in the data; names the first one.
        """
        if users is None:
            return Histories(self.users.labels, self._lists.rows(0, self.data.num_real))
        names = list(users)
        ids = self.users.ids(names)
        if len(ids) and not ids.all():
            raise DataError(
                f"user {names[int((ids == 0).argmax())]!r} is not in the data of the run, which has "
                f"{self.users.labels[0].as_py()!r} for one; give a history, which may be empty"
            )
        return Histories(self.users.of(ids), self._lists.take(ids - 1))

    @property
    def _lists(self) -> Ragged:
        """The sequences of the data; for a model that uses times with theirs, asked at the newest time of all."""
        lists, times = self.data.lists, self.data.times
        if not uses_times(self.model) or times is None or not len(times):
            return lists
        return Timed(lists.values, lists.offsets, times, np.full(len(lists), times.max()))

    def offer(self, candidates: Iterable[Any] | None = None, exclude: Iterable[Any] | None = None) -> Offer:
        """What may be recommended, by names: candidates alone, and nothing that is excluded.

        Raises
        ------
        DataError
            No candidate is known, or nothing is left.
        """
        excluded = EVERYTHING.excluded
        if exclude is not None:
            excluded = np.unique(self.items.ids(_listed("exclude", exclude)))
            excluded = excluded[excluded > 0]
        if candidates is None:
            if len(excluded) == self.items.size:
                raise DataError("exclude: expected to leave some items of the catalogue, got all of them")
            return Offer(None, excluded)
        names = _listed("candidates", candidates)
        known = np.unique(self.items.ids(names))
        known = known[known > 0]
        if not len(known):
            which = f"only unknown ones, {names[0]!r} for one" if names else "an empty list"
            raise DataError(f"candidates: expected items of the catalogue, got {which}")
        left = np.setdiff1d(known, excluded, assume_unique=True)
        if not len(left):
            raise DataError("candidates: expected some that are not excluded, got none")
        unknown = len(set(names)) - len(known)
        return Offer(left, EVERYTHING.excluded, unknown)

    def blocks(
        self, histories: Ragged, k: int, *, offer: Offer = EVERYTHING, repeats: Repeats | None = None
    ) -> Iterator[tuple[int, Best]]:
        """The number of the first history, and what is recommended, block by block."""
        size = max(1, min(BLOCK, _PLACES // max(1, min(k, self.items.size))))
        for first in range(0, len(histories), size):
            own = histories.rows(first, min(first + size, len(histories)))
            yield first, self.best(own, k, offer=offer, repeats=repeats)

    @plain_torch()
    def best(self, histories: Ragged, k: int, *, offer: Offer = EVERYTHING, repeats: Repeats | None = None) -> Best:
        """The k best items after each history, or the most popular ones after an empty one.

        Parameters
        ----------
        histories : Ragged
            Item ids (nnz,) int32 in 1..N, oldest first.
        k : int
            At least 1; what is above the number of items that may be recommended is cut.
        offer : Offer
        repeats : {"excluded", "included"}, optional
            Whether items of a history are recommended; default: the recommender's rule.

        Raises
        ------
        DataError
            k is no whole number of at least 1, or another rule.
        """
        repeats = self.repeats if repeats is None else repeats
        check_request(k, repeats)
        count = self.items.size if offer.candidates is None else len(offer.candidates)
        k = min(int(k), count - len(offer.excluded))
        lengths = histories.lengths
        popular = lengths == 0
        if not popular.any():
            return Best(*self._by_model(histories, k, offer, repeats), popular)
        filled = np.flatnonzero(~popular)
        ids, scores = np.zeros((len(lengths), k), np.int64), np.full((len(lengths), k), -np.inf, np.float32)
        ids[popular], scores[popular] = self._popular(k, offer)
        if len(filled):
            some = histories.take(filled)
            ids[filled], scores[filled] = self._by_model(some, k, offer, repeats)
        return Best(ids, scores, popular)

    @plain_torch()
    def similar(
        self,
        item: int,
        k: int,
        *,
        by: Similarity = "vectors",
        offer: Offer = EVERYTHING,
        config: ItemKnnConfig | None = None,
        items: ItemVectors | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The k items most like one: ids and scores, best first; see :meth:`rsir.runs.results.Run.similar`.

        `config` is how to count where no item-kNN votes, and `items` what is known of those without an event.
        """
        check_request(k, "included")
        if by not in ("vectors", "count"):
            raise DataError(f"by: expected vectors or count, got {shown(by)}")
        without = np.append(offer.excluded, item)
        if by == "count":
            if self._knn is None:
                self._knn = ItemKnn.fit(self.data, config, items=items, threads=self.threads)
            found = self._knn.shares(np.array([item], np.int32), np.array([0, 1]), threads=self.threads)
            kept = ~np.isin(found.ids, without)
            if offer.candidates is not None:
                kept &= np.isin(found.ids, offer.candidates)
            ids, scores = found.ids[kept].astype(np.int64), found.values[kept]
            order = np.argsort(-scores, kind="stable")[:k]
            return ids[order], scores[order]
        vectors = self._directions
        lists = Ragged(without.astype(np.int32), np.array([0, len(without)]))
        table, candidates = vectors, offer.candidates
        if candidates is not None:
            rows = torch.from_numpy(np.append(0, candidates)).to(vectors.weights.device)
            table, lists = ops.pack(vectors.weights[rows]), _renumbered(lists, candidates)
        query = vectors.weights[item : item + 1].float()
        excluded = ops.Ragged.from_numpy(lists.values, lists.offsets, query.device)
        best = ops.topk(query, table, min(k, table.num_items), excluded=excluded, threads=self.threads)
        ids, scores = best.ids[0].cpu().numpy(), best.logits[0].cpu().numpy()
        found_there = ids > 0
        ids = ids if candidates is None else np.append(0, candidates)[ids]
        return ids[found_there], scores[found_there]

    @cached_property
    def _directions(self) -> ItemTable:
        """The network's item vectors, each of length 1."""
        vectors = network_of(self.model).item_embeddings().detach()
        return ops.pack(torch.nn.functional.normalize(vectors, dim=1))

    def _by_model(
        self, histories: Ragged, k: int, offer: Offer, repeats: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        queries, added = encode_sequences(self.model, histories), added_scores(self.model, histories)
        excluded = None if repeats == "included" else histories
        table, candidates = self.table, offer.candidates
        if len(offer.excluded):
            if len(offer.excluded) * len(histories) > _LISTED:
                candidates = np.setdiff1d(np.arange(1, self.items.size + 1), offer.excluded, assume_unique=True)
            else:
                excluded = _with(excluded, offer.excluded, len(histories))
        if candidates is not None:
            candidates, table = self._part(candidates)
            if excluded is not None:
                excluded = _renumbered(excluded, candidates)
            if added is not None:
                added = _added_to(added, candidates)
        without = None
        if excluded is not None:
            without = ops.Ragged.from_numpy(excluded.values, excluded.offsets, queries.device)
        best = ops.topk(queries, table, k, excluded=without, added=added, threads=self.threads)
        ids = best.ids.cpu().numpy()
        if candidates is not None:
            ids = np.append(0, candidates)[ids]
        return ids, best.logits.cpu().numpy()

    def _part(self, candidates: npt.NDArray[np.int64]) -> _Part:
        """Some items packed; those of the last requests are kept."""
        key = candidates.tobytes()
        part = self._parts.pop(key, None)
        if part is None:
            whole = self.table
            sharded = whole.backend.name == "sharded"  # whose weights are those of a part
            weights = self.model.item_embeddings() if sharded else whole.weights
            rows = torch.from_numpy(np.append(0, candidates)).to(weights.device)
            backend = "auto" if sharded else whole.backend.name
            chosen = ops.pack(weights[rows], backend=backend, instruction_set=whole.instruction_set, dtype=whole.dtype)
            part = _Part(candidates, chosen)
        self._parts[key] = part
        while len(self._parts) > _KEPT:
            self._parts.popitem(last=False)
        return part

    def _popular(self, k: int, offer: Offer) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """(k,) ids and counts of the most popular items of an offer; of equal counts the lower id comes first."""
        counts, order = self._popularity
        if offer.candidates is not None:
            best = offer.candidates[np.argsort(-counts[offer.candidates], kind="stable")[:k]]
        else:
            head = order[: k + len(offer.excluded)]
            best = head[~np.isin(head, offer.excluded)][:k]
        return best, counts[best].astype(np.float32)

    @cached_property
    def _popularity(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        counts = item_popularity(self.data)
        return counts, 1 + np.argsort(-counts[1:], kind="stable")


def _listed(what: str, names: Any) -> list[Any]:
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise DataError(f"{what}: expected a list of items, got {names!r}")
    return list(names)


def check_request(k: Any, repeats: Any) -> None:
    """Refuse a number of items or a rule that there is not."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise DataError(f"k: expected at least 1, got {shown(k)}")
    if repeats not in ("excluded", "included", "targets"):  # the last one matters to the evaluation alone
        raise DataError(f"repeats: expected excluded or included, got {shown(repeats)}")


def _with(lists: Ragged | None, ids: npt.NDArray[np.int64], rows: int) -> Ragged:
    """Each row of the lists and the ids after it."""
    every = np.tile(ids.astype(np.int32), rows)
    if lists is None:
        return Ragged(every, np.arange(rows + 1) * len(ids))
    values = np.insert(lists.values, np.repeat(lists.offsets[1:], len(ids)), every)
    return Ragged(values, lists.offsets + np.arange(rows + 1) * len(ids))


def _renumbered(lists: Ragged, candidates: npt.NDArray[np.int64]) -> Ragged:
    """What of the lists is among candidates, by their places from 1."""
    place = np.searchsorted(candidates, lists.values)
    kept = candidates[place.clip(max=len(candidates) - 1)] == lists.values
    return replace(lists, values=(place + 1).astype(np.int32)).where(kept)


def _added_to(added: SparseScores, candidates: npt.NDArray[np.int64]) -> SparseScores:
    """The same for added scores."""
    own = torch.from_numpy(candidates).to(added.ids.device)
    ids = added.ids.long()
    place = torch.searchsorted(own, ids)
    kept = own[place.clamp(max=len(own) - 1)] == ids
    before = torch.nn.functional.pad(kept.cumsum(0), (1, 0))
    return SparseScores((place + 1)[kept], before[added.offsets], added.values[kept])

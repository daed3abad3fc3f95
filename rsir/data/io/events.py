"""From a log of events to `Sequences`: filters, duplicates, order, dense ids."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir.config import DataConfig
from rsir.data.io.ordering import by_block, core, in_order, where
from rsir.data.ragged import Ragged, Timed, counts_of, sealed
from rsir.data.sequences import Int64Array, Sequences, offsets_of
from rsir.data.warn import warn
from rsir.errors import DataError
from rsir.runtime import memory


@dataclass(frozen=True)
class Reading:
    """How a log was read.

    Attributes
    ----------
    columns : dict of str
        The column of each role; empty for sequences.
    dropped : dict of int
        Rows or events left out, by reason; grows while events are filtered.
    name : str
        The file or folder.
    format : str
        One of :mod:`rsir.data.io.formats`.
    """

    columns: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    name: str = ""
    format: str = ""


@dataclass(frozen=True)
class Events:
    """A log: codes of users and items (n,) int64 into their labels, and what else is known of each."""

    name: str
    users: Int64Array
    items: Int64Array
    user_labels: pa.Array
    item_labels: pa.Array
    times: Int64Array | None = None
    ratings: npt.NDArray[np.float64] | None = None
    reading: Reading = field(default_factory=Reading)

    def keep(self, which: npt.NDArray[np.bool_] | Int64Array) -> Events:
        """The events of a mask, or of indices in their order."""
        indices: Int64Array = where(which) if which.dtype == np.bool_ else which  # type: ignore[arg-type, assignment]

        def some(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return by_block(indices.size, values.dtype, lambda block: values[indices[block]])

        return replace(
            self,
            users=some(self.users),
            items=some(self.items),
            times=None if self.times is None else some(self.times),
            ratings=None if self.ratings is None else some(self.ratings),
        )


def to_sequences(events: Events, config: DataConfig) -> Sequences:
    """Filter by `config`, drop exact duplicates, order each user's events by time and then by place in the file.

    Users and items are numbered in the order of their labels, so the result depends on the order of the log only
    where times are equal or missing.
    """
    events = ordered(rated(events, config))
    if events.times is not None:
        events = without_duplicates(events, events.times)
    if config.k_core > 1:
        events = _core(events, config.k_core)
    users, user_labels = _dense(events.users, events.user_labels)
    items, item_labels = _dense(events.items, events.item_labels)
    if len(user_labels) < 2:
        raise DataError(
            f"{events.name}: there is only one user, {user_labels[0].as_py()!r}, but sequences of several "
            "are needed to learn from; check which column holds the users (data.user)"
        )
    counts = counts_of(users, len(user_labels))
    if counts.max() < 3:
        raise DataError(
            f"{events.name}: no user has 3 or more items (the most is {counts.max()}), one each to train, "
            "validate and test; check which column holds the users (data.user)"
        )
    return Sequences(
        items=by_block(items.size, np.int32, lambda block: items[block] + 1),
        offsets=sealed(offsets_of(counts)),
        num_items=len(item_labels),
        times=events.times,
        item_labels=item_labels,
        user_labels=user_labels,
    )


@dataclass(frozen=True)
class Histories:
    """Histories over a catalogue.

    Attributes
    ----------
    users : (n,) pyarrow array
        Labels, in their order.
    lists : Ragged
        Items (nnz,) int32 of each user, oldest first; may be empty. Of events with times over a catalogue that has some
        :class:`~rsir.data.ragged.Timed` ones, asked at the newest time of both.
    unknown_events, unknown_users : int
        Events left out as their item is not in the catalogue, and users of whom nothing is left, as none of theirs is.
    """

    users: pa.Array
    lists: Ragged
    unknown_events: int = 0
    unknown_users: int = 0


def to_histories(events: Events, catalogue: Sequences, config: DataConfig) -> Histories:
    """Drop exact duplicates and order each user's events as `to_sequences`; number items as the catalogue."""
    events = rated(events, config)
    own = catalogue.item_labels
    own = pa.array(np.arange(1, catalogue.num_items + 1)) if own is None else own
    ids = label_ids(events.item_labels, own, events.name)[events.items]
    known = events.keep(ids > 0)
    if not known.users.size:
        example = events.item_labels[int(events.items[0])].as_py()
        raise DataError(f"{events.name}: none of its items, {example!r} for one, is in the catalogue")
    known = ordered(replace(known, items=ids[ids > 0]))
    if known.times is not None:
        known = without_duplicates(known, known.times)
    users, user_labels = _dense(events.users, events.user_labels)
    counts = np.zeros(len(user_labels), np.int64)
    counts[np.unique(users[ids > 0])] = np.bincount(known.users)  # both in the order of the labels
    lists = Ragged(known.items.astype(np.int32), offsets_of(counts))
    if known.times is not None and catalogue.times is not None:
        newest = max(int(known.times.max()), int(catalogue.times.max(initial=known.times[0])))
        lists = Timed(lists.values, lists.offsets, known.times, np.full(len(lists), newest))
    return Histories(
        users=user_labels,
        lists=lists,
        unknown_events=int(np.count_nonzero(ids == 0)),
        unknown_users=int(np.count_nonzero(counts == 0)),
    )


def label_ids(labels: pa.Array, own: pa.Array, name: str) -> Int64Array:
    """Item id of each label in a catalogue with labels `own`, 0 for those that it does not have.

    Integers and their text are taken for the same, as a file of text does not say which of them it means.
    """
    if labels.type != own.type:
        text = pa.large_string()
        try:
            labels, own = labels.cast(text), own.cast(text)
        except pa.ArrowException as cause:
            raise DataError(f"{name}: expected item labels of {own.type}, got {labels.type}") from cause
    return pc.fill_null(pc.add(pc.index_in(labels, own), 1), 0).to_numpy().astype(np.int64)


def rated(events: Events, config: DataConfig) -> Events:
    """Without events rated lower than the least."""
    if config.min_rating is None:
        return events
    if events.ratings is None:
        raise DataError(f"{events.name}: min_rating {config.min_rating:g} needs ratings, and this format has none")
    ratings, least = events.ratings, config.min_rating
    highest = max(ratings[block].max() for block in memory.blocks(ratings.size))
    events = noted(events, events.keep(by_block(ratings.size, np.bool_, lambda block: ratings[block] >= least)),
                    f"rated below {least:g}")  # fmt: skip
    if not events.users.size:
        raise DataError(
            f"{events.name}: no event has a rating of min_rating {config.min_rating:g} or more; "
            f"the highest is {highest:g}: lower min_rating"
        )
    return events


def ordered(events: Events) -> Events:
    """Sorted by user label, then time, then place in the file; later steps only drop events."""
    users, user_labels = _dense(events.users, events.user_labels)
    order = in_order(users, events.times, counts_of(users, len(user_labels)))
    return replace(events, users=users, user_labels=user_labels, ratings=None).keep(order)


def without_duplicates(events: Events, times: Int64Array) -> Events:
    """Of events of the same user, item and time, the first. The events are in order."""
    users, items = events.users, events.items
    kept = memory.empty(users.size, np.bool_)
    offsets = offsets_of(counts_of(users, len(events.user_labels)))
    for rows in memory.row_blocks(offsets):
        first, last = offsets[rows.start], offsets[rows.stop]
        kept[first:last] = _first_of_equals(users[first:last], items[first:last], times[first:last])
    dropped = users.size - sum(int(np.count_nonzero(kept[block])) for block in memory.blocks(users.size))
    if not dropped:
        return events
    warn(f"{events.name}: dropped {dropped} of {users.size} events that repeat another one's user, item and time")
    return noted(events, events.keep(sealed(kept)), "repeating another")


def _first_of_equals(users: Int64Array, items: Int64Array, times: Int64Array) -> npt.NDArray[np.bool_]:
    """Whether no event before one has its user, item and time. The events are in order."""
    tied = np.zeros(users.size + 1, bool)
    tied[1:-1] = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    candidates = np.flatnonzero(tied[1:] | tied[:-1])
    order = candidates[np.lexsort((items[candidates], times[candidates], users[candidates]))]
    before, after = order[:-1], order[1:]
    same = (users[after] == users[before]) & (items[after] == items[before]) & (times[after] == times[before])
    first = np.ones(users.size, bool)
    first[after[same]] = False
    return first


def _core(events: Events, k: int) -> Events:
    if memory.current() is None:
        from rsir.data.io.kcore import k_core  # imports numba, which takes a while

        alive = k_core(events.users, events.items, k)
    else:
        alive = core(events.users, events.items, k)
    kept = events.keep(alive)
    if not kept.users.size:
        raise DataError(f"{events.name}: the {k}-core is empty: of {events.users.size} events none is left once every "
                        f"user and item must have {k}; lower k_core")  # fmt: skip
    return noted(events, kept, f"outside of the {k}-core")


def noted(before: Events, after: Events, reason: str) -> Events:
    """The events after a filter, with the number of those that it left out."""
    if left_out := before.users.size - after.users.size:
        before.reading.dropped[reason] = left_out
    return after


def _dense(codes: Int64Array, labels: pa.Array) -> tuple[Int64Array, pa.Array]:
    """Codes renumbered 0.. in the order of the labels that occur."""
    occurs = np.zeros(len(labels), bool)
    for block in memory.blocks(codes.size):
        occurs[codes[block]] = True
    ranked = pc.array_sort_indices(labels).to_numpy()
    ranked = ranked[occurs[ranked]]
    place = np.zeros(len(labels), np.int64)
    place[ranked] = np.arange(ranked.size)
    return by_block(codes.size, np.int64, lambda block: place[codes[block]]), labels.take(pa.array(ranked))

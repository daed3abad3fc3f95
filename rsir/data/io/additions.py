"""New events beside sequences that are there already: known users and items keep their ids, new ones follow them."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir.config import DataConfig
from rsir.data.io.events import Events, Reading, ordered, rated, without_duplicates
from rsir.data.io.frames import events_of
from rsir.data.io.readers import histories_config, read_events
from rsir.data.ragged import Int64Array, gathered, offsets_of, sealed
from rsir.data.sequences import Sequences
from rsir.data.warn import warn
from rsir.errors import DataError
from rsir.objects.copies import at_hand
from rsir.runtime.interrupts import prepare_arrow

__all__ = ["Additions", "add_events"]


@dataclass(frozen=True)
class Additions:
    """Sequences with what was added to them.

    Attributes
    ----------
    data : Sequences
        Users and items that were there keep their rows and ids; new ones come after them, in order of their labels.
    events, users, items : int
        How many of each are new.
    repeated : int
        Events that were left out as they were there already.
    filtered : int
        Events left out as their new user or item has fewer than ``k_core``.
    """

    data: Sequences
    events: int
    users: int
    items: int
    repeated: int
    filtered: int


def add_events(known: Sequences, new: Any, config: DataConfig, columns: dict[str, str] | None = None) -> Additions:
    """Put new events behind the sequences of their users.

    Parameters
    ----------
    known : Sequences
        Real ones.
    new : path, data frame or Sequences
        A file or folder in any format of :func:`rsir.read`.
    config : DataConfig
        How `known` was read: columns (as far as a file has them), ``min_rating``, ``k_core``.
    columns : dict of str, optional
        Columns of a file by role ("user", "item", "time"), where they are other ones.

    Raises
    ------
    DataError
        What is new cannot be read, holds no new event, shares neither a user nor an item with what is known, has ids
        of another kind, lacks the times that are known, or has events from before the newest ones known of their users.
    """
    events = rated(*_read(new, config, columns or {}))
    name = events.name
    if (known.times is None) != (events.times is None):
        if events.times is None:
            raise DataError(f"{name}: expected times, as the run's events have them, got none; name the column (time)")
        warn(f"{name}: the run's events have no times; those here order the new events alone")
    events = ordered(events)
    if events.times is not None:
        events = without_duplicates(events, events.times)
    users, user_labels = _matched("user", events.user_labels, known.user_labels, known.num_real, name)
    items, item_labels = _matched("item", events.item_labels, known.item_labels, known.num_items, name)
    user, item = users[events.users], items[events.items]
    if (user >= known.num_real).all() and (item >= known.num_items).all():
        raise DataError(
            f"{name}: shares no user and no item with the run: its users are such as "
            f"{events.user_labels[0].as_py()!r} and its items such as {events.item_labels[0].as_py()!r}, the run's "
            f"such as {user_labels[0].as_py()!r} and {item_labels[0].as_py()!r}"
        )
    times = events.times if known.times is not None else None
    fresh = _fresh(known, user, item, times, user_labels, name)
    repeated = user.size - int(fresh.sum())
    if repeated == user.size:
        raise DataError(f"{name}: expected new events, got {repeated:,} that the run has all")
    user, item = user[fresh], item[fresh]
    times = None if times is None else times[fresh]
    kept = _within_core(known, user, item, config.k_core)
    if not kept.any():
        raise DataError(
            f"{name}: each of its {kept.size:,} events has a new user or item with fewer than k_core {config.k_core} "
            "events; wait for more"
        )
    filtered = int((~kept).sum())
    user, item, times = user[kept], item[kept], None if times is None else times[kept]
    user, user_labels = _numbered(user, user_labels, known.num_real)
    item, item_labels = _numbered(item, item_labels, known.num_items)
    data = _behind(known, user, item, times, user_labels, item_labels)
    counts = len(user_labels) - known.num_real, len(item_labels) - known.num_items
    return Additions(data, user.size, *counts, repeated, filtered)


def _read(new: Any, config: DataConfig, columns: dict[str, str]) -> tuple[Events, DataConfig]:
    """Events of a file, frame or sequences, and how they are to be filtered."""
    if isinstance(new, Sequences):
        return _of_sequences(new, "data"), dataclasses.replace(config, min_rating=None)
    if isinstance(new, (str, os.PathLike)):
        prepare_arrow()
        found = histories_config(new, config, columns)
        with at_hand(new, DataError) as file:
            read, _ = read_events(file, found)
        if isinstance(read, Sequences):
            return _of_sequences(read, str(new)), dataclasses.replace(found, min_rating=None)
        return dataclasses.replace(read, name=str(new)), found
    if isinstance(new, (list, tuple, dict)):
        raise DataError(
            f"data: expected a path, a data frame or Sequences, whose users have names, got {type(new).__name__}"
        )
    return events_of(new, config), config


def _of_sequences(data: Sequences, name: str) -> Events:
    if data.num_real != len(data):
        raise DataError(f"{name}: expected real sequences, got {len(data) - data.num_real:,} generated ones among them")
    return Events(
        name=name,
        users=np.repeat(np.arange(len(data)), data.lengths),
        items=data.items.astype(np.int64) - 1,
        user_labels=pa.array(np.arange(1, len(data) + 1)) if data.user_labels is None else data.user_labels,
        item_labels=pa.array(np.arange(1, data.num_items + 1)) if data.item_labels is None else data.item_labels,
        times=data.times,
        reading=Reading(name=name),
    )


def _matched(kind: str, labels: pa.Array, known: pa.Array | None, size: int, name: str) -> tuple[Int64Array, pa.Array]:
    """The place of each new label, behind the known ones where it is not among them; and all labels.

    Integers and their text are taken for the same, as a file of text does not say which of them it means.
    """
    own = pa.array(np.arange(1, size + 1)) if known is None else known
    mixed = pa.types.is_integer(own.type) != pa.types.is_integer(labels.type)
    example = own[0].as_py()
    if mixed and pa.types.is_integer(own.type):
        digits = pc.match_substring_regex(labels, r"^(0|-?[1-9][0-9]{0,17})$")
        if not pc.all(digits).as_py():
            wrong = labels[int(np.flatnonzero(~digits.to_numpy(zero_copy_only=False))[0])].as_py()
            raise DataError(
                f"{name}: expected {kind} ids that are integers such as {example}, as in the run, got {wrong!r}"
            )
    given = labels.cast(own.type)
    places = pc.index_in(given, own)
    found = pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    if mixed and not pa.types.is_integer(own.type) and len(labels) and (found < 0).all():
        raise DataError(
            f"{name}: expected {kind} ids that are text such as {example!r}, as in the run, got integers such as "
            f"{labels[0].as_py()}, of which it has none"
        )
    new = np.flatnonzero(found < 0)
    found[new] = size + np.arange(new.size)
    return found, pa.concat_arrays([own, given.take(pa.array(new))])


def _fresh(
    known: Sequences, user: Int64Array, item: Int64Array, times: Int64Array | None, labels: pa.Array, name: str
) -> npt.NDArray[np.bool_]:
    """Which events are new. Without times none can be told from what is known, unless all of that is there again."""
    rows = np.unique(user[user < known.num_real])
    if times is None or known.times is None:
        counts = np.bincount(user, minlength=known.num_real)
        begins = np.cumsum(counts) - counts
        again = sum(_begins_with(item[begins[row] : begins[row] + counts[row]], known[row]) for row in rows)
        if rows.size and again * 2 > rows.size:
            raise DataError(
                f"{name}: repeats all that the run knows of {again:,} of its {rows.size:,} users, and there are no "
                "times to tell new events by: give the new ones alone"
            )
        return np.ones(user.size, np.bool_)
    lengths, old_times = known.lengths, known.times
    last = np.full(max(int(user.max()) + 1, known.num_real), np.iinfo(np.int64).min)
    filled = np.flatnonzero(lengths[: known.num_real])
    last[filled] = old_times[known.offsets[1:][filled] - 1]
    suspects = np.flatnonzero(times <= last[user])
    repeats = np.zeros(user.size, np.bool_)
    if suspects.size:
        rows = np.unique(user[suspects])
        parts = offsets_of(lengths[rows])
        starts = known.offsets[:-1][rows]
        columns = [
            np.concatenate([np.repeat(rows, lengths[rows]), user[suspects]]),
            np.concatenate([gathered(known.items, starts, parts).astype(np.int64) - 1, item[suspects]]),
            np.concatenate([gathered(old_times, starts, parts), times[suspects]]),
        ]
        order = np.lexsort(columns)  # stable: what is known comes first among equals
        same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
        later = order[1:][same] - parts[-1]
        repeats[suspects[later[later >= 0]]] = True
    late = np.flatnonzero(~repeats & (times < last[user]))
    if late.size:
        first = int(late[0])
        raise DataError(
            f"{name}: {late.size:,} events are from before what the run knows of their users, the first of user "
            f"{labels[int(user[first])].as_py()!r} at {times[first]}, who has one at {last[user[first]]}: leave them "
            "out, or train a new run on all events"
        )
    return ~repeats


def _begins_with(items: Int64Array, known: npt.NDArray[np.int32]) -> bool:
    return 3 <= known.size <= items.size and bool((items[: known.size] == known - 1).all())


def _within_core(known: Sequences, user: Int64Array, item: Int64Array, k: int) -> npt.NDArray[np.bool_]:
    """Which new events are left where new users and items need k events in all; known ones stay."""
    if k <= 1:
        return np.ones(user.size, np.bool_)
    alive = np.ones(user.size, np.bool_)
    while True:
        enough = alive.copy()
        for codes, size in ((user, known.num_real), (item, known.num_items)):
            enough &= (codes < size) | (np.bincount(codes[alive], minlength=int(codes.max()) + 1)[codes] >= k)
        if (enough == alive).all():
            return alive
        alive = enough


def _numbered(codes: Int64Array, labels: pa.Array, size: int) -> tuple[Int64Array, pa.Array]:
    """New codes in the order of their labels, without those that no event has."""
    new = np.unique(codes[codes >= size])
    added = labels.take(pa.array(new))
    order = pc.array_sort_indices(added).to_numpy()
    place = np.arange(len(labels))
    place[new[order]] = size + np.arange(new.size)
    return place[codes], pa.concat_arrays([labels.slice(0, size), added.take(pa.array(order))])


def _behind(
    known: Sequences,
    user: Int64Array,
    item: Int64Array,
    times: Int64Array | None,
    user_labels: pa.Array,
    item_labels: pa.Array,
) -> Sequences:
    """The known sequences, new events behind them; events come in order of their users' labels, then of time."""
    order = np.argsort(user, kind="stable")
    user, item = user[order], item[order]
    before = np.zeros(len(user_labels), np.int64)
    before[: len(known)] = known.lengths
    more = np.bincount(user, minlength=len(user_labels))
    offsets = offsets_of(before + more)
    old = np.repeat(offsets[:-1][: len(known)] - known.offsets[:-1], known.lengths) + np.arange(known.items.size)
    new = np.repeat(offsets[1:] - more - (np.cumsum(more) - more), more) + np.arange(user.size)

    def together(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
        out = np.empty(offsets[-1], first.dtype)
        out[old], out[new] = first, second
        return sealed(out)

    return Sequences(
        items=together(known.items, item + 1),
        offsets=sealed(offsets),
        num_items=len(item_labels),
        times=None if times is None or known.times is None else together(known.times, times[order]),
        item_labels=item_labels,
        user_labels=user_labels,
    )

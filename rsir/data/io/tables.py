"""From tables to events: which column plays which role, lists of items spelt out, rows that cannot be used dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir.config import DataConfig
from rsir.data.io import columns, values
from rsir.data.io.columnar import encode_batches
from rsir.data.io.columns import MARKERS, Origin
from rsir.data.io.events import Events, Reading
from rsir.data.sequences import Int64Array, offsets_of
from rsir.data.warn import warn
from rsir.errors import DataError
from rsir.runtime import memory

__all__ = ["Source", "Table", "find_events"]

EXPORTED = ("source", "round", "position")
"""Columns that rsir.data.write adds."""

_SAMPLE = 1000  # values that tell how times are written
_SESSIONS = ("sessionid", "session", "visitid", "usersession")


class Source(Protocol):
    """A table that is not loaded yet.

    Attributes
    ----------
    names : list of str
        Names of all columns.
    origin : Origin
        Says of a row where it is.
    from_text : bool
        Whether ids were read from text, where integers have no type of their own.
    usual : dict of str
        Columns by role that are known without usual names.
    dropped : list of str
        Rows that :meth:`load` left out, as they were written.
    """

    names: list[str]
    origin: Origin
    from_text: bool
    usual: dict[str, str]
    dropped: list[str]

    def load(self, names: list[str]) -> pa.Table:
        """Columns by name, user and item first."""


@dataclass
class Table:
    """A source by its parts."""

    names: list[str]
    load: Any
    origin: Origin
    from_text: bool = False
    usual: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def find_events(source: Source, config: DataConfig) -> Events:
    """Find the columns among those present, load them, and turn them into events."""
    present, origin = source.names, source.origin
    names = _roles(source, config)
    chosen = [name for name in names.values() if name is not None]
    _warn_without_times(names, present, origin)
    table = source.load(chosen)
    if table.num_rows == 0 and not source.dropped:
        raise DataError(f"{origin.name}: has columns but no events")
    read = table.num_rows + len(source.dropped)
    table, origin = _spelt_out(table, names, origin)
    dropped: Counter[str] = Counter()
    if config.on_bad_row == "drop":
        table, dropped = _without_bad(table, names, source.from_text, config)
        if source.dropped:
            dropped[f"unlike the others (such as {source.dropped[0].strip()[:60]!r})"] = len(source.dropped)
        _warn_of_dropped(dropped, read, origin)
        if table.num_rows == 0:
            raise DataError(f"{origin.name}: has no row that can be used")
    labelled = {}
    for role in ("user", "item"):
        labelled[role] = _ids(table, role, names, source, origin)
        _warn_of_markers(role, str(names[role]), *labelled[role], present, origin)
    (users, user_labels), (items, item_labels) = labelled["user"], labelled["item"]
    time, rating = names["time"], names.get("rating")
    return Events(
        name=origin.name,
        users=users,
        items=items,
        user_labels=user_labels,
        item_labels=item_labels,
        times=None if time is None else values.times(table[time], time, origin, config.time_format),
        ratings=None if rating is None else values.ratings(table[rating], rating, origin),
        reading=Reading({role: name for role, name in names.items() if name is not None}, dict(dropped)),
    )


def _roles(source: Source, config: DataConfig) -> dict[str, str | None]:
    """The column of each role."""
    present, name, usual = source.names, source.origin.name, source.usual
    wanted = {role: getattr(config, role) or usual.get(role) for role in ("user", "item", "time", "rating")}
    names = {role: columns.find(role, wanted[role], present, name) for role in ("user", "item", "time")}
    if config.min_rating is not None:
        names["rating"] = columns.find("rating", wanted["rating"], present, name)
        if names["rating"] is None:
            raise DataError(
                f"{name}: min_rating needs ratings, and no column has a usual name; its columns "
                f"are {', '.join(map(repr, present))}: name one by the option data.rating"
            )
    chosen = [each for each in names.values() if each is not None]
    for each in chosen:
        if present.count(each) > 1:
            raise DataError(f"{name}: {present.count(each)} columns are called {each!r}; rename all but one")
    if len(set(chosen)) < len(chosen):
        raise DataError(f"{name}: one column cannot serve twice: {names}")
    return names


def _warn_without_times(names: dict[str, str | None], present: list[str], origin: Origin) -> None:
    unused = set(present) - {*names.values(), *EXPORTED, columns.find("rating", None, present, origin.name)}
    if names["time"] is None and unused:
        warn(
            f"{origin.name}: no column of times found among {', '.join(map(repr, present))}, so each user's events are "
            "taken in the order of the file; name the column by the option data.time"
        )


def _ids(
    table: pa.Table, role: str, names: dict[str, str | None], source: Source, origin: Origin
) -> tuple[Int64Array, pa.Array]:
    name = names[role]
    column = table[name]
    if column.null_count:
        place = columns.first(column.is_null())
        many = f", as in {column.null_count:,} of {len(column):,} rows" if column.null_count > 1 else ""
        other = _session(role, name, source.names) if 2 * column.null_count > len(column) else ""
        raise origin.error(
            place,
            f"the {role} is missing ({name!r}){many}; {other}fill it in, or leave such rows out by the option "
            "data.on_bad_row",
        )
    return columns.ids(column, role, origin, source.from_text)


def _session(role: str, name: str | None, present: list[str]) -> str:
    """Advice where a column of users is mostly empty, as that of a log of sessions is."""
    sessions = [each for each in present if columns.simplified(each) in _SESSIONS and each != name]
    return f"take the sessions as users by --data.user {sessions[0]}, " if role == "user" and sessions else ""


def _warn_of_markers(
    role: str, name: str, codes: Int64Array, labels: pa.Array, present: list[str], origin: Origin
) -> None:
    """DataWarning if a label is what files hold where a value is missing: all such events become one user or item."""
    if pa.types.is_integer(labels.type):
        return
    for marker in MARKERS:
        code = pc.index(labels, pa.scalar(marker, labels.type)).as_py()
        if code < 0:
            continue
        count = sum(int(np.count_nonzero(codes[block] == code)) for block in memory.blocks(codes.size))
        if not count:  # a category that no row has
            continue
        mostly = 2 * count > codes.size
        other = _session(role, name, present) if mostly else ""
        warn(
            f"{origin.name}: column {name!r} holds {marker!r} in {count:,} of {codes.size:,} rows, which usually "
            f"marks a missing value: they become one {role}; {'most ids are missing: ' if mostly else ''}{other}"
            f"leave such rows out by --data.on_bad_row drop, or rename the {role} if it is real"
        )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _spelt_out(table: pa.Table, names: dict[str, str | None], origin: Origin) -> tuple[pa.Table, Origin]:
    """A table with an event a row, of one with a list of items a row; other columns are lists as long, or repeated."""
    item = str(names["item"])
    if not _is_list(table.schema.field(item).type):
        return table, origin
    schema = pa.schema(
        [pa.field(each.name, each.type.value_type if _is_list(each.type) else each.type) for each in table.schema]
    )
    if names["user"] is not None and _is_list(table.schema.field(names["user"]).type):
        raise DataError(f"{origin.name}: users ({names['user']!r}) must be one a row, got lists")
    lengths: list[npt.NDArray[np.int64]] = []

    def batches() -> Iterator[pa.RecordBatch]:
        lengths.clear()
        for batch in table.to_batches(max_chunksize=2**16):
            own = pc.fill_null(pc.list_value_length(batch.column(item)), 0).to_numpy().astype(np.int64)
            start = sum(map(len, lengths))
            lengths.append(own)
            parents = pa.array(np.repeat(np.arange(len(own)), own))
            arrays = []
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if not _is_list(column.type):
                    arrays.append(column.take(parents))
                    continue
                other = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
                if (other != own).any():
                    row = int(np.argmax(other != own))
                    raise origin.error(
                        start + row, f"expected as many entries in {name!r} as items, {own[row]}, got {other[row]}"
                    )
                arrays.append(pc.list_flatten(column))
            yield pa.record_batch(arrays, schema=schema)

    spelt = encode_batches(batches(), schema, schema.names)

    def place(event: int) -> str:
        return origin.place(int(np.searchsorted(offsets_of(np.concatenate(lengths)), event, side="right")) - 1)

    if not spelt.num_rows:
        raise DataError(f"{origin.name}: has rows but no items in {item!r}")
    return spelt, Origin(origin.name, place)


def _without_bad(
    table: pa.Table, names: dict[str, str | None], from_text: bool, config: DataConfig
) -> tuple[pa.Table, Counter[str]]:
    """The rows that can be used, and how many could not and why."""
    time, rating = names["time"], names.get("rating")
    dropped: Counter[str] = Counter()
    readable = None if time is None else values.timed(table[time].slice(0, _SAMPLE), config.time_format)
    schema = pa.schema([(each.name, _without_codes(each.type)) for each in table.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in table.to_batches(max_chunksize=2**20):
            good = np.ones(batch.num_rows, bool)
            for role in ("user", "item", "time", "rating"):
                name = names.get(role)
                if name is None:
                    continue
                column = batch.column(name)
                if role == "time":
                    usable = readable(column)  # type: ignore[misc]
                else:
                    usable = values.rated(column) if name == rating else values.usable_ids(column, from_text)
                bad = int(np.count_nonzero(good & ~usable))
                dropped.update({f"without a {role} that can be read ({name!r})": bad} if bad else {})
                good &= usable
            kept = batch.filter(pa.array(good))
            yield pa.record_batch([_without_codes(each) for each in kept.columns], schema=schema)

    return encode_batches(batches(), schema, schema.names), dropped


def _without_codes(column: Any) -> Any:
    """A column, or a type, with the values in the place of codes of them, some of which no row may have any more."""
    kind = column.type if isinstance(column, pa.Array) else column
    if not pa.types.is_dictionary(kind):
        return column
    return column.cast(kind.value_type) if isinstance(column, pa.Array) else kind.value_type


def _warn_of_dropped(dropped: Counter[str], read: int, origin: Origin) -> None:
    if dropped:
        parts = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        warn(f"{origin.name}: dropped {sum(dropped.values()):,} of {read:,} rows: {parts}")

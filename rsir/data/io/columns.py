"""Columns of an event table: which is which, and their values as ids, times and ratings, every fault named by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir.data.ragged import joined, sealed
from rsir.data.sequences import Int64Array
from rsir.errors import DataError
from rsir.runtime import memory

_PART = 2**22  # values looked up at a time

# Usual names, likeliest first, compared in lower case without punctuation.
USUAL_NAMES = {
    "user": "userid user uid useridx userno customerid customer reviewerid visitorid memberid accountid "
    "profileid authorid sessionid session",
    "item": "itemid item iid itemidx itemno productid product asin parentasin movieid businessid gmapid bookid "
    "articleid newsid trackid songid artistid videoid gameid appid venueid poiid sku",
    "time": "timestamp time ts unixtime unixtimestamp unixreviewtime datetime date eventtime eventtimestamp "
    "createdat reviewtime",
    "rating": "rating rate ratings score stars overall ratingscore",
}


@dataclass(frozen=True)
class Origin:
    """Where a table came from, for messages: the file, and how to say the place of its row number r."""

    name: str
    place: Callable[[int], str]

    def error(self, row: int, text: str) -> DataError:
        return DataError(f"{self.name}: {self.place(row)}: {text}")


def find(role: str, wanted: str | None, present: list[str], name: str) -> str | None:
    """The column that plays a role ("user", "item", "time" or "rating"): the one asked for, or by its usual name.

    Raises
    ------
    DataError
        If the one asked for is not there, or no user or item column is detected.
    """
    listed = ", ".join(map(repr, present))
    if wanted is not None:
        if wanted in present:
            return wanted
        raise DataError(f"{name}: no column {wanted!r} for the {role} (data.{role}); its columns are {listed}")
    simple = {"".join(filter(str.isalnum, column.lower())): column for column in reversed(present)}
    for candidate in USUAL_NAMES[role].split():
        if candidate in simple:
            return simple[candidate]
    if role in ("user", "item"):
        raise DataError(
            f"{name}: which column holds the {role} ids? None has a usual name such as {role}_id; "
            f"its columns are {listed}: name one by the option data.{role}"
        )
    return None


def ids(column: pa.ChunkedArray, role: str, origin: Origin, from_text: bool) -> tuple[Int64Array, pa.Array]:
    """Ids as codes (n,) int64 into an array of distinct labels (strings or int64).

    Labels read from text become int64 if every one of them is an integer in plain form (no leading zeros or plus).
    """
    column = _plain(column)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count:
        raise _missing(column, role, origin)
    if pa.types.is_floating(kind):  # what pandas makes of integers once it has seen a missing value
        column = column.cast(kind)
        whole = pc.equal(column, pc.floor(column))
        if not pc.all(whole).as_py():
            row = _first(pc.invert(whole))
            raise origin.error(row, f"the {role} id must be an integer or a string, got {column[row].as_py()}")
        column = column.cast(pa.int64())
    elif pa.types.is_uint64(kind):
        column = column.cast(pa.string())
    elif not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{origin.name}: {role} ids must be strings or integers, got {kind}; choose another column by "
                        f"the option data.{role}, or convert it")  # fmt: skip
    if memory.current() is not None and not pa.types.is_dictionary(column.type):
        codes, labels = _codes_by_part(column)
        return _labelled(codes, labels, role, origin, from_text)
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = np.concatenate([np.zeros(0, np.int64), *(chunk.indices.to_numpy() for chunk in encoded.chunks)])
    labels = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], kind)
    if not pa.types.is_integer(labels.type):
        codes, labels = _distinct(codes, labels)
    return _labelled(codes.astype(np.int64), labels, role, origin, from_text)


def _labelled(
    codes: Int64Array, labels: pa.Array, role: str, origin: Origin, from_text: bool
) -> tuple[Int64Array, pa.Array]:
    if not pa.types.is_integer(labels.type):
        empty = pc.equal(labels, "")
        if pc.any(empty).as_py():
            row = int(np.argmax(codes == _first(empty)))
            raise origin.error(row, f"the {role} id is an empty string; fill it in or drop the row")
    return codes, plain_integers(labels) if from_text else labels


def _codes_by_part(column: pa.ChunkedArray) -> tuple[Int64Array, pa.Array]:
    """Codes and distinct values, with these and a part of the column in memory."""
    labels, new = pa.array([], column.type), []
    for part in _parts(column):
        new.append(pc.unique(part))
        if sum(map(len, new)) > len(labels):
            labels, new = pc.unique(pa.chunked_array([labels, *new])), []
    labels = pc.unique(pa.chunked_array([labels, *new]))
    codes, first = memory.empty(len(column), np.int64), 0
    for part in _parts(column):
        codes[first : first + len(part)] = pc.index_in(part, labels).to_numpy()
        first += len(part)
    return sealed(codes), labels


def _parts(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Chunks together until there are some millions of values: every look-up builds its table anew."""
    waiting: list[pa.Array] = []
    for chunk in column.chunks:
        waiting.append(chunk)
        if sum(map(len, waiting)) >= _PART:
            yield pa.chunked_array(waiting)
            waiting = []
            memory.release()
    if waiting:
        yield pa.chunked_array(waiting)


def _distinct(codes: Int64Array, labels: pa.Array) -> tuple[Int64Array, pa.Array]:
    """A dictionary made elsewhere (a categorical column) may name a label twice."""
    encoded = labels.dictionary_encode()
    if len(encoded.dictionary) == len(labels):
        return codes, labels
    return encoded.indices.to_numpy()[codes], encoded.dictionary


def plain_integers(labels: pa.Array) -> pa.Array:
    """Labels as int64 if each is an integer in the form that Python prints, else as they are."""
    if len(labels) and pc.all(pc.match_substring_regex(labels, r"^(0|-?[1-9][0-9]{0,17})$")).as_py():
        return labels.cast(pa.int64())
    return labels


def times(column: pa.ChunkedArray, name: str, origin: Origin) -> Int64Array:
    """Times (n,) int64. Integers stay as they are, and so do whole floats.

    Floats with a fraction are multiplied by a million, so that the order within a second is kept; dates become
    microseconds since 1970 (without a zone they are taken as UTC).
    """
    expected = "an integer, a number or an ISO date such as 2024-05-31T12:00:00"
    if column.null_count:
        raise _missing(column, f"time ({name!r})", origin)
    column = _plain(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        utc = pa.timestamp("us", "UTC")
        column = _parsed(
            column, [pa.int64(), pa.float64(), pa.timestamp("us"), utc], f"column {name!r}", expected, origin
        )
        kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return (
            column.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
            .cast(pa.int64())
            .to_numpy()
        )
    if pa.types.is_integer(kind):
        try:
            return _numbers(column, pa.int64(), np.int64)
        except pa.ArrowInvalid as error:
            raise DataError(f"{origin.name}: column {name!r}: times must fit int64: {error}") from error
    if not pa.types.is_floating(kind):
        raise DataError(f"{origin.name}: column {name!r}: each time must be {expected}, got {kind}")
    values = _numbers(column, pa.float64(), np.float64)
    scale = 1 if np.array_equal(values, np.floor(values)) else 1_000_000
    wrong = ~(np.abs(values) * scale < 2**63)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise origin.error(row, f"column {name!r}: each time must be {expected}, got {values[row]}; "
                                "mend or drop the row")  # fmt: skip
    return np.rint(values * scale).astype(np.int64)


def ratings(column: pa.ChunkedArray, name: str, origin: Origin) -> npt.NDArray[np.float64]:
    """Ratings (n,) float64, none of them NaN."""
    if column.null_count:
        raise _missing(column, f"rating ({name!r})", origin)
    column = _plain(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parsed(column, [pa.float64()], f"column {name!r}", "a number", origin)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(f"{origin.name}: column {name!r}: ratings must be numbers, got {column.type}")
    values: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    if np.isnan(values).any():
        raise origin.error(int(np.argmax(np.isnan(values))), f"column {name!r}: expected a number, got nan")
    return values


def _numbers(column: pa.ChunkedArray, kind: Any, dtype: Any) -> npt.NDArray[Any]:
    """Values of a column of numbers as another type, by chunk."""
    empty = np.zeros(0, dtype)
    return joined([empty, *(chunk.cast(kind).to_numpy() for chunk in column.chunks)])


def _parsed(column: pa.ChunkedArray, kinds: list[Any], what: str, expected: str, origin: Origin) -> pa.ChunkedArray:
    """Strings as the first of the types that all of them can be read as."""
    furthest = -1
    for kind in kinds:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            furthest = max(furthest, _first_failing(column, kind))
    raise origin.error(furthest, f"{what}: expected {expected}, got {column[furthest].as_py()!r}; mend or drop the row")


def _first_failing(column: pa.ChunkedArray, kind: Any) -> int:
    """Index of the first value that cannot be cast, by bisection."""
    fine, failing = 0, len(column)
    while failing - fine > 1:
        middle = (fine + failing) // 2
        try:
            column.slice(fine, middle - fine).cast(kind)
            fine = middle
        except pa.ArrowInvalid:
            failing = middle
    return fine


def _missing(column: pa.ChunkedArray, role: str, origin: Origin) -> DataError:
    return origin.error(_first(column.is_null()), f"the {role} is missing; fill it in or drop the row")


def _first(mask: pa.ChunkedArray | pa.Array) -> int:
    return int(pc.index(mask, True).as_py())


def encoded(column: pa.Array) -> pa.Array:
    """Text as codes of its distinct values, which takes less room than the text; anything else as it is."""
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return _plain(column).dictionary_encode() if text else column


def _plain(column: Any) -> Any:
    """String views, which few functions of Arrow take, as strings."""
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column

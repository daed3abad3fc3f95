"""Columns of an event table: which is which, and their values as ids, times and ratings, every fault named by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir.data.ragged import sealed
from rsir.data.sequences import Int64Array
from rsir.errors import DataError
from rsir.runtime import memory

_PART = 2**22  # values looked up at a time

# Usual names, likeliest first, compared in lower case without punctuation. A column of lists may end in list, seq
# or s (item_id-list), and of a field within records the last part counts (events.aid).
USUAL_NAMES = {
    "user": "userid user uid useridx userno customerid customer reviewerid visitorid memberid accountid "
    "profileid authorid householdkey sessionid session",
    "item": "itemid item iid itemidx itemno productid product asin parentasin movieid businessid gmapid bookid isbn "
    "articleid newsid trackid songid artistid videoid gameid appid venueid poiid sku aid stockcode",
    "time": "timestamp time ts unixtime unixtimestamp unixreviewtime datetime date eventtime eventtimestamp "
    "createdat reviewtime invoicedate dateadded",
    "rating": "rating rate ratings score stars overall ratingscore bookrating",
}


MARKERS = ("NA", "N/A", "<NA>", "NaN", "nan", "NAN", "null", "NULL", "Null", "None", "none", "NONE", "nil", "\\N")
"""What tables of text hold where a value is missing."""


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
        if wanted.isdecimal() and int(wanted) < len(present):
            return present[int(wanted)]
        raise DataError(
            f"{name}: no column {wanted!r} for the {role} (data.{role}); its columns are {listed}: give a name, or a "
            "number from 0"
        )
    simple = {simplified(column): column for column in reversed(present)}
    last = {simplified(column.rpartition(".")[2]): column for column in reversed(present)}
    for names in (simple, last):
        for ending in ("", "list", "seq", "s", "sequence"):
            for candidate in USUAL_NAMES[role].split():
                if candidate + ending in names:
                    return names[candidate + ending]
    if role in ("user", "item"):
        raise DataError(
            f"{name}: which column holds the {role} ids? None has a usual name such as {role}_id; "
            f"its columns are {listed}: name one by the option data.{role}"
        )
    return None


def simplified(name: str) -> str:
    """A column's name in lower case without punctuation."""
    return "".join(filter(str.isalnum, name.lower()))


def ids(column: pa.ChunkedArray, role: str, origin: Origin, from_text: bool) -> tuple[Int64Array, pa.Array]:
    """Ids as codes (n,) int64 into an array of distinct labels (strings or int64).

    Labels read from text become int64 if every one of them is an integer in plain form (no leading zeros or plus).
    """
    if column.null_count:
        raise missing(column, role, origin)
    column = identifiers(column, role, origin)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if memory.current() is not None and not pa.types.is_dictionary(column.type):
        codes, labels = _codes_by_part(column)
        return _labelled(codes, labels, role, origin, from_text)
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = np.concatenate([np.zeros(0, np.int64), *(chunk.indices.to_numpy() for chunk in encoded.chunks)])
    labels = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], kind)
    if not pa.types.is_integer(labels.type):
        codes, labels = _distinct(codes, labels)
    return _labelled(codes.astype(np.int64), labels, role, origin, from_text)


def identifiers(column: pa.ChunkedArray, role: str, origin: Origin) -> pa.ChunkedArray:
    """A column without nulls as integers that fit int64, or as text, or as codes of either."""
    column = plain(column)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):  # what pandas makes of integers once it has seen a missing value
        column = column.cast(kind)
        whole = pc.equal(column, pc.floor(column))
        if not pc.all(whole).as_py():
            row = first(pc.invert(whole))
            raise origin.error(row, f"the {role} id must be an integer or a string, got {column[row].as_py()}")
        exact = pc.less_equal(pc.abs(column), float(2**53))
        if not pc.all(exact).as_py():
            row = first(pc.invert(exact))
            raise origin.error(
                row,
                f"the {role} ids are floats, and {column[row].as_py():.0f} is above 2**53, from where on neighbours "
                "are the same float; write ids as integers or as text",
            )
        return column.cast(pa.int64())
    if pa.types.is_decimal(kind):
        column = column.cast(kind)
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column.cast(pa.string())
    if pa.types.is_uint64(kind):
        column = column.cast(kind)
        return column.cast(pa.string() if len(column) and pc.max(column).as_py() >= 2**63 else pa.int64())
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        return pa.chunked_array([_uuids(chunk) for chunk in codes.chunks], pa.dictionary(pa.int32(), pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.cast(kind).cast(pa.large_string())
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{origin.name}: {role} ids must be strings or integers, got {kind}; choose another column by "
                        f"the option data.{role}, or convert it")  # fmt: skip
    return column


def _uuids(codes: pa.DictionaryArray) -> pa.DictionaryArray:
    """Codes of 16 bytes each, as codes of how a UUID is written."""
    written = [str(UUID(bytes=value)) for value in codes.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(codes.indices.cast(pa.int32()), pa.array(written, pa.string()))


def _labelled(
    codes: Int64Array, labels: pa.Array, role: str, origin: Origin, from_text: bool
) -> tuple[Int64Array, pa.Array]:
    if not pa.types.is_integer(labels.type):
        empty = pc.equal(labels, "")
        if pc.any(empty).as_py():
            row = int(np.argmax(codes == first(empty)))
            raise origin.error(row, f"the {role} id is an empty string; fill it in or drop the row")
    return _numbered(codes, labels, role, origin) if from_text else (codes, labels)


def _numbered(codes: Int64Array, labels: pa.Array, role: str, origin: Origin) -> tuple[Int64Array, pa.Array]:
    """Labels from text, as integers where all are: 7, and 7.0 too, which is the same id as 7.

    DataError where 7 stands beside 7.0 among other labels, or where numbers have been rounded (1.2e+17).
    """
    labels = plain_integers(labels)
    if pa.types.is_integer(labels.type):
        return codes, labels
    rounded = pc.match_substring_regex(labels, r"^-?[0-9](\.[0-9]+)?[eE]\+?[0-9]+$")
    numbers = pc.match_substring_regex(labels, r"^-?[0-9]+(\.[0-9]*)?([eE]\+?[0-9]+)?$")
    if pc.any(rounded).as_py() and pc.all(numbers).as_py():
        place = first(rounded)
        raise origin.error(
            int(np.argmax(codes == place)),
            f"the {role} id {labels[place].as_py()!r} is a rounded number, which others share; write ids as integers",
        )
    pointed = pc.match_substring_regex(labels, r"^-?[0-9]+\.0+$")
    if not pc.any(pointed).as_py():
        return codes, labels
    bare = pc.if_else(pointed, pc.replace_substring_regex(labels, r"\.0+$", ""), labels)
    if pc.all(pc.match_substring_regex(bare, r"^(0|-?[1-9][0-9]{0,17})$")).as_py():
        whole = bare.cast(pa.int64())
        inexact = pc.and_(pointed, pc.greater(pc.abs(whole), 2**53))
        if not pc.any(inexact).as_py():
            distinct = whole.dictionary_encode()
            return distinct.indices.to_numpy().astype(np.int64)[codes], distinct.dictionary
        place = first(inexact)
        raise origin.error(
            int(np.argmax(codes == place)),
            f"the {role} ids are floats, and {labels[place].as_py()} is above 2**53, from where on neighbours are the "
            "same float; write ids as integers or as text",
        )
    twice = pc.and_(pointed, pc.is_in(bare, labels))
    if pc.any(twice).as_py():
        place = first(twice)
        raise origin.error(
            int(np.argmax(codes == place)),
            f"the {role} ids hold both {bare[place].as_py()!r} and {labels[place].as_py()!r}, likely one and the same; "
            "write ids one way",
        )
    return codes, labels


def _codes_by_part(column: pa.ChunkedArray) -> tuple[Int64Array, pa.Array]:
    """Codes and distinct values, with these and a part of the column in memory."""
    labels, new = pa.array([], column.type), []
    for part in _parts(column):
        new.append(pc.unique(part))
        if sum(map(len, new)) > len(labels):
            labels, new = pc.unique(pa.chunked_array([labels, *new])), []
    labels = pc.unique(pa.chunked_array([labels, *new]))
    codes, start = memory.empty(len(column), np.int64), 0
    for part in _parts(column):
        codes[start : start + len(part)] = pc.index_in(part, labels).to_numpy()
        start += len(part)
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


def missing(column: pa.ChunkedArray, role: str, origin: Origin) -> DataError:
    return origin.error(first(column.is_null()), f"the {role} is missing; fill it in or drop the row")


def first(mask: pa.ChunkedArray | pa.Array) -> int:
    return int(pc.index(mask, True).as_py())


def encoded(column: pa.Array) -> pa.Array:
    """Text as codes of its distinct values, which takes less room than the text; anything else as it is."""
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return plain(column).dictionary_encode() if text else column


def plain(column: Any) -> Any:
    """String views, which few functions of Arrow take, as strings; types of others (UUIDs) as what they are made of."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column

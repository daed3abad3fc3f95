"""Times and ratings of an event table, and the rows of it that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rsir.data.io.columns import MARKERS, Origin, missing, plain
from rsir.data.ragged import joined
from rsir.data.sequences import Int64Array
from rsir.errors import DataError

__all__ = ["rated", "ratings", "timed", "times", "usable_ids"]

_USUAL_FORMATS = (
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%d/%b/%Y:%H:%M:%S %z",
    "%d-%b-%Y",
    "%m %d, %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EXPECTED = "an integer, a number or an ISO date such as 2024-05-31T12:00:00"


def times(column: pa.ChunkedArray, name: str, origin: Origin, form: str | None = None) -> Int64Array:
    """Times (n,) int64. Integers stay as they are, and so do whole floats.

    Floats with a fraction are multiplied by a million, so that the order within a second is kept; dates become
    microseconds since 1970 (without a zone they are taken as UTC).

    Parameters
    ----------
    column : (n,) Arrow column
    name : str
        The column's, for messages.
    origin : Origin
    form : str, optional
        How times are written, as for Python's strptime.
    """
    if column.null_count:
        raise missing(column, f"time ({name!r})", origin)
    column = _decoded(column)
    if form is not None and not _is_date(column.type):
        column = _by_format(column, form, name, origin)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _parsed_times(column, name, origin)
        kind = column.type
    if _is_date(kind):
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
        raise DataError(f"{origin.name}: column {name!r}: each time must be {_EXPECTED}, got {kind}")
    values = _numbers(column, pa.float64(), np.float64)
    scale = 1 if np.array_equal(values, np.floor(values)) else 1_000_000
    wrong = ~(np.abs(values) * scale < 2**63)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise origin.error(row, f"column {name!r}: each time must be {_EXPECTED}, got {values[row]}; "
                                "fix or drop the row")  # fmt: skip
    return np.rint(values * scale).astype(np.int64)


_TIME_KINDS: list[Any] = [pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")]


def _parsed_times(column: pa.ChunkedArray, name: str, origin: Origin) -> pa.ChunkedArray:
    """Strings as numbers or times."""
    furthest, failing = -1, column
    for texts, kinds in ((column, _TIME_KINDS), (None, _TIME_KINDS[2:])):
        texts = _tidy(column) if texts is None else texts
        for kind in kinds:
            try:
                return texts.cast(kind)
            except pa.ArrowInvalid:
                place = _first_failing(texts, kind)
                furthest, failing = max((furthest, failing), (place, column), key=lambda found: found[0])
    value = failing[furthest].as_py()
    forms = [form for form in _USUAL_FORMATS if _reads(form, value)]
    if forms:
        then = f"say how it is written by --data.time_format '{forms[0]}'"
        if "%m/%d" in forms[0] and _reads(forms[0].replace("%m/%d", "%d/%m"), value):
            then += f" ('{forms[0].replace('%m/%d', '%d/%m')}' if the day comes first)"
    else:
        then = "fix or drop the row"
    raise origin.error(furthest, f"column {name!r}: expected {_EXPECTED}, got {value!r}; {then}")


def _tidy(column: Any) -> Any:
    """Dates that end in UTC, or have more than six digits after the point, as Arrow reads them: to the microsecond."""
    column = pc.replace_substring_regex(column, r"\s*(UTC|GMT|Z)\s*$", "Z")
    return pc.replace_substring_regex(column, r"(:[0-9]{2}\.[0-9]{6})[0-9]+", r"\1")


def _reads(form: str, value: str) -> bool:
    try:
        datetime.strptime(value, form)
    except ValueError:
        return False
    return True


def _by_format(column: pa.ChunkedArray, form: str, name: str, origin: Origin) -> pa.ChunkedArray:
    """Text as microseconds since 1970 by a format; each distinct text once where Arrow does not know the format."""
    column = column.cast(pa.large_string())
    if not re.search("%[^YmdHMSbp%/ ]", form):
        found = pc.strptime(column, format=form, unit="us", error_is_null=True)
        if not found.null_count:
            return found
    codes = column.combine_chunks().dictionary_encode() if isinstance(column, pa.ChunkedArray) else column
    micros = np.zeros(len(codes.dictionary), np.int64)
    for place, value in enumerate(codes.dictionary.to_pylist()):
        try:
            when = datetime.strptime(value, form)
        except ValueError as error:
            if not str(error).startswith(("time data", "unconverted")):
                raise DataError(f"{origin.name}: data.time_format {form!r} is no format: {error}") from error
            row = int(np.argmax(codes.indices.to_numpy() == place))
            raise origin.error(
                row, f"column {name!r}: expected a time written as {form!r} (data.time_format), got {value!r}; fix or "
                "drop the row",
            ) from None  # fmt: skip
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        micros[place] = (when - _EPOCH) // timedelta(microseconds=1)
    return pa.chunked_array([pa.array(micros[codes.indices.to_numpy()]).cast(pa.timestamp("us"))])


def _is_date(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def _decoded(column: Any) -> Any:
    column = plain(column)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def ratings(column: pa.ChunkedArray, name: str, origin: Origin) -> npt.NDArray[np.float64]:
    """Ratings (n,) float64, none of them NaN."""
    if column.null_count:
        raise missing(column, f"rating ({name!r})", origin)
    column = plain(column)
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
    raise origin.error(furthest, f"{what}: expected {expected}, got {column[furthest].as_py()!r}; fix or drop the row")


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


Mask = npt.NDArray[np.bool_]


def usable_ids(column: Any, from_text: bool) -> Mask:
    """(n,) bool: which ids are there: not missing, empty, a marker of a missing value, or a number with a fraction."""
    column = _decoded(column)
    good = column.is_valid()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        absent = pa.array(["", *MARKERS], column.type)
        good = pc.and_(good, pc.invert(pc.is_in(column, absent)))
    elif pa.types.is_floating(column.type):
        good = pc.and_(good, pc.fill_null(pc.equal(column, pc.floor(column)), False))
    return _array(good)


def timed(sample: Any, form: str | None) -> Callable[[Any], Mask]:
    """Tells of columns which of their times can be read, in the way that most of a sample can be."""

    def by_kind(kind: Any) -> Callable[[Any], Mask]:
        def mask(column: Any) -> Mask:
            column = _decoded(column)
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                good = column.is_valid()
                if pa.types.is_floating(column.type):
                    good = pc.and_(good, pc.fill_null(pc.is_finite(column), False))
                return _array(good)
            return _castable(_tidy(column) if pa.types.is_timestamp(kind) else column, kind)

        return mask

    def by_form(column: Any) -> Mask:
        column = _decoded(column)
        if _is_date(column.type):
            return _array(column.is_valid())
        codes = column.cast(pa.large_string()).dictionary_encode(null_encoding="encode")
        codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
        known = np.array([v is not None and _reads(str(form), v) for v in codes.dictionary.to_pylist()], bool)
        return known[codes.indices.to_numpy()] if len(codes) else np.zeros(0, bool)

    if form is not None:
        return by_form
    kinds = [by_kind(kind) for kind in _TIME_KINDS]
    return max(kinds, key=lambda mask: int(mask(sample).sum()))


def rated(column: Any) -> Mask:
    """(n,) bool: which ratings can be read."""
    column = _decoded(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        good = _castable(column, pa.float64())
        nan = pc.fill_null(pc.is_in(pc.utf8_lower(column), pa.array(["nan", "+nan", "-nan"], column.type)), True)
        return good & ~_array(nan)
    good = column.is_valid()
    if pa.types.is_floating(column.type):
        good = pc.and_(good, pc.invert(pc.fill_null(pc.is_nan(column), True)))
    return _array(good)


def _castable(column: Any, kind: Any) -> Mask:
    """(n,) bool: which texts can be cast, by halves."""
    good = np.zeros(len(column), bool)
    waiting = [(0, len(column))]
    while waiting:
        first, last = waiting.pop()
        try:
            part = column.slice(first, last - first).cast(kind)
            valid = part.is_valid()
            if pa.types.is_floating(kind):
                valid = pc.and_(valid, pc.fill_null(pc.is_finite(part), False))
            good[first:last] = _array(valid)
        except pa.ArrowInvalid:
            if last - first > 1:
                middle = (first + last) // 2
                waiting += [(first, middle), (middle, last)]
    return good


def _array(mask: Any) -> Mask:
    return np.asarray(mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask.to_numpy(), bool)

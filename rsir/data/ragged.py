"""Lists of different lengths in two arrays, and what :class:`rsir.data.Sequences` is made of: checked and frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rsir.errors import DataError
from rsir.runtime import memory

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


def offsets_of(lengths: npt.ArrayLike) -> Int64Array:
    """Offsets (n + 1,) int64 of rows of the given lengths (n,)."""
    lengths = np.asarray(lengths, np.int64)
    offsets = memory.empty(lengths.size + 1, np.int64)
    offsets[0] = 0
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths: row r is ``values[offsets[r]:offsets[r + 1]]``.

    Attributes
    ----------
    values : (nnz,)
        All rows, one after the other.
    offsets : (n + 1,) int64
        From 0 to nnz, never falling.

    Raises
    ------
    DataError
        Offsets that do not begin at 0 or do not end at the number of values.
    """

    values: npt.NDArray[Any]
    offsets: Int64Array

    def __post_init__(self) -> None:
        ends = [int(self.offsets[0]), int(self.offsets[-1])] if len(self.offsets) else []
        if ends != [0, len(self.values)]:
            raise DataError(f"offsets: expected to go from 0 to the number of values, {len(self.values)}, got {ends}")

    @classmethod
    def from_lists(cls, rows: Iterable[npt.ArrayLike], dtype: npt.DTypeLike = np.int32) -> Ragged:
        """From one list a row."""
        arrays = [np.asarray(row, dtype) for row in rows]
        return cls(np.concatenate([np.zeros(0, dtype), *arrays]), offsets_of([len(row) for row in arrays]))

    @classmethod
    def windows(cls, values: npt.NDArray[Any], starts: Int64Array, lengths: Int64Array) -> Ragged:
        """Row r: the ``lengths[r]`` entries of ``values`` from ``starts[r]`` on; read-only."""
        offsets = offsets_of(lengths)
        return cls(gathered(values, starts, offsets), sealed(offsets))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """One row, a view; rows below 0 count from the end."""
        n = len(self)
        if not -n <= row < n:
            raise IndexError(f"row must be in {-n}..{n - 1}, got {row}")
        row %= n
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int64Array:
        """(n,) int64"""
        return np.diff(self.offsets)

    def rows(self, first: int, last: int) -> Ragged:
        """Rows first..last - 1; values are not copied."""
        offsets = self.offsets[first : last + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def where(self, kept: npt.NDArray[np.bool_]) -> Ragged:
        """The values for which ``kept`` (nnz,) is true; as many rows as before."""
        return Ragged(self.values[kept], np.concatenate([[0], np.cumsum(kept)])[self.offsets])

    def take(self, rows: Int64Array) -> Ragged:
        """Some rows, (m,) int64, in the order given."""
        return Ragged.windows(self.values, self.offsets[:-1][rows], self.lengths[rows])


@dataclass(frozen=True, eq=False)
class Timed(Ragged):
    """Histories that know when each of their items came, and when what comes next is asked for.

    Attributes
    ----------
    times : (nnz,) int64
        Of each value, never falling within a row.
    asked : (n,) int64
        After each row.

    Raises
    ------
    DataError
        Not one time a value, or not one a row.
    """

    times: Int64Array
    asked: Int64Array

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times.shape != self.values.shape or self.asked.shape != (len(self),):
            raise DataError(
                f"times: expected one for each of {len(self.values)} values and one to ask at for each of {len(self)} "
                f"rows, got shapes {self.times.shape} and {self.asked.shape}"
            )

    def rows(self, first: int, last: int) -> Timed:
        own = super().rows(first, last)
        start = int(self.offsets[first])
        return Timed(own.values, own.offsets, self.times[start : start + len(own.values)], self.asked[first:last])

    def where(self, kept: npt.NDArray[np.bool_]) -> Timed:
        own = super().where(kept)
        return Timed(own.values, own.offsets, self.times[kept], self.asked)

    def take(self, rows: Int64Array) -> Timed:
        own = super().take(rows)
        return Timed(
            own.values, own.offsets, gathered(self.times, self.offsets[:-1][rows], own.offsets), self.asked[rows]
        )


def ragged_indices(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Indices (sum of lengths,) int64 of ``starts[r] .. starts[r] + lengths[r] - 1``, row after row."""
    offsets = offsets_of(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def gathered(values: npt.NDArray[Any], starts: Int64Array, offsets: Int64Array) -> npt.NDArray[Any]:
    """Rows of `values` (nnz,), row r the ``offsets[r + 1] - offsets[r]`` entries from ``starts[r]`` on; read-only."""
    out = memory.empty(int(offsets[-1]), values.dtype)
    for rows in memory.row_blocks(offsets):
        own = offsets[rows.start : rows.stop + 1]
        out[own[0] : own[-1]] = values[ragged_indices(starts[rows], np.diff(own))]
    return sealed(out)


def joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Arrays one after the other; read-only."""
    out, first = memory.empty(sum(part.size for part in parts), parts[0].dtype), 0
    for part in parts:
        for block in memory.blocks(part.size):
            out[first + block.start : first + block.stop] = part[block]
        first += part.size
    return sealed(out)


def sealed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array that nobody else holds, read-only from now on, so that `frozen` need not copy it."""
    array.flags.writeable = False
    return array


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only array with the content of this one, copied if somebody could write to it."""
    array = np.ascontiguousarray(array)
    return joined([array]) if array.flags.writeable else array


def integers(name: str, values: npt.ArrayLike, dtype: type[np.signedinteger[Any]] | None) -> npt.NDArray[Any]:
    """One-dimensional integers as a type that must hold them all; without one as they are."""
    try:
        array = np.asarray(values)
    except ValueError as cause:  # lists of different lengths
        raise DataError(f"{name} must hold integers, got lists within: {cause}") from cause
    if array.ndim != 1:
        raise DataError(f"{name} must have one dimension, got shape {array.shape}")
    if array.size == 0:
        return array.astype(dtype or np.int64)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} must hold integers, got {array.dtype}")
    if dtype is None:
        return array
    info = np.iinfo(dtype)
    if not np.can_cast(array.dtype, dtype):
        low, high = extent(array)
        if low < info.min or high > info.max:
            raise DataError(f"{name} must fit {np.dtype(dtype)}, got {low}..{high}")
    return array if array.dtype == dtype else _converted(array, dtype)


def extent(array: npt.NDArray[Any]) -> tuple[int, int]:
    """Least and greatest entry of an array that is not empty."""
    ends = [(array[block].min(), array[block].max()) for block in memory.blocks(array.size)]
    return int(min(low for low, _ in ends)), int(max(high for _, high in ends))


def _converted(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    out = memory.empty(array.size, dtype)
    for block in memory.blocks(array.size):
        out[block] = array[block]
    return sealed(out)


def checked_offsets(values: npt.ArrayLike, nnz: int) -> Int64Array:
    """Offsets of rows of `nnz` entries in all."""
    offsets = frozen(integers("offsets", values, np.int64))
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != nnz:
        ends = f"{offsets[0]}..{offsets[-1]}" if offsets.size else "an empty array"
        raise DataError(f"offsets must go from 0 to the number of items, {nnz}, got {ends}")
    for block in memory.blocks(offsets.size - 1):
        falls = offsets[block.start + 1 : block.stop + 1] < offsets[block]
        if falls.any():
            row = block.start + int(np.argmax(falls))
            raise DataError(f"offsets must not decrease, but row {row} goes from {offsets[row]} to {offsets[row + 1]}")
    return offsets


def checked_items(values: npt.ArrayLike, offsets: Int64Array, num_items: int) -> Int32Array:
    """Item ids 1..num_items."""
    items = np.asarray(values)
    for block in memory.blocks(items.size):
        bad = (items[block] < 1) | (items[block] > num_items)
        if bad.any():
            index = block.start + int(np.argmax(bad))
            row = int(np.searchsorted(offsets, index, side="right")) - 1
            raise DataError(
                f"item ids must be in 1..{num_items}, but row {row} has {items[index]} "
                f"at position {index - int(offsets[row])}"
            )
    return frozen(items if items.dtype == np.int32 else _converted(items, np.int32))


def checked_times(values: npt.ArrayLike, nnz: int, offsets: Int64Array) -> Int64Array:
    """Times that never decrease within a row."""
    times = frozen(integers("times", values, np.int64))
    if times.size != nnz:
        raise DataError(f"times must have one entry for each of the {nnz} items, got {times.size}")
    for block in memory.blocks(nnz - 1):
        falls = times[block.start + 1 : block.stop + 1] < times[block]
        first, last = np.searchsorted(offsets, [block.start + 1, block.stop + 1])
        falls[offsets[first:last] - 1 - block.start] = False  # between the rows times may fall
        if falls.any():
            index = block.start + int(np.argmax(falls))
            row = int(np.searchsorted(offsets, index, side="right")) - 1
            raise DataError(
                f"times must not decrease within a row, but row {row} has {times[index]} "
                f"before {times[index + 1]}; sort each row by time"
            )
    return times


def checked_labels(name: str, labels: Any) -> pa.Array:
    """Strings or integers without nulls, as large strings or int64."""
    if isinstance(labels, pa.ChunkedArray):
        labels = labels.combine_chunks()
    if not isinstance(labels, pa.Array):
        raise DataError(f"{name} must be a pyarrow array, got {type(labels).__name__}; wrap it in pyarrow.array")
    if pa.types.is_integer(labels.type):
        wanted = pa.int64()
    elif pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type):
        wanted = pa.large_string()
    else:
        raise DataError(f"{name} must be strings or integers, got {labels.type}")
    if labels.null_count:
        raise DataError(f"{name} must not have nulls, got {labels.null_count}")
    try:
        return labels.cast(wanted)
    except pa.ArrowInvalid as error:
        raise DataError(f"{name} must fit {wanted}: {error}") from error


def label_arrays(labels: pa.Array | None) -> list[npt.NDArray[Any]]:
    """Content of a label table, however it is laid out in memory: integers, or lengths and UTF-8 bytes."""
    if labels is None:
        return []
    if pa.types.is_integer(labels.type):
        return [labels.to_numpy()]
    offsets = np.frombuffer(labels.buffers()[1], np.int64)[labels.offset : labels.offset + len(labels) + 1]
    data = labels.buffers()[2]
    if data is None or data.size == 0:
        return [np.diff(offsets)]
    return [np.diff(offsets), np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]]


def counts_of(codes: Int32Array | Int64Array, size: int) -> Int64Array:
    """How often each code 0..size - 1 occurs, (size,) int64."""
    counts = np.zeros(size, np.int64)
    for block in memory.blocks(codes.size):
        counts += np.bincount(codes[block], minlength=size)
    return counts

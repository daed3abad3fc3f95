"""What :class:`rsir.data.Sequences` is made of, checked and frozen, a block of the entries at a time."""

from __future__ import annotations

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
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{name} must have one dimension, got shape {array.shape}")
    if array.size == 0:
        return array.astype(dtype)
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

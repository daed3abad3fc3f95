"""`Sequences`: many users' item sequences, real and generated, in flat read-only arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
FileFormat = Literal["parquet", "arrow"]

MAX_ITEMS = 2**31 - 2  # ids are int32 and embedding tables have one row more, for the padding


class DataError(ValueError):
    """Data, or a file of data, that cannot be used; the message says what was found and how to mend it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sequences:
    """Sequences of items, oldest first, stored flat and immutable; everything is checked on construction.

    Real sequences come first. A generated one (a trajectory) names the real row it started from. A set may
    also hold trajectories alone; `source` then refers to the real set that they are meant to be joined to.

    Parameters
    ----------
    items : (nnz,) int32
        Item ids 1..num_items of all rows, one after the other. 0 is padding and never occurs.
    offsets : (n + 1,) int64
        Row r is ``items[offsets[r]:offsets[r + 1]]``. Rows may be empty.
    num_items : int
        Size N of the catalogue.
    source : (n,) int64, default: every row its own
        Real row that each row came from; a real row names itself.
    round : (n,) int16, default: zeros
        Round in which a row was generated; 0 marks a real one.
    times : (nnz,) int64, optional
        When each interaction took place, never decreasing within a row; any unit.
    item_labels : (num_items,) pyarrow array of strings or integers, optional
        The outside name of item id i is ``item_labels[i - 1]``. No nulls, no name twice.
    user_labels : pyarrow array of strings or integers, optional
        The outside name of the user of each real row, indexed by `source`. No nulls.

    Raises
    ------
    DataError
        If any of this does not hold. Any integer type may be given; a value that does not fit is an error.

    Notes
    -----
    Writable arrays are copied, so a later change of the caller's array cannot reach the sequences.
    """

    items: Int32Array
    offsets: Int64Array
    num_items: int
    source: Int64Array = None  # type: ignore[assignment]  # filled in by __post_init__
    round: npt.NDArray[np.int16] = None  # type: ignore[assignment]  # filled in by __post_init__
    times: Int64Array | None = None
    item_labels: pa.Array | None = None
    user_labels: pa.Array | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if isinstance(self.num_items, bool) or not isinstance(self.num_items, (int, np.integer)):
            raise DataError(f"num_items must be an integer, got {self.num_items!r}")
        if not 1 <= self.num_items <= MAX_ITEMS:
            raise DataError(f"num_items must be in 1..{MAX_ITEMS}, got {self.num_items}")
        put("num_items", int(self.num_items))
        put("offsets", _checked_offsets(self.offsets, _integers("items", self.items, np.int64).size))
        n = len(self)
        put("items", _checked_items(self.items, self.offsets, self.num_items))
        rounds = np.zeros(n, np.int16) if self.round is None else _integers("round", self.round, np.int16)
        source = np.arange(n) if self.source is None else _integers("source", self.source, np.int64)
        put("round", _frozen(rounds))
        put("source", _frozen(source))
        self._check_rows()
        if self.times is not None:
            put("times", _checked_times(self.times, self.items.size, self.offsets))
        if self.item_labels is not None:
            put("item_labels", _checked_labels("item_labels", self.item_labels))
            if len(self.item_labels) != self.num_items:
                raise DataError(f"item_labels must name {self.num_items} items, got {len(self.item_labels)} labels")
            if pc.count_distinct(self.item_labels).as_py() != self.num_items:
                raise DataError("item_labels must be distinct, but a label occurs twice")
        if self.user_labels is not None:
            put("user_labels", _checked_labels("user_labels", self.user_labels))
            real = self.num_real
            if real and len(self.user_labels) != real:
                raise DataError(
                    f"user_labels must have one label for each of the {real} real rows, got {len(self.user_labels)}"
                )
            if n and len(self.user_labels) <= self.source.max():
                raise DataError(
                    f"user_labels is indexed by source, which goes up to {self.source.max()}, "
                    f"but has only {len(self.user_labels)} labels"
                )

    def _check_rows(self) -> None:
        n = len(self)
        for name, array in (("round", self.round), ("source", self.source)):
            if array.size != n:
                raise DataError(f"{name} must have one entry for each of the {n} rows, got {array.size}")
        if n == 0:
            return
        if self.round.min() < 0:
            row = int(np.argmax(self.round < 0))
            raise DataError(f"round must not be negative, but row {row} has {self.round[row]}")
        real = self.num_real
        if self.round[:real].any():
            row = int(np.argmax(self.round != 0))
            raise DataError(
                f"real rows (round 0) must come first, but row {row} of round {self.round[row]} "
                "precedes one; join parts with Sequences.concat"
            )
        wrong = self.source[:real] != np.arange(real)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"a real row is its own source, but row {row} names {self.source[row]}")
        generated = self.source[real:]
        bad = (generated < 0) | (generated >= (real or np.iinfo(np.int64).max))
        if bad.any():
            row = real + int(np.argmax(bad))
            known = f"one of the {real} real rows" if real else "not negative"
            raise DataError(f"the source of a generated row must be {known}, but row {row} has {self.source[row]}")

    def __len__(self) -> int:
        """Number of rows, real and generated."""
        return self.offsets.size - 1

    def __getitem__(self, row: int) -> Int32Array:
        """Items of one row, oldest first: a read-only view (length,) int32; rows below 0 count from the end."""
        n = len(self)
        if not -n <= row < n:
            raise IndexError(f"row must be in {-n}..{n - 1}, got {row}")
        row = row % n
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def __repr__(self) -> str:
        return (
            f"Sequences({self.num_real:,} real and {len(self) - self.num_real:,} generated rows, "
            f"{self.num_items:,} items, {self.num_interactions:,} interactions)"
        )

    @property
    def lengths(self) -> Int64Array:
        """(n,) int64: number of items of each row."""
        return np.diff(self.offsets)

    @property
    def num_interactions(self) -> int:
        """Number of interactions over all rows."""
        return self.items.size

    @property
    def is_real(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: whether each row is real rather than generated."""
        return self.round == 0

    @property
    def num_real(self) -> int:
        """Number of real rows; they are rows 0..num_real - 1."""
        return int(np.count_nonzero(self.round == 0))

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int]], num_items: int | None = None, **fields: Any) -> Sequences:
        """Build from one list of item ids a row; `fields` are the other arguments of the constructor.

        `num_items` defaults to the largest id that occurs. It loops in Python: meant for tests and small
        data.
        """
        rows = [list(row) for row in lists]
        items = [item for row in rows for item in row]
        if num_items is None:
            if not items:
                raise DataError("num_items must be given when there is no item to take it from")
            num_items = max(items)
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(items=np.array(items or np.zeros(0, np.int32)), offsets=offsets, num_items=num_items, **fields)

    def select(self, rows: npt.ArrayLike) -> Sequences:
        """Some rows, in the order given; the catalogue stays whole.

        Parameters
        ----------
        rows : (m,) int or (n,) bool
            Which rows, or a mask over all of them. Real rows must precede generated ones. Sources are
            renumbered to the rows kept; if no real row is kept they stay as they are, and so do the user
            labels.

        Raises
        ------
        DataError
            If a row does not exist, or a generated row is kept without its source while other real rows are
            kept.
        """
        picked = np.asarray(rows)
        if picked.dtype == np.bool_:
            if picked.shape != (len(self),):
                raise DataError(f"a mask must have shape ({len(self)},), got {picked.shape}")
            picked = np.flatnonzero(picked)
        picked = _integers("rows", picked, np.int64)
        if picked.size and (picked.min() < 0 or picked.max() >= len(self)):
            raise DataError(f"rows must be in 0..{len(self) - 1}, got {picked.min()}..{picked.max()}")
        lengths = self.lengths[picked]
        indices = ragged_indices(self.offsets[picked], lengths)
        source, user_labels = self.source[picked], self.user_labels
        real = picked[self.round[picked] == 0]
        if real.size:
            # written backwards, so that of a real row kept twice the first copy is the source
            place = np.full(self.num_real, -1, np.int64)
            place[real[::-1]] = np.arange(real.size)[::-1]
            source = place[source]
            source[: real.size] = np.arange(real.size)
            if (source < 0).any():
                row = picked[np.argmax(source < 0)]
                raise DataError(
                    f"generated row {row} is kept but its source, row {self.source[row]}, is not; "
                    "keep it as well, or keep generated rows only"
                )
            user_labels = None if user_labels is None else user_labels.take(pa.array(real))
        return Sequences(
            items=self.items[indices],
            offsets=offsets_of(lengths),
            num_items=self.num_items,
            source=source,
            round=self.round[picked],
            times=None if self.times is None else self.times[indices],
            item_labels=self.item_labels,
            user_labels=user_labels,
        )

    @classmethod
    def concat(cls, *parts: Sequences) -> Sequences:
        """Join rows. At most one part may hold real rows; it goes first, the others keep their order.

        Labels are those of the part that goes first. Times are kept if every part that has rows has them.

        Raises
        ------
        DataError
            If two parts hold real rows, the catalogues differ in size, or a source is not there.
        """
        if not parts:
            raise DataError("nothing to join: give at least one Sequences")
        real = [part for part in parts if part.num_real]
        if len(real) > 1:
            raise DataError(
                f"at most one part may hold real rows, got {len(real)}; "
                "generated parts refer to the rows of one real set"
            )
        ordered = real + [part for part in parts if not part.num_real]
        sizes = sorted({part.num_items for part in ordered})
        if len(sizes) > 1:
            raise DataError(f"parts must share one catalogue, got catalogues of {', '.join(map(str, sizes))} items")
        timed = all(part.times is not None for part in ordered if len(part))
        times = [part.times for part in ordered if part.times is not None]
        return cls(
            items=np.concatenate([part.items for part in ordered]),
            offsets=offsets_of(np.concatenate([part.lengths for part in ordered])),
            num_items=sizes[0],
            source=np.concatenate([part.source for part in ordered]),
            round=np.concatenate([part.round for part in ordered]),
            times=np.concatenate(times) if timed and times else None,
            item_labels=ordered[0].item_labels,
            user_labels=ordered[0].user_labels,
        )

    def fingerprint(self) -> str:
        """Hex SHA-256 of every field; equal for equal content, however it was built or stored."""
        digest = hashlib.sha256(b"rsir sequences\0" + np.int64(self.num_items).tobytes())
        for name in ("items", "offsets", "source", "round", "times", "item_labels", "user_labels"):
            value = getattr(self, name)
            for array in [value] if isinstance(value, np.ndarray) else _label_arrays(value):
                digest.update(f"{name} {array.dtype.str} {array.size}\0".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def to_bytes(self, file_format: FileFormat = "parquet") -> bytes:
        """The content of the file that `save` writes; equal content gives equal bytes."""
        from rsir.data import storage

        return storage.encode(self, file_format)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file that `load` reads back whole: Parquet (``.parquet``) or Arrow IPC (``.arrow``).

        One row a sequence: ``items`` list<int32>, ``source`` int64, ``round`` int16 and, where known,
        ``times`` list<int64>; catalogue size, labels and fingerprint are in the metadata of the file. It
        appears whole or not at all.
        """
        from rsir.data import storage

        storage.save(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sequences:
        """Read a file of `save`; a damaged or foreign one raises DataError."""
        from rsir.data import storage

        return storage.load(Path(path))


def offsets_of(lengths: npt.ArrayLike) -> Int64Array:
    """Offsets (n + 1,) int64 of rows of the given lengths (n,)."""
    lengths = np.asarray(lengths, np.int64)
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_indices(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Indices (sum of lengths,) int64 of ``starts[r] .. starts[r] + lengths[r] - 1``, row after row."""
    offsets = offsets_of(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = np.ascontiguousarray(array)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


def _integers(name: str, values: npt.ArrayLike, dtype: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{name} must have one dimension, got shape {array.shape}")
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} must hold integers, got {array.dtype}")
    info = np.iinfo(dtype)
    if not np.can_cast(array.dtype, dtype) and (int(array.min()) < info.min or int(array.max()) > info.max):
        raise DataError(f"{name} must fit {np.dtype(dtype)}, got {array.min()}..{array.max()}")
    return array.astype(dtype, copy=False)


def _checked_offsets(values: npt.ArrayLike, nnz: int) -> Int64Array:
    offsets = _frozen(_integers("offsets", values, np.int64))
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != nnz:
        ends = f"{offsets[0]}..{offsets[-1]}" if offsets.size else "an empty array"
        raise DataError(f"offsets must go from 0 to the number of items, {nnz}, got {ends}")
    if (np.diff(offsets) < 0).any():
        row = int(np.argmax(np.diff(offsets) < 0))
        raise DataError(f"offsets must not decrease, but row {row} goes from {offsets[row]} to {offsets[row + 1]}")
    return offsets


def _checked_items(values: npt.ArrayLike, offsets: Int64Array, num_items: int) -> Int32Array:
    items = np.asarray(values)
    bad = (items < 1) | (items > num_items)
    if bad.any():
        index = int(np.argmax(bad))
        row = int(np.searchsorted(offsets, index, side="right")) - 1
        raise DataError(
            f"item ids must be in 1..{num_items}, but row {row} has {items[index]} "
            f"at position {index - int(offsets[row])}"
        )
    return _frozen(items.astype(np.int32, copy=False))


def _checked_times(values: npt.ArrayLike, nnz: int, offsets: Int64Array) -> Int64Array:
    times = _frozen(_integers("times", values, np.int64))
    if times.size != nnz:
        raise DataError(f"times must have one entry for each of the {nnz} items, got {times.size}")
    falls = times[1:] < times[:-1]
    starts = offsets[1:-1]
    falls[starts[(starts > 0) & (starts < nnz)] - 1] = False  # between the rows times may fall
    if falls.any():
        index = int(np.argmax(falls))
        row = int(np.searchsorted(offsets, index, side="right")) - 1
        raise DataError(
            f"times must not decrease within a row, but row {row} has {times[index]} "
            f"before {times[index + 1]}; sort each row by time"
        )
    return times


def _checked_labels(name: str, labels: Any) -> pa.Array:
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


def _label_arrays(labels: pa.Array | None) -> list[npt.NDArray[Any]]:
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

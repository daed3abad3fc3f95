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

from rsir.config.arguments import typed
from rsir.data.ragged import (
    Int32Array,
    Int64Array,
    Ragged,
    Timed,
    checked_items,
    checked_labels,
    checked_offsets,
    checked_times,
    counts_of,
    extent,
    frozen,
    gathered,
    integers,
    joined,
    label_arrays,
    offsets_of,
    ragged_indices,
    sealed,
)
from rsir.errors import DataError
from rsir.runtime import memory

__all__ = [
    "MAX_ITEMS",
    "DataError",
    "FileFormat",
    "Int32Array",
    "Int64Array",
    "Sequences",
    "item_popularity",
    "offsets_of",
    "ragged_indices",
]

FileFormat = Literal["parquet", "arrow"]

MAX_ITEMS = 2**31 - 2  # ids are int32 and embedding tables have one row more, for the padding


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
        put("offsets", checked_offsets(self.offsets, integers("items", self.items, None).size))
        n = len(self)
        put("items", checked_items(self.items, self.offsets, self.num_items))
        rounds = np.zeros(n, np.int16) if self.round is None else integers("round", self.round, np.int16)
        source = _counted(n) if self.source is None else integers("source", self.source, np.int64)
        put("round", frozen(rounds))
        put("source", frozen(source))
        self._check_rows()
        if self.times is not None:
            put("times", checked_times(self.times, self.items.size, self.offsets))
        if self.item_labels is not None:
            put("item_labels", checked_labels("item_labels", self.item_labels))
            if len(self.item_labels) != self.num_items:
                raise DataError(f"item_labels must name {self.num_items} items, got {len(self.item_labels)} labels")
            if pc.count_distinct(self.item_labels).as_py() != self.num_items:
                raise DataError("item_labels must be distinct, but a label occurs twice")
        if self.user_labels is not None:
            put("user_labels", checked_labels("user_labels", self.user_labels))
            real = self.num_real
            if real and len(self.user_labels) != real:
                raise DataError(
                    f"user_labels must have one label for each of the {real} real rows, got {len(self.user_labels)}"
                )
            highest = extent(self.source)[1] if n else -1
            if len(self.user_labels) <= highest:
                raise DataError(
                    f"user_labels is indexed by source, which goes up to {highest}, "
                    f"but has only {len(self.user_labels)} labels"
                )

    def _check_rows(self) -> None:
        n = len(self)
        for name, array in (("round", self.round), ("source", self.source)):
            if array.size != n:
                raise DataError(f"{name} must have one entry for each of the {n} rows, got {array.size}")
        if n == 0:
            return
        real, rounds, source = self.num_real, self.round, self.source
        known = f"one of the {real} real rows" if real else "not negative"
        for block in memory.blocks(n):
            row = np.arange(block.start, block.stop)
            for wrong, text in (
                (rounds[block] < 0, "round must not be negative, but row {row} has {round}"),
                (
                    (row < real) & (rounds[block] != 0),
                    "real rows (round 0) must come first, but row {row} of round {round} precedes one; join parts with "
                    "Sequences.concat",
                ),
                ((row < real) & (source[block] != row), "a real row is its own source, but row {row} names {source}"),
                (
                    (row >= real) & ((source[block] < 0) | ((source[block] >= real) & (real > 0))),
                    f"the source of a generated row must be {known}, but row {{row}} has {{source}}",
                ),
            ):
                if wrong.any():
                    first = block.start + int(np.argmax(wrong))
                    raise DataError(text.format(row=first, round=rounds[first], source=source[first]))

    def __len__(self) -> int:
        """Number of rows, real and generated."""
        return self.offsets.size - 1

    def __getitem__(self, row: int) -> Int32Array:
        """Items of one row, oldest first: a read-only view (length,) int32; rows below 0 count from the end."""
        return self.lists[row]

    def __repr__(self) -> str:
        return (
            f"Sequences({self.num_real:,} real and {len(self) - self.num_real:,} generated rows, "
            f"{self.num_items:,} items, {self.num_interactions:,} interactions)"
        )

    @property
    def lists(self) -> Ragged:
        """Items and offsets as one value."""
        return Ragged(self.items, self.offsets)

    def windows(self, starts: Int64Array, lengths: Int64Array, *, timed: bool = False) -> Ragged:
        """Histories: row r is the ``lengths[r]`` items from ``starts[r]`` on, an index of `items`.

        With `timed`, and where there are times, :class:`~rsir.data.ragged.Timed` ones, asked at the time of the item
        that follows them.
        """
        own = Ragged.windows(self.items, starts, lengths)
        if not timed or self.times is None:
            return own
        asked = self.times[starts + lengths]
        return Timed(own.values, own.offsets, gathered(self.times, starts, own.offsets), asked)

    @property
    def lengths(self) -> Int64Array:
        """(n,) int64: number of items of each row."""
        lengths = memory.empty(len(self), np.int64)
        return np.subtract(self.offsets[1:], self.offsets[:-1], out=lengths)

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
        return sum(int(np.count_nonzero(self.round[block] == 0)) for block in memory.blocks(self.round.size))

    @classmethod
    @typed(DataError)
    def from_lists(cls, lists: Iterable[Sequence[int]], num_items: int | None = None, **fields: Any) -> Sequences:
        """Build from one list of item ids a row; `fields` are the other arguments of the constructor.

        `num_items` defaults to the largest id that occurs. It loops in Python: meant for tests and small
        data.
        """
        rows = []
        for number, row in enumerate(lists):
            if isinstance(row, (str, bytes)) or not hasattr(row, "__iter__"):
                raise DataError(f"lists: expected a list of item ids in row {number}, got {row!r}")
            rows.append(list(row))
        items = integers("lists", [item for row in rows for item in row], None)
        if num_items is None:
            if not items.size:
                raise DataError("num_items must be given when there is no item to take it from")
            num_items = int(items.max())
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(items=items, offsets=offsets, num_items=num_items, **fields)

    def to_rectools(self) -> Any:
        """A pandas frame as ``rectools.dataset.Dataset.construct`` takes it: user_id, item_id, weight and datetime.

        A generated sequence is a user of its own, as in `rsir.data.to_table`. Where there are no times, or they are no
        seconds since 1970, ``datetime`` counts the places of each sequence, a second each from 2000 on: order is all
        that it says.
        """
        from rsir.data.io.other_libraries import rectools_frame

        return rectools_frame(self)

    @typed(DataError)
    def to_recbole(self, folder: str | os.PathLike[str], name: str = "rsir") -> dict[str, Any]:
        """Write ``folder/name/name.inter``, RecBole's atomic file, and give the settings that it is read by.

        ``Config(model="SASRec", config_dict=data.to_recbole("recbole"))`` then has the columns and where they lie. A
        generated sequence is a user of its own; without times, the places of each sequence stand for them.
        """
        from rsir.data.io.other_libraries import recbole_files

        return recbole_files(self, folder, name)

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
        picked = integers("rows", picked, np.int64)
        if picked.size and (picked.min() < 0 or picked.max() >= len(self)):
            raise DataError(f"rows must be in 0..{len(self) - 1}, got {picked.min()}..{picked.max()}")
        starts, offsets = self.offsets[picked], offsets_of(self.lengths[picked])
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
            items=gathered(self.items, starts, offsets),
            offsets=sealed(offsets),
            num_items=self.num_items,
            source=source,
            round=self.round[picked],
            times=None if self.times is None else gathered(self.times, starts, offsets),
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
        if len(parts) == 1:
            return parts[0]
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
            items=joined([part.items for part in ordered]),
            offsets=sealed(offsets_of(joined([part.lengths for part in ordered]))),
            num_items=sizes[0],
            source=joined([part.source for part in ordered]),
            round=joined([part.round for part in ordered]),
            times=joined(times) if timed and times else None,
            item_labels=ordered[0].item_labels,
            user_labels=ordered[0].user_labels,
        )

    def fingerprint(self) -> str:
        """Hex SHA-256 of every field; equal for equal content, however it was built or stored."""
        digest = hashlib.sha256(b"rsir sequences\0" + np.int64(self.num_items).tobytes())
        for name in ("items", "offsets", "source", "round", "times", "item_labels", "user_labels"):
            value = getattr(self, name)
            for array in [value] if isinstance(value, np.ndarray) else label_arrays(value):
                digest.update(f"{name} {array.dtype.str} {array.size}\0".encode())
                for block in memory.blocks(array.size):
                    digest.update(np.ascontiguousarray(array[block]).data)
        return digest.hexdigest()

    def to_bytes(self, file_format: FileFormat = "parquet") -> bytes:
        """The content of the file that `save` writes; equal content gives equal bytes."""
        from rsir.data import storage

        return storage.encode(self, file_format)

    @typed(DataError)
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file that `load` reads back whole: Parquet (``.parquet``) or Arrow IPC (``.arrow``).

        One row a sequence: ``items`` list<int32>, ``source`` int64, ``round`` int16 and, where known,
        ``times`` list<int64>; catalogue size, labels and fingerprint are in the metadata of the file. It
        appears whole or not at all.
        """
        from rsir.data import storage

        storage.save(self, Path(path))

    @classmethod
    @typed(DataError)
    def load(cls, path: str | os.PathLike[str]) -> Sequences:
        """Read a file of `save`; a damaged or foreign one raises DataError."""
        from rsir.data import storage

        return storage.load(Path(path))


def _counted(n: int) -> Int64Array:
    """0..n - 1, read-only."""
    out = memory.empty(n, np.int64)
    for block in memory.blocks(n):
        out[block] = np.arange(block.start, block.stop)
    return sealed(out)


def item_popularity(train: Sequences) -> npt.NDArray[np.int64]:
    """(N + 1,) int64: how often each item occurs in the real sequences."""
    return counts_of(train.items[: train.offsets[train.num_real]], train.num_items + 1)

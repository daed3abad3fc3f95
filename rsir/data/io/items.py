"""What is known of items beside their ids: vectors (of text, images, anything) and titles, from a file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.feather as feather
import pyarrow.json as arrow_json
import pyarrow.parquet as pq

from rsir.data.io import columns
from rsir.data.io.events import label_ids
from rsir.data.io.jsonl import check_lines
from rsir.data.ragged import checked_labels
from rsir.data.sequences import Sequences
from rsir.data.warn import warn
from rsir.errors import DataError, RunError
from rsir.objects.copies import at_hand

__all__ = ["ITEMS", "ItemVectors", "read_items", "read_titles", "with_items"]

ITEMS = "items.parquet"
"""In a run's folder: label, vector and title of every item."""


def _read_jsonl(path: str) -> pa.Table:
    content = Path(path).read_bytes()
    check_lines(content)
    return arrow_json.read_json(pa.BufferReader(content))


_READERS: dict[str, Callable[[str], pa.Table]] = {
    ".parquet": pq.read_table,
    ".arrow": feather.read_table,
    ".csv": arrow_csv.read_csv,
    ".jsonl": _read_jsonl,
}
_VECTORS = ("vector", "embedding", "vectors", "embeddings", "features")
_TITLES = ("title", "name", "itemname", "producttitle", "productname")


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Vectors and titles of a catalogue's items.

    Attributes
    ----------
    vectors : (N + 1, w) float32
        Row 0 is zero, and so are those of items without a vector. w is 0 where the file has titles alone.
    has : (N + 1,) bool
        Whether an item has a vector.
    titles : (N,) pyarrow array of strings, or None
        Null where an item has none.
    """

    vectors: npt.NDArray[np.float32]
    has: npt.NDArray[np.bool_]
    titles: pa.Array | None

    def encode(self, data: Sequences) -> bytes:
        """The bytes of a Parquet file that :func:`read_items` reads back."""
        labels = pa.array(np.arange(1, data.num_items + 1)) if data.item_labels is None else data.item_labels
        table = pa.table({"item": labels})
        if self.vectors.shape[1]:
            flat = pa.array(self.vectors[1:].ravel())
            lists = pa.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1], mask=pa.array(~self.has[1:]))
            table = table.append_column("vector", lists)
        if self.titles is not None:
            table = table.append_column("title", self.titles)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())


def read_items(path: str | os.PathLike[str]) -> pa.Table:
    """A table of items with the columns ``item``, ``vector`` (lists of one length) and ``title``, or one of these two.

    Parquet and Arrow hold vectors; CSV and JSON lines, titles. Columns are found by their usual names.

    Raises
    ------
    DataError
        The file cannot be read or has neither; an id is missing or there twice; a vector has another width than the
        first, or is not finite: says how many, and names one.
    """
    name = str(path)
    with at_hand(path, DataError) as file:
        read = _READERS.get(Path(file).suffix.lower())
        if read is None:
            raise DataError(f"{name}: expected a table of items that ends in {', '.join(_READERS)}")
        if not Path(file).is_file():
            raise DataError(f"{name}: no such file")
        try:
            loaded = read(str(file))
        except (pa.ArrowException, OSError, ValueError) as cause:
            raise DataError(f"{name}: cannot be read: {' '.join(str(cause).split())}") from cause
    present = loaded.column_names
    chosen = {"item": columns.find("item", None, present, name)}
    chosen |= _others(present, str(chosen["item"]))
    if len(chosen) < 2:
        listed = ", ".join(map(repr, present))
        raise DataError(f"{name}: expected a column called vector or title beside the items, got {listed}")
    return _checked(pa.table({role: loaded[str(column)] for role, column in chosen.items()}), name)


def _others(present: list[str], item: str) -> dict[str, str]:
    chosen = {}
    for role, usual in (("vector", _VECTORS), ("title", _TITLES)):
        fits = [column for column in present if column != item and columns.simplified(column) in usual]
        if fits:
            chosen[role] = min(fits, key=lambda column: usual.index(columns.simplified(column)))
    return chosen


def _one_title_each(table: pa.Table, name: str) -> pa.Table:
    """A row an item, with its title if any row has one; an empty one is none."""
    titles = table["title"].cast(pa.string())
    table = table.set_column(1, "title", pc.if_else(pc.equal(titles, ""), pa.scalar(None, pa.string()), titles))
    table = table.group_by(["item", "title"], use_threads=False).aggregate([])
    titled = table.filter(pc.is_valid(table["title"]))
    counts = pc.value_counts(titled["item"].combine_chunks())
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        item = twice.field("values")[0]
        first, second = titled.filter(pc.equal(titled["item"], item))["title"][:2].to_pylist()
        raise DataError(
            f"{name}: {len(twice):,} items have several titles, {item.as_py()!r} both {first!r} and {second!r}; "
            "keep one of each"
        )
    untitled = table.filter(pc.is_null(table["title"]))
    untitled = untitled.filter(pc.invert(pc.is_in(untitled["item"], value_set=titled["item"].combine_chunks())))
    return pa.concat_tables([titled, untitled])


def _checked(table: pa.Table, name: str) -> pa.Table:
    ids = table["item"].combine_chunks()
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if ids.null_count:
        raise DataError(f"{name}: {ids.null_count:,} of {len(ids):,} items have no id")
    ids = checked_labels("item", ids)
    if table.column_names == ["item", "title"]:  # a log of events has them with every event
        table = _one_title_each(table.set_column(0, "item", ids), name)
        ids = table["item"].combine_chunks()
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise DataError(
            f"{name}: {len(twice):,} items are there more than once, {twice.field('values')[0].as_py()!r} for one; "
            "keep one row of each"
        )
    made = {"item": ids}
    if "vector" in table.column_names:
        made["vector"] = _vectors(table["vector"].combine_chunks(), ids, name)
    if "title" in table.column_names:
        made["title"] = table["title"].combine_chunks().cast(pa.string())
    return pa.table(made)


def _vectors(column: pa.Array, ids: pa.Array, name: str) -> pa.Array:
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    numbers = lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
    if not numbers:
        raise DataError(f"{name}: vector: expected lists of numbers, got {kind}")
    there = column.drop_null()
    if not len(there):
        raise DataError(f"{name}: vector: expected at least one, got none")
    widths = pc.list_value_length(there).to_numpy()
    owners = ids.filter(column.is_valid())
    wrong = np.flatnonzero(widths != widths[0])
    if wrong.size or widths[0] == 0:
        place = int(wrong[0]) if wrong.size else 0
        raise DataError(
            f"{name}: vector: expected {widths[0] or 'some'} numbers for each item, as for the first, got "
            f"{widths[place]} for {owners[place].as_py()!r}; {max(wrong.size, 1):,} items have another width"
        )
    values = there.flatten().cast(pa.float32(), safe=False)
    flat = pc.fill_null(values, np.float32("nan")).to_numpy(zero_copy_only=False).reshape(len(there), -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(1))
    if bad.size:
        raise DataError(
            f"{name}: vector: expected finite numbers, got nan, infinity or none for {bad.size:,} items, "
            f"{owners[int(bad[0])].as_py()!r} for one"
        )
    whole = np.zeros((len(ids), flat.shape[1]), np.float32)
    whole[column.is_valid().to_numpy(zero_copy_only=False)] = flat
    mask = column.is_null()
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), flat.shape[1], mask=mask)


def with_items(data: Sequences, table: pa.Table, name: str, *, quiet: bool = False) -> tuple[Sequences, ItemVectors]:
    """Sequences over a catalogue that has the items of a table with a vector, too, and what the table says of each.

    Items that no event has come after the others, in order of their labels. `quiet` warns of nothing.

    Raises
    ------
    DataError
        The table has none of the items.

    Warns
    -----
    DataWarning
        Items have no vector, or are added; says how many.
    """
    own = pa.array(np.arange(1, data.num_items + 1)) if data.item_labels is None else data.item_labels
    given = table["item"].combine_chunks()
    ids = label_ids(given, own, name)
    if not (ids > 0).any():
        raise DataError(
            f"{name}: has none of the {data.num_items:,} items of the events, {own[0].as_py()!r} for one; its own are "
            f"such as {given[0].as_py()!r}"
        )
    vectors = table["vector"].combine_chunks() if "vector" in table.column_names else None
    valid = np.zeros(len(given), np.bool_)
    if vectors is not None:
        valid |= vectors.is_valid().to_numpy(zero_copy_only=False)
    new = np.flatnonzero((ids == 0) & valid)
    if new.size:
        try:
            labels = given.take(pa.array(new)).cast(own.type)
        except pa.ArrowException as cause:
            raise DataError(
                f"{name}: expected item ids such as {own[0].as_py()!r}, got {given[int(new[0])].as_py()!r}"
            ) from cause
        order = pc.array_sort_indices(labels).to_numpy()
        ids[new[order]] = data.num_items + 1 + np.arange(new.size)
        own = pa.concat_arrays([own, labels.take(pa.array(order))])
        data = dataclasses.replace(data, num_items=len(own), item_labels=own)
    width = 0 if vectors is None else vectors.type.list_size
    matrix, has = np.zeros((data.num_items + 1, width), np.float32), np.zeros(data.num_items + 1, np.bool_)
    if vectors is not None:
        valid &= ids > 0
        flat = vectors.values.to_numpy(zero_copy_only=False).reshape(-1, width)
        matrix[ids[valid]], has[ids[valid]] = flat[valid], True
        lacking = int(np.count_nonzero(~has[1:]))
        told = [f"{new.size:,} items without an event are in the catalogue, too"] if new.size else []
        told += [f"{lacking:,} items have no vector"] if lacking else []
        if told and not quiet:
            warn(f"{name}: {'; '.join(told)}")
    titles = None
    if "title" in table.column_names:
        found = np.full(data.num_items + 1, None, object)
        kept = ids > 0
        found[ids[kept]] = np.array(table["title"].to_pylist(), object)[kept]
        titles = pa.array(found[1:], pa.string())
    return data, ItemVectors(matrix, has, titles)


def read_titles(folder: Path, num_items: int) -> pa.Array | None:
    """The titles that a run keeps in its folder, in the order of its items; None where it has none."""
    path = folder / ITEMS
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as cause:
        raise RunError(f"{path}: cannot be read: {' '.join(str(cause).split())}; put the original back") from cause
    if "title" not in table.column_names or len(table) != num_items:
        return None
    return table["title"].combine_chunks()

"""Sequences, real or enriched, as tables of events, and these in every format that is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from rsir.data.sequences import Sequences
from rsir.errors import DataError

__all__ = ["sequence_names", "to_table", "write_arrow", "write_csv", "write_inter", "write_parquet", "write_text"]


def to_table(data: Sequences) -> pa.Table:
    """One event a row, sequence after sequence.

    Columns: ``user_id``, ``item_id``, ``timestamp`` (int64; if there are times), and if there are generated sequences
    ``source`` (the user whose sequence it came from), ``round`` (0 is real) and, where there are no times, ``position``
    (from 0 for the oldest item), for libraries that order by a column. A generated sequence gets a user of its own
    (`sequence_names`), so that a library which groups events by user keeps it apart from its source.

    It is an Arrow table: ``to_table(data).to_pandas()`` and ``polars.from_arrow(to_table(data))`` are frames.
    """
    rows = pa.array(np.repeat(np.arange(len(data)), data.lengths))
    columns = {
        "user_id": sequence_names(data).take(rows),
        "item_id": _item_labels(data).take(pa.array(data.items - 1)),
    }
    if data.times is not None:
        columns["timestamp"] = pa.array(data.times)
    if data.num_real < len(data):
        columns["source"] = _user_labels(data).take(pa.array(data.source)).take(rows)
        columns["round"] = pa.array(data.round).take(rows)
        if data.times is None:
            columns["position"] = pa.array(_places(data))
    return pa.table(columns)


def sequence_names(data: Sequences) -> pa.Array:
    """A distinct user for each row: the label of a real one; for a generated one its source's label, ~ and its row.

    Where labels are integers, generated rows continue after the largest. Without labels users count from 1.
    """
    labels = _user_labels(data)
    real = labels.slice(0, data.num_real)
    generated = np.arange(data.num_real, len(data))
    if pa.types.is_integer(labels.type):
        start = max(pc.max(labels).as_py() or 0, 0) + 1
        return pa.concat_arrays([real, pa.array(start + generated - data.num_real, labels.type)])
    sources = labels.take(pa.array(data.source[generated]))
    numbers = pa.array(generated).cast(labels.type)
    separator = "~"
    while True:
        names = pc.binary_join_element_wise(sources, numbers, pa.scalar(separator, labels.type))
        if not pc.any(pc.is_in(names, labels)).as_py():
            return pa.concat_arrays([real, names])
        separator += "~"


def _user_labels(data: Sequences) -> pa.Array:
    if data.user_labels is not None:
        return data.user_labels
    return pa.array(np.arange(1, int(data.source.max(initial=-1)) + 2))


def _item_labels(data: Sequences) -> pa.Array:
    return pa.array(np.arange(1, data.num_items + 1)) if data.item_labels is None else data.item_labels


def write_inter(data: Sequences, path: Path, sink: pa.NativeFile) -> None:
    """RecBole orders by time, so where there is none the place in the sequence stands for it."""
    table = to_table(data)
    if data.times is None:
        if "position" in table.column_names:
            table = table.drop_columns("position")
        table = table.add_column(2, "timestamp", pa.array(_places(data)))
    kinds = {"timestamp": "float", "round": "float"}
    header = "\t".join(f"{name}:{kinds.get(name, 'token')}" for name in table.column_names)
    for name in ("user_id", "item_id"):
        _refuse(
            table[name].combine_chunks(), r'[\t\r\n"]', path, "a RecBole file cannot hold tabs, quotes or line breaks"
        )
    sink.write(header.encode() + b"\n")
    options = arrow_csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    arrow_csv.write_csv(table, sink, options)


def _places(data: Sequences) -> npt.NDArray[np.int64]:
    """(nnz,) place of each event in its sequence."""
    return np.arange(data.num_interactions) - np.repeat(data.offsets[:-1], data.lengths)


def write_text(data: Sequences, path: Path, sink: pa.NativeFile) -> None:
    """One sequence a line."""
    names, labels = sequence_names(data), _item_labels(data)
    for tokens in (names, labels):
        _refuse(
            tokens, r"[\t\r\n\x00]|^ | $", path, "a text file cannot hold tabs, line breaks, null bytes or outer spaces"
        )
        _refuse(tokens, r"^(-[0-9]+|[+-]?0+)$", path, "a text file counts from 1 and 0 is padding")
    spaced = any(
        pc.any(pc.match_substring_regex(t.cast(pa.large_string()), r"[\s\v]")).as_py() for t in (names, labels)
    )
    separator = pa.scalar("\t" if spaced else " ", pa.large_string())
    rows = np.flatnonzero(data.lengths)
    items = labels.cast(pa.large_string()).take(pa.array(data.items - 1))
    lists = pa.LargeListArray.from_arrays(pa.array(data.offsets), items)
    tails = pc.binary_join(lists.take(pa.array(rows)), separator)
    lines = pc.binary_join_element_wise(names.cast(pa.large_string()).take(pa.array(rows)), tails, separator)
    sink.write("".join(line + "\n" for line in lines.to_pylist()).encode())


def write_csv(data: Sequences, path: Path, sink: pa.NativeFile) -> None:
    """One event a line, below a header."""
    arrow_csv.write_csv(to_table(data), sink)


def write_parquet(data: Sequences, path: Path, sink: pa.NativeFile) -> None:
    """One event a row."""
    pq.write_table(to_table(data), sink, compression="zstd")


def write_arrow(data: Sequences, path: Path, sink: pa.NativeFile) -> None:
    """One event a row."""
    table = to_table(data)
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)


def _refuse(labels: pa.Array, pattern: str, path: Path, reason: str) -> None:
    text = labels.cast(pa.large_string())
    bad = pc.match_substring_regex(text, pattern)
    if pc.any(bad).as_py():
        name = text[pc.index(bad, True).as_py()].as_py()
        raise DataError(f"{path}: {reason}, got the id {name!r}; write CSV or Parquet, or rename it")

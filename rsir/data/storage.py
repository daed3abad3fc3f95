"""The file format of `Sequences`: one Parquet or Arrow IPC file that holds everything, nothing executable."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rsir import files
from rsir.data.io.limits import check_parquet
from rsir.data.ragged import joined, sealed
from rsir.data.sequences import FileFormat, Sequences, offsets_of
from rsir.errors import DataError
from rsir.runtime import memory
from rsir.runtime.interrupts import prepare_arrow

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

FORMAT_VERSION = 1
_ROW_GROUP = 2**20  # rows that are held in memory to be written; Parquet's own row groups
_SUFFIXES: dict[str, FileFormat] = {".parquet": "parquet", ".arrow": "arrow"}
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError)


def encode(data: Sequences, file_format: FileFormat) -> bytes:
    """The bytes of a file of the format; equal content gives equal bytes."""
    sink = pa.BufferOutputStream()
    _write(data, sink, file_format)
    return sink.getvalue().to_pybytes()


def save(data: Sequences, path: Path, error: type[ValueError] = DataError) -> None:
    """Write `data` to `path` in the format of its suffix, whole or not at all; raises `error` if the disk refuses."""
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"the name of a sequences file must end in {' or '.join(_SUFFIXES)}, got {path.name!r}")
    with files.replacing(path, error) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        _write(data, sink, _SUFFIXES[path.suffix.lower()])


def _write(data: Sequences, sink: Any, file_format: FileFormat) -> None:
    """Write a file, some rows at a time."""
    schema = _schema(data)
    if file_format == "parquet":
        # without store_schema, which would keep a second copy of the metadata, the labels among it
        options = {"compression": "zstd", "store_schema": False, "write_page_checksum": True}
        with pq.ParquetWriter(sink, schema, **options) as writer:
            for first in range(0, max(len(data), 1), _ROW_GROUP):
                writer.write_table(_to_table(data, slice(first, first + _ROW_GROUP), schema))
                memory.release()
            writer.add_key_value_metadata(schema.metadata)
    elif file_format == "arrow":
        with pa.ipc.new_file(sink, schema) as writer:  # one batch, so that it can be used where it lies
            writer.write_table(_to_table(data, slice(0, len(data)), schema))
    else:
        raise DataError(f'file_format must be "parquet" or "arrow", got {file_format!r}')


def load(path: Path) -> Sequences:
    """Read a file of `save`, told apart by its first bytes; DataError if it is damaged or foreign."""
    prepare_arrow()
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a sequences file")
    if not path.is_file():
        raise DataError(f"{path}: is a pipe, a socket or a device, expected a sequences file")
    with path.open("rb") as file:
        magic = file.read(6)
    if not magic.startswith(b"PAR1") and magic != b"ARROW1":
        raise DataError(f"{path}: neither a Parquet nor an Arrow IPC file, or damaged (it starts with {magic!r})")
    try:
        table = _read_parquet(path) if magic.startswith(b"PAR1") else _read_arrow(path)
        table.validate(full=True)
        metadata = {key.decode(): value for key, value in (table.schema.metadata or {}).items()}
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged: {error}") from error
    version = metadata.get("rsir.version", b"")
    if not version:
        raise DataError(
            f"{path}: not a file of Sequences.save (no rsir.version in its metadata; "
            f"columns: {', '.join(table.column_names)}); read tables of events with rsir.data.read"
        )
    if version != str(FORMAT_VERSION).encode():
        raise DataError(
            f"{path}: has format version {version.decode(errors='replace')}, "
            f"this rsir reads version {FORMAT_VERSION}: use the rsir that wrote it, or a newer one"
        )
    try:
        data = _from_table(table, metadata)
        intact = data.fingerprint().encode() == metadata["rsir.fingerprint"]
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged: {error}") from error
    if not intact:
        raise DataError(f"{path}: damaged: its content does not have the fingerprint it was saved with")
    return data


def _schema(data: Sequences) -> pa.Schema:
    lists = pa.list_ if data.items.size < 2**31 else pa.large_list
    fields = {"items": lists(pa.int32()), "source": pa.int64(), "round": pa.int16()}
    if data.times is not None:
        fields["times"] = lists(pa.int64())
    metadata: dict[str, bytes | str] = {
        "rsir.version": str(FORMAT_VERSION),
        "rsir.num_items": str(data.num_items),
        "rsir.fingerprint": data.fingerprint(),
    }
    for name in ("item_labels", "user_labels"):
        labels = getattr(data, name)
        if labels is not None:
            metadata[f"rsir.{name}"] = _labels_to_text(labels)
    return pa.schema(fields, metadata)


def _to_table(data: Sequences, rows: slice, schema: pa.Schema) -> pa.Table:
    """Some rows."""
    offsets = data.offsets[rows.start : rows.stop + 1]
    arrays = []
    columns: list[Any] = [data.items, data.source[rows], data.round[rows], data.times]
    for kind, column in zip(schema.types, columns, strict=False):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            arrays.append(pa.array(column))
            continue
        flat = pa.array(column[offsets[0] : offsets[-1]])
        of_lists = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
        width = pa.int64() if pa.types.is_large_list(kind) else pa.int32()
        arrays.append(of_lists.from_arrays(pa.array(offsets - offsets[0], width), flat))
    return pa.table(arrays, schema=schema)


def _from_table(table: pa.Table, metadata: dict[str, bytes]) -> Sequences:
    for name, kind in (("source", pa.int64()), ("round", pa.int16())):
        if table[name].type != kind:
            raise DataError(f"column {name} is of {table[name].type}, expected {kind}")
    items, offsets = _flat(table["items"], pa.int32(), np.int32)
    times, time_offsets = (
        _flat(table["times"], pa.int64(), np.int64) if "times" in table.column_names else (None, offsets)
    )
    if not np.array_equal(offsets, time_offsets):
        raise DataError("items and times differ in length")
    return Sequences(
        items=items,
        offsets=offsets,
        num_items=int(metadata["rsir.num_items"]),
        source=_numbers(table["source"], np.int64),
        round=_numbers(table["round"], np.int16),
        times=times,
        item_labels=_labels_from_text(metadata.get("rsir.item_labels")),
        user_labels=_labels_from_text(metadata.get("rsir.user_labels")),
    )


def _flat(column: pa.ChunkedArray, kind: pa.DataType, dtype: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Values and offsets of a column of lists; of one chunk where they lie."""
    if column.type not in (pa.list_(kind), pa.large_list(kind)) or column.null_count:
        raise DataError(f"a column is of {column.type} with {column.null_count} nulls, expected lists of {kind}")
    values = [chunk.flatten().to_numpy() for chunk in column.chunks]
    lengths = [np.diff(chunk.offsets.to_numpy()).astype(np.int64) for chunk in column.chunks]
    empty = np.zeros(0, dtype)
    flat = values[0] if len(values) == 1 else joined([empty, *values])
    return flat, sealed(offsets_of(np.concatenate([np.zeros(0, np.int64), *lengths])))


def _numbers(column: pa.ChunkedArray, dtype: Any) -> NDArray[Any]:
    """Values of a column of numbers; of one chunk where they lie."""
    values = [chunk.to_numpy() for chunk in column.chunks]
    return values[0] if len(values) == 1 else joined([np.zeros(0, dtype), *values])


def _labels_to_text(labels: pa.Array) -> bytes:
    batch = pa.record_batch({"labels": pa.concat_arrays([labels])})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue())  # Parquet metadata must be UTF-8 for readers other than Arrow


def _labels_from_text(text: bytes | None) -> pa.Array | None:
    if text is None:
        return None
    with pa.ipc.open_stream(base64.b64decode(text, validate=True)) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table["labels"]


def _read_parquet(path: Path) -> pa.Table:
    # absolute: Arrow would take the start of runs:2/data.parquet for an address's
    with pq.ParquetFile(path.absolute(), page_checksum_verification=True, thrift_string_size_limit=2**31 - 1) as file:
        check_parquet(path, [file.metadata])
        current = memory.current()
        if current is None:
            return file.read()
        groups = (file.read_row_group(number) for number in range(file.num_row_groups))
        return current.table(groups, file.schema_arrow)


def _read_arrow(path: Path) -> pa.Table:
    with pa.ipc.open_file(pa.py_buffer(memory.opened(path))) as reader:
        return reader.read_all()

"""Write sequences, real or enriched, as event tables that other libraries train on."""

from __future__ import annotations

import os
from typing import Literal

import pyarrow as pa

from rsir import files
from rsir.config.arguments import typed
from rsir.data.io import formats
from rsir.data.io.output import sequence_names, to_table
from rsir.data.sequences import Sequences
from rsir.errors import DataError

__all__ = ["FORMATS", "TableFormat", "sequence_names", "to_table", "write"]

TableFormat = Literal["auto", "text", "csv", "parquet", "arrow", "inter"]
_WRITERS = {name: known for name, known in formats.FORMATS.items() if known.write is not None}
FORMATS = {known.suffixes[0]: name for name, known in _WRITERS.items()}
"""Formats by the endings under which they are written."""


@typed(DataError)
def write(data: Sequences, path: str | os.PathLike[str], file_format: TableFormat = "auto") -> None:
    """Write one file of events with the outside names of users and items; `rsir.data.read` reads it back.

    CSV, Parquet, Arrow IPC and RecBole's `.inter` have one event a row, with the columns of `to_table`. Text has one
    sequence a line, ``user item item ...``, separated by tabs where a name holds a space; it has no room for times,
    source and round. Empty sequences have no events and leave no trace. The file appears whole or not at all. For a
    file that keeps everything, ids included, use `Sequences.save`.

    Parameters
    ----------
    data : Sequences
    path : path of the file
    file_format : {"auto", "text", "csv", "parquet", "arrow", "inter"}, default "auto"
        "auto" goes by the extension: ``.txt``, ``.csv``, ``.parquet``, ``.arrow`` or ``.inter``.

    Raises
    ------
    DataError
        If the format is not known, or cannot hold a name: tabs and line breaks in text and `.inter`, integer ids
        below 1 in text.
    """
    path = files.local(path, DataError)
    chosen = FORMATS.get(path.suffix.lower()) if file_format == "auto" else file_format
    if chosen not in _WRITERS:
        raise DataError(f"{path}: expected the extension {', '.join(FORMATS)} or one of the formats "
                        f"{', '.join(FORMATS.values())}, got {chosen or path.suffix!r}")  # fmt: skip
    sink = pa.BufferOutputStream()
    _WRITERS[chosen].write(data, path, sink)  # type: ignore[misc]
    files.replace(path, sink.getvalue(), DataError)

"""Every file format: its endings, how it is read, and how it is written. One table; a new format is one line of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsir.config import DataConfig
from rsir.data.io import output
from rsir.data.io.columnar import SUFFIXES as PARQUET
from rsir.data.io.columnar import ColumnarSource
from rsir.data.io.columns import find
from rsir.data.io.delimited import DelimitedSource
from rsir.data.io.events import Events
from rsir.data.io.folders import Folder, files_below
from rsir.data.io.jsonl import JsonSource
from rsir.data.io.layout import has_names, is_data, split
from rsir.data.io.opening import beginning, opened
from rsir.data.io.pth import read_lists
from rsir.data.io.tables import find_events
from rsir.data.io.text import read_text
from rsir.data.sequences import Sequences
from rsir.errors import DataError

__all__ = ["FORMATS", "Format", "format_of", "known_format"]

_COMPRESSED = (".gz", ".gzip", ".bz2", ".zst", ".zstd", ".lz4")


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    suffixes : tuple of str
        Endings in lower case; files are written under the first.
    read : callable
        Takes path and DataConfig, gives the events, or the sequences of a file of `Sequences.save`.
    source : callable, optional
        Takes path and DataConfig, gives the columns of a table and loads some: ``names``, ``load``, ``origin``.
    write : callable, optional
        Writes sequences into an Arrow stream; the path is for messages.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, DataConfig], Events | Sequences]
    source: Callable[[Path, DataConfig], Any] | None = None
    write: Callable[[Sequences, Path, pa.NativeFile], None] | None = None


def _table(source: Callable[[Path, DataConfig], Any], path: Path, config: DataConfig) -> Events:
    """Events of a table of text."""
    table = source(path, config)
    return table.checked(find_events(table, config)) if hasattr(table, "checked") else find_events(table, config)


def _columnar(file_format: str, path: Path, config: DataConfig) -> Events | Sequences:
    source = ColumnarSource(path, file_format)
    if not source.saved:
        return find_events(source, config)
    if config.min_rating is not None or config.k_core > 1:
        raise DataError(
            f"{path}: is a file of Sequences.save, which min_rating and k_core cannot filter: "
            "filter the log that it came from"
        )
    return Sequences.load(path)


def _delimited(path: Path, config: DataConfig) -> Any:
    return Folder(path, FORMATS["csv"].suffixes, config, _delimited) if path.is_dir() else DelimitedSource(path, config)


def _typed(path: Path, config: DataConfig) -> Any:
    return Folder(path, (".inter",), config, _typed) if path.is_dir() else DelimitedSource(path, config, typed=True)


def _json(path: Path, config: DataConfig) -> Any:
    return Folder(path, FORMATS["jsonl"].suffixes, config, _json) if path.is_dir() else JsonSource(path, config)


def _of_format(file_format: str, path: Path, _: DataConfig) -> ColumnarSource:
    return ColumnarSource(path, file_format)


FORMATS = {
    "text": Format((".txt", ".text", ".dat", ".seq"), read_text, None, output.write_text),
    "csv": Format((".csv", ".tsv"), partial(_table, _delimited), _delimited, output.write_csv),
    "jsonl": Format((".jsonl", ".json", ".ndjson"), partial(_table, _json), _json),
    "parquet": Format(PARQUET, partial(_columnar, "parquet"), partial(_of_format, "parquet"), output.write_parquet),
    "arrow": Format(
        (".arrow", ".feather"), partial(_columnar, "arrow"), partial(_of_format, "arrow"), output.write_arrow
    ),
    "inter": Format((".inter",), partial(_table, _typed), _typed, output.write_inter),
    "pth": Format((".pth",), lambda path, _: read_lists(path)),
}


def known_format(path: Path) -> str | None:
    """The format that a path's ending tells; of a folder that of the files in it."""
    if path.is_dir():
        for name in ("parquet", "csv", "jsonl", "inter"):
            if files_below(path, FORMATS[name].suffixes):
                return name
        return "parquet"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return next((name for name, known in FORMATS.items() if suffixes and suffixes[-1] in known.suffixes), None)


def format_of(path: Path, config: DataConfig) -> str:
    """The format of a file by its ending, and where that says text or nothing by its first lines.

    Raises
    ------
    DataError
        Neither tells.
    """
    found = known_format(path)
    if found not in (None, "text"):
        return str(found)
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1") or magic == b"ARROW1":
        return "parquet" if magic.startswith(b"PAR1") else "arrow"
    with opened(path, config.encoding) as file:
        if b"\0" in file.read(512):
            return found or _unknown(path)
    lines = beginning(path, config.encoding)
    first = lines[0] if lines else ""
    if first.lstrip().startswith("{"):
        return "jsonl"
    columns = (config.user, config.item, config.time, config.rating, config.time_format)
    if any(value is not None for value in columns) or config.header != "auto" or "::" in first:
        return "csv"
    if re.fullmatch(r"\d+:", first.strip()):  # the Netflix prize's films
        return "csv"
    separators = [mark for mark in (",;\t|" if "\t" in first else ",;| ") if mark in first]  # ids may hold spaces
    if any(_is_header(split(first, mark)) for mark in separators):
        return "csv"
    if path.name.startswith(("u.data", "u1.", "u2.", "u3.", "u4.", "u5.", "ua.", "ub.")) and found is None:
        return "csv"
    if found is None and separators and any(len(line.split(mark)) > 2 for line in lines[:1] for mark in ",;\t|"):
        return "csv"  # which says what is to be named
    if found == "text" and "\t" not in first and " " not in first.strip() and has_mark(first):
        return "csv"
    return found or _unknown(path)


def has_mark(line: str) -> bool:
    """Whether a line without spaces has fields all the same."""
    return any(mark in line for mark in ",;|")


def _is_header(fields: list[str]) -> bool:
    if not has_names(fields) or len(set(fields)) < len(fields) or any(map(is_data, fields)):
        return False
    try:
        return find("user", None, fields, "") != find("item", None, fields, "")
    except DataError:
        return False


def _unknown(path: Path) -> str:
    suffixes = ", ".join(suffix for known in FORMATS.values() for suffix in known.suffixes)
    raise DataError(
        f"{path}: which format is this? Its extension is none of {suffixes}: "
        f"rename it, or choose one of {', '.join(FORMATS)} by the option data.format"
    )

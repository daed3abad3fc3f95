"""Read interaction logs into `Sequences`: text, CSV, Parquet, RecBole `.inter`, `.pth` lists, and data frames."""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.config import DataConfig
from rsir.data.io import columns
from rsir.data.io.columnar import ColumnarSource, encode_batches
from rsir.data.io.columns import Origin
from rsir.data.io.events import Events, Histories, to_histories, to_sequences
from rsir.data.io.frames import find_events
from rsir.data.io.limits import check_compressed_text
from rsir.data.io.pth import read_lists
from rsir.data.sequences import Sequences
from rsir.errors import DataError
from rsir.runtime import memory

FORMATS = {
    "text": (".txt", ".text", ".dat", ".seq"),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather"),
    "inter": (".inter",),
    "pth": (".pth",),
}
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")


def read(path: str | os.PathLike[str], config: DataConfig | None = None) -> Sequences:
    """Read one file of interactions, or a folder of Parquet files.

    The format goes by the extension, or by ``config.format``:

    - text (``.txt``): one user a line, ``user item item ...`` oldest first, separated by spaces, or by tabs if ids
      hold spaces. A user may have several lines (``user item`` a line is the extreme case). No times.
    - CSV (``.csv``, ``.tsv``): a header line, then one event a line; commas, semicolons, tabs or bars.
    - Parquet (``.parquet``): one event a row; or a file of `Sequences.save`. Of a folder, every Parquet file in it and
      below it, in order of their paths; what partitioned paths say (``day=3/part-0.parquet``) are columns too. Only
      the columns needed are read, batch by batch.
    - Arrow IPC (``.arrow``, ``.feather``): as a Parquet file.
    - RecBole (``.inter``): tab-separated with a typed header such as ``user_id:token``.
    - ``.pth``: lists of integers, or the records of the RSIR authors' data sets (:func:`rsir.data.io.pth.read_lists`).

    Text formats may be compressed (``.csv.gz``) and are UTF-8. Columns are found by their usual names unless given.

    Parameters
    ----------
    path : path of the file or folder
    config : DataConfig, default: DataConfig()
        Uses `format`, `user`, `item`, `time`, `rating`, `min_rating` and `k_core`; not `path` and not the split.

    Returns
    -------
    Sequences
        One row a user, ordered by time and then by place in the file; users and items are numbered in the order of
        their labels, so dense integer ids 1..N stay what they are.

    Raises
    ------
    DataError
        If the file cannot be used; names the line or row, the column, what was expected and what came.

    Warns
    -----
    DataWarning
        If events were dropped because another one has the same user, item and time.
    """
    config = config or DataConfig()
    events = _read_events(Path(path), config)
    return events if isinstance(events, Sequences) else to_sequences(events, config)


def read_histories(path: str | os.PathLike[str], catalogue: Sequences, config: DataConfig | None = None) -> Histories:
    """Read histories to recommend after, over a catalogue that is there already.

    Parameters
    ----------
    path : path of the file or folder
        As for `read`, but any number of users and items will do.
    catalogue : Sequences
        Whose items count; events with others are left out and counted.
    config : DataConfig, default: DataConfig()
        Uses `format`, `user`, `item`, `time`, `rating` and `min_rating`.

    Raises
    ------
    DataError
        If the file cannot be used, or no event in it has an item of the catalogue.
    """
    config = config or DataConfig()
    events = _read_events(Path(path), config)
    if isinstance(events, Sequences):
        raise DataError(f"{path}: is a file of Sequences.save, expected a table of events or text")
    return to_histories(events, catalogue, config)


def histories_config(path: str | os.PathLike[str], run: DataConfig, given: dict[str, str]) -> DataConfig:
    """How to read a file of histories for a run: its settings, as far as they fit the file.

    The format goes by the file's ending, and is the run's where that tells none. The run's columns are taken where the
    file has them, and otherwise found. `min_rating` applies where the file has ratings.

    Parameters
    ----------
    path : path of the file or folder
    run : DataConfig
        Of the run.
    given : dict of str
        Columns by role ("user", "item", "time"), which the file must have.
    """
    path = Path(path)
    _check_file(path)
    file_format = _known_format(path) or run.format
    config = DataConfig(format=file_format)  # type: ignore[arg-type]
    present = _column_names(path, _format_of(path) if file_format == "auto" else file_format)
    inherited = {role: getattr(run, role) for role in ("user", "item", "time", "rating")}
    names = {role: name for role, name in inherited.items() if name in present} | given
    rated = columns.find("rating", names.get("rating"), present, str(path)) is not None
    return replace(config, **names, min_rating=run.min_rating if rated else None)


def _column_names(path: Path, file_format: str) -> list[str]:
    if file_format in ("text", "pth"):
        return []
    with _faults_named(path, file_format):
        check_compressed_text(path)
        if file_format in ("parquet", "arrow"):
            return ColumnarSource(path, file_format).names
        return _header(path, typed=file_format == "inter").names


def _read_events(path: Path, config: DataConfig) -> Events | Sequences:
    """Events of a file; of one that `Sequences.save` wrote the sequences."""
    _check_file(path)
    file_format = _format_of(path) if config.format == "auto" else config.format
    with _faults_named(path, file_format):
        check_compressed_text(path)
        if file_format == "text":
            return _read_text(path)
        if file_format == "pth":
            return read_lists(path)
        if file_format in ("parquet", "arrow"):
            source = ColumnarSource(path, file_format)
            return _read_saved(path, config) if source.saved else _read_columnar(source, config)
        return _read_delimited(path, config, typed=file_format == "inter")


@contextmanager
def _faults_named(path: Path, file_format: str) -> Iterator[None]:
    """Errors of Arrow and of the system, as a DataError that names the file."""
    try:
        yield
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except (pa.ArrowException, OSError) as error:
        if "UTF8" in str(error):
            raise _undecodable(path) from None
        raise DataError(f"{path}: cannot be read as {file_format}: {error}") from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        return
    if not path.exists():
        if not path.parent.is_dir():
            raise DataError(f"{path}: no such file, nor is there a folder {str(path.parent)!r}")
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], 3, 0.6)
        raise DataError(f"{path}: no such file" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else ""))
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty, expected interactions")


def _format_of(path: Path) -> str:
    found = _known_format(path)
    if found is not None:
        return found
    raise DataError(
        f"{path}: which format is this? Its extension is none of "
        f"{', '.join(suffix for known in FORMATS.values() for suffix in known)}: "
        f"rename it, or choose one of {', '.join(FORMATS)} by the option data.format"
    )


def _known_format(path: Path) -> str | None:
    """The format that a path's ending tells."""
    if path.is_dir():
        return "parquet"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return next((name for name, known in FORMATS.items() if suffixes and suffixes[-1] in known), None)


def _read_saved(path: Path, config: DataConfig) -> Sequences:
    if config.min_rating is not None or config.k_core > 1:
        raise DataError(
            f"{path}: is a file of Sequences.save, which min_rating and k_core cannot filter: "
            "filter the log that it came from"
        )
    return Sequences.load(path)


def _read_columnar(source: ColumnarSource, config: DataConfig) -> Events:
    return find_events(source.names, source.load, config, source.origin)


def _open(path: Path) -> Any:
    return pa.input_stream(str(path), compression="detect")


class _Header(NamedTuple):
    """The first line of a delimited file: its fields, the columns' names in them, and whether nothing follows."""

    delimiter: str
    fields: list[str]
    names: list[str]
    alone: bool


def _header(path: Path, typed: bool) -> _Header:
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as file:
        line = file.readline()
    if not line:
        raise DataError(f"{path}: is empty, expected interactions")
    header = line.rstrip("\r\n")
    if not header.strip():
        raise DataError(f"{path}: line 1: is blank, expected a header such as user_id,item_id,timestamp")
    delimiter = "\t" if typed else max(",;\t|", key=header.count)
    fields = present = header.split(delimiter) if typed else next(csv.reader([header], delimiter=delimiter), [])
    if typed:
        untyped = [name for name in present if not re.search(":(token|float)(_seq)?$", name)]
        if untyped:
            raise DataError(
                f"{path}: line 1: expected a tab-separated header of names and types such as "
                f"user_id:token, got {untyped[0]!r}; a file without types is read as CSV (data.format)"
            )
        present = [name.rpartition(":")[0] for name in present]
    if any(re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", name) for name in present):
        raise DataError(
            f"{path}: line 1: expected the names of the columns, got {header!r}; "
            "add a header line such as user_id,item_id,timestamp"
        )
    return _Header(delimiter, fields, present, alone=line == header)


def _read_delimited(path: Path, config: DataConfig, typed: bool) -> Events:
    """CSV, or RecBole's `.inter` when typed."""
    from pyarrow import csv as arrow_csv

    header = _header(path, typed)
    ragged: list[arrow_csv.InvalidRow] = []

    def refuse(row: arrow_csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    def load(names: list[str]) -> pa.Table:
        if header.alone:  # Arrow cannot skip a line without an end
            return pa.table({name: pa.array([], pa.string()) for name in names})
        encoded = pa.dictionary(pa.int32(), pa.string())
        kinds = dict.fromkeys(names, pa.string()) | dict.fromkeys(names[:2], encoded)  # user and item come first
        within = memory.current() is not None
        if within:
            kinds |= dict.fromkeys(names[:2], pa.large_string())
        read_csv = arrow_csv.open_csv if within else arrow_csv.read_csv
        result = read_csv(
            _open(path),
            read_options=arrow_csv.ReadOptions(column_names=header.names, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(
                delimiter=header.delimiter,
                quote_char=False if typed else '"',
                newlines_in_values=not typed,
                invalid_row_handler=refuse,
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=names,
                column_types=kinds,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        return encode_batches(result, result.schema, names) if within else result

    origin = Origin(str(path), lambda row: f"line {_line_of(path, row)}")
    try:
        events = find_events(header.names, load, config, origin, from_text=True)
    except pa.ArrowInvalid:
        if not ragged:
            raise
        row = ragged[0]
        raise DataError(
            f"{path}: line {_line_with(path, row.text)}: expected {row.expected_columns} fields as in the "
            f"header, got {row.actual_columns}: {row.text[:80]!r}; quote ids that hold the separator "
            f"{header.delimiter!r}, or mend the line"
        ) from None
    _refuse_repeated_header(events, header, config, origin)
    return events


def _refuse_repeated_header(events: Events, header: _Header, config: DataConfig, origin: Origin) -> None:
    """DataError if an event is the header once more, as in files that were joined by cat."""
    codes = []
    for role, labels in (("user", events.user_labels), ("item", events.item_labels)):
        if pa.types.is_integer(labels.type):
            return
        name = columns.find(role, getattr(config, role), header.names, origin.name)
        written = header.fields[header.names.index(name)]  # type: ignore[arg-type]
        codes.append(pc.index(labels, pa.scalar(written, labels.type)).as_py())
    if -1 in codes:
        return
    rows = np.flatnonzero((events.users == codes[0]) & (events.items == codes[1]))
    if rows.size:
        raise origin.error(int(rows[0]), "expected an event, got the header again; remove the repeated header")


def _line_origin(path: Path, lines: NDArray[np.int64]) -> Origin:
    return Origin(str(path), lambda index: f"line {lines[index] + 1}")


def _line_of(path: Path, row: int) -> int:
    """Number of the line that holds an event, counting the header and blank lines."""
    with _open(path) as file:
        filled = (number for number, line in enumerate(_lines(file), 1) if line.strip())
        return next(itertools.islice(filled, row + 1, None), row + 2)


def _line_with(path: Path, text: str) -> int:
    with _open(path) as file:
        wanted = text.encode().splitlines()[0]
        return next((number for number, line in enumerate(_lines(file), 1) if line.rstrip(b"\r\n") == wanted), 0)


def _lines(file: Any) -> Iterator[bytes]:
    return iter(io.BufferedReader(file).readline, b"")


def _undecodable(path: Path) -> DataError:
    """The error for a file that is not UTF-8, with the place of the first fault."""
    with _open(path) as file:
        for number, line in enumerate(_lines(file), 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path}: line {number}: expected UTF-8 text, got byte {line[error.start]:#04x} at "
                    f"position {error.start}; convert the file to UTF-8, for example with iconv"
                )
    return DataError(f"{path}: is not UTF-8 text; convert it, for example with iconv")


def _read_text(path: Path) -> Events:
    """`user item item ...` lines."""
    if (limit := memory.current()) is not None:
        limit.left({f"{path}, as text, which is held whole": 20 * path.stat().st_size})
    with _open(path) as file:
        content = file.read().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        raise DataError(
            f"{path}: holds null bytes, so it is not UTF-8 text; if it is a Parquet file, name its format "
            "(data.format), if it is UTF-16, convert it to UTF-8"
        )
    # Python's own splitlines would break at characters that may be part of an id
    lines = pa.array(content.decode().split("\n"), pa.large_string())
    numbers_only = re.search(rb"[^\d\s]", content) is None
    del content
    lines = pc.ascii_trim(lines, " \t\r")
    filled = np.flatnonzero(pc.not_equal(lines, "").to_numpy(zero_copy_only=False))
    if not filled.size:
        raise DataError(f"{path}: holds only blank lines, expected interactions")
    lines = lines.take(pa.array(filled))
    by_tab = not numbers_only and "\t" in lines[0].as_py()
    fields = pc.split_pattern(lines, "\t") if by_tab else pc.ascii_split_whitespace(lines)
    counts = pc.list_value_length(fields).to_numpy()
    if counts.min() < 2:
        short = int(np.argmin(counts))
        raise DataError(
            f"{path}: line {filled[short] + 1}: user {lines[short].as_py()[:80]!r} has no items; expected "
            f"`user item item ...` separated by {'tabs' if by_tab else 'spaces'} (delete the line, or choose another "
            "format by the option data.format)"
        )
    starts = fields.offsets.to_numpy()[:-1]
    is_item = np.ones(counts.sum(), bool)
    is_item[starts] = False
    codes, labels = [], []
    for role, rows, tokens in (
        ("user", np.arange(filled.size), fields.flatten().take(pa.array(starts))),
        ("item", np.repeat(np.arange(filled.size), counts - 1), fields.flatten().filter(pa.array(is_item))),
    ):
        origin = _line_origin(path, filled[rows])
        code, label = columns.ids(pa.chunked_array([tokens]), role, origin, from_text=True)
        integers = pa.types.is_integer(label.type)
        below = pc.less(label, 1) if integers else pc.match_substring_regex(label, "^(-[0-9]+|[+-]?0+)$")
        if pc.any(below).as_py():
            index = int(np.argmax(below.to_numpy(zero_copy_only=False)[code]))
            raise origin.error(
                index,
                f"expected {role} ids from 1 in a text file, where 0 is padding, got "
                f"{tokens[index].as_py()!r}; if it is a real id, write the events as CSV "
                "(user_id,item_id), which takes any id",
            )
        codes.append(code)
        labels.append(label)
    return Events(str(path), np.repeat(codes[0], counts - 1), codes[1], labels[0], labels[1])

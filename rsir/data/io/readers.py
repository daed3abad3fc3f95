"""Read interaction logs into `Sequences`: files of any format of :mod:`rsir.data.io.formats`, and folders of them."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from rsir.config import DataConfig
from rsir.config.arguments import typed
from rsir.data.io import columns
from rsir.data.io.delimited import DelimitedSource
from rsir.data.io.events import Events, Histories, Reading, to_histories, to_sequences
from rsir.data.io.formats import FORMATS, format_of, known_format
from rsir.data.io.limits import check_compressed_text
from rsir.data.io.opening import opened, undecodable
from rsir.data.sequences import Sequences
from rsir.errors import DataError, Interrupted
from rsir.files import local
from rsir.objects.copies import at_hand
from rsir.runtime.interrupts import prepare_arrow

__all__ = ["histories_config", "read", "read_histories", "read_log", "read_names"]

_BINARY = ("parquet", "arrow", "pth")


@typed(DataError)
def read(path: str | os.PathLike[str], config: DataConfig | None = None) -> Sequences:
    """Read one file of interactions, or a folder of such files.

    The format goes by the extension and the first lines, or by ``config.format``:

    - text (``.txt``): one user a line, ``user item item ...`` oldest first, separated by spaces, or by tabs if ids
      hold spaces. A user may have several lines (``user item`` a line is the extreme case). No times. A table that
      only looks like this is refused.
    - CSV (``.csv``, ``.tsv``, any text with a header of usual names): one event a line; commas, semicolons, tabs,
      bars, ``::`` or spaces. Without a header columns go by number, from 0.
    - JSON lines (``.jsonl``, ``.json``): an object a line; ``events.aid`` names a field of objects within.
    - Parquet (``.parquet``): one event a row, or one list of items; or a file of `Sequences.save`. Of a folder, every
      Parquet file in it and below it, in order of their paths; what partitioned paths say (``day=3/part-0.parquet``)
      are columns too. Only the columns needed are read, batch by batch.
    - Arrow IPC (``.arrow``, ``.feather``): as a Parquet file.
    - RecBole (``.inter``): tab-separated with a typed header such as ``user_id:token``.
    - ``.pth``: lists of integers, or the records of the RSIR authors' data sets (:func:`rsir.data.io.pth.read_lists`).

    Text formats may be compressed (gzip, bz2, zstd or lz4, whatever the name) and are UTF-8 unless ``config.encoding``
    says otherwise. Columns are found by their usual names unless given. A folder without Parquet files may hold CSV or
    JSON lines.

    Parameters
    ----------
    path : path of the file or folder
        Or an address such as ``s3://bucket/events``, which is copied to this machine, read and removed.
    config : DataConfig, default: DataConfig()
        Uses all of it but `path` and the split.

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
        If events were dropped because another one has the same user, item and time, or rows that cannot be used; if
        ids look like markers of missing values.
    """
    return read_log(path, config or DataConfig())[0]


def read_log(path: str | os.PathLike[str], config: DataConfig) -> tuple[Sequences, Reading]:
    """As `read`, and how the file was read."""
    with at_hand(path, DataError) as file:
        events, file_format = read_events(file, config)
        if isinstance(events, Sequences):
            return events, Reading(name=str(path), format=f"{file_format} of Sequences.save")
        reading = replace(events.reading, name=str(path), format=file_format)
        return to_sequences(replace(events, reading=reading), config), reading


@typed(DataError)
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
    with at_hand(path, DataError) as file:
        events, _ = read_events(file, config)
        if isinstance(events, Sequences):
            raise DataError(f"{path}: is a file of Sequences.save, expected a table of events or text")
        return to_histories(events, catalogue, config)


def read_names(path: str | os.PathLike[str], role: Literal["user", "item"]) -> list[Any]:
    """Names of users or items: a line each of a file of text, else the column of a table that holds them.

    Raises
    ------
    DataError
        The file cannot be used, or holds none.
    """
    path = local(path, DataError)
    _check_file(path)
    known = known_format(path) or "text"
    source = FORMATS[known].source
    with _faults_named(path, known, "utf-8"):
        if source is None or known == "csv":
            with opened(path) as file:
                lines = [line.strip() for line in file.read().decode("utf-8-sig").splitlines()]
            names: list[Any] = [line for line in lines if line]
            if known == "csv" and names and any(mark in names[0] for mark in ",;\t"):
                names = _column(DelimitedSource(path, DataConfig()), role, path)
            elif known == "csv":
                names = names[1:] if columns.simplified(names[0]).startswith(role) else names
        else:
            names = _column(source(path, DataConfig()), role, path)
    if not names:
        raise DataError(f"{path}: expected names of {role}s, got none")
    return names


def _column(source: Any, role: str, path: Path) -> list[Any]:
    present = source.names
    column = present[0] if len(present) == 1 else columns.find(role, None, present, str(path))
    return source.load([column])[column].drop_null().unique().to_pylist()


def histories_config(path: str | os.PathLike[str], run: DataConfig, given: dict[str, str]) -> DataConfig:
    """How to read a file of histories for a run: its settings, as far as they fit the file.

    The format goes by the file's ending, and is the run's where that tells none. The run's columns are taken where the
    file has them, and otherwise found. `min_rating` applies where the file has ratings.

    Parameters
    ----------
    path : path of the file or folder
    run : DataConfig
        The run's data settings.
    given : dict of str
        Columns by role ("user", "item", "time"), which the file must have.
    """
    with at_hand(path, DataError) as file:
        return _histories_config(file, run, given)


def _histories_config(path: Path, run: DataConfig, given: dict[str, str]) -> DataConfig:
    _check_file(path)
    config = DataConfig(
        format=known_format(path) or run.format,  # type: ignore[arg-type]
        time_format=run.time_format,
        header=run.header,
        encoding=run.encoding,
        on_bad_row=run.on_bad_row,
    )
    inherited = {role: getattr(run, role) for role in ("user", "item", "time", "rating")}
    present = _column_names(path, replace(config, **inherited | given))
    names = {role: name for role, name in inherited.items() if name in present} | given
    rated = columns.find("rating", names.get("rating"), present, str(path)) is not None
    return replace(config, **names, min_rating=run.min_rating if rated else None)


def _column_names(path: Path, config: DataConfig) -> list[str]:
    file_format = format_of(path, config) if config.format == "auto" else config.format
    with _faults_named(path, file_format, config.encoding):
        if file_format not in _BINARY:
            check_compressed_text(path)
        source = FORMATS[file_format].source
        return [] if source is None else source(path, config).names


def read_events(path: Path, config: DataConfig) -> tuple[Events | Sequences, str]:
    """Events of a file, of one that `Sequences.save` wrote the sequences; and the format."""
    prepare_arrow()
    _check_file(path)
    with _faults_named(path, config.format, config.encoding):
        file_format = format_of(path, config) if config.format == "auto" else config.format
    with _faults_named(path, file_format, config.encoding):
        if file_format not in _BINARY:
            check_compressed_text(path)
        return FORMATS[file_format].read(path, config), file_format


@contextmanager
def _faults_named(path: Path, file_format: str, encoding: str) -> Iterator[None]:
    """Errors of Arrow, codecs and the system, as a DataError that names the file."""
    try:
        yield
    except UnicodeError:
        raise undecodable(path, encoding) from None
    except pa.ArrowCancelled as error:  # a signal, which Arrow has handed on
        raise Interrupted("stopped as asked") from error
    except (pa.ArrowException, OSError) as error:
        if "UTF8" in str(error) or "codec can't decode" in str(error):
            raise undecodable(path, encoding) from None
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as {file_format}: {reason}") from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        return
    if not path.exists():
        if not path.parent.is_dir():
            raise DataError(f"{path}: no such file, nor is there a folder {str(path.parent)!r}")
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], 3, 0.6)
        raise DataError(f"{path}: no such file" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else ""))
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        raise DataError(f"{path}: is a pipe, which cannot be read twice: write it to a file and give that")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is a device or a socket, expected a file or a folder of files")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty, expected interactions")

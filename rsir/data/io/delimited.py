"""Tables of text: CSV and its kin with or without a header, MovieLens' `::`, and RecBole's `.inter`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir.config import DataConfig
from rsir.data.io import columns
from rsir.data.io.columnar import encode_batches
from rsir.data.io.columns import Origin
from rsir.data.io.events import Events
from rsir.data.io.layout import Layout, layout_of
from rsir.data.io.opening import Changed, beginning, line_of, line_with, opened, undecodable
from rsir.data.warn import warn
from rsir.errors import DataError
from rsir.runtime import memory

__all__ = ["DelimitedSource"]

_BLOCKS = (2**20, 2**26, 2**30)  # bytes that Arrow reads at a time: a row must fit


class DelimitedSource:
    """A table of text; as :class:`rsir.data.io.columnar.ColumnarSource`.

    Parameters
    ----------
    path : Path
    config : DataConfig
    typed : bool
        Whether it is RecBole's: tabs, and a header of names and types. Columns of sequences become lists.
    """

    from_text = True

    def __init__(self, path: Path, config: DataConfig, typed: bool = False) -> None:
        self.path, self.config, self.typed = path, config, typed
        lines = beginning(path, config.encoding, strict=True)
        self.layout = _typed_layout(path, lines) if typed else layout_of(path, lines, config)
        self._alone = len(lines) == self.layout.header == 1
        self.names = [name.rpartition(":")[0] for name in self.layout.names] if typed else self.layout.names
        self._of_lists = {
            own for own, name in zip(self.names, self.layout.names, strict=True) if typed and name.endswith("_seq")
        }
        self.usual = self.layout.usual
        self.origin = Origin(str(path), lambda row: f"line {line_of(path, config.encoding, row, self.layout.header)}")
        self.dropped: list[str] = []  # rows that do not have the fields of the others
        self._ragged: list[Any] = []

    def load(self, names: list[str]) -> pa.Table:
        """Columns by name, user and item first, as text or codes of it."""
        if self._alone:
            return pa.table({name: pa.array([], pa.string()) for name in names})
        for block in _BLOCKS:
            self.dropped, self._ragged = [], []
            try:
                with _undecodable_rows() as undecodable_rows:
                    table = self._load(names, block)
                    self._check_quotes(table.num_rows + len(self.dropped))
                    return table
            except pa.ArrowInvalid as error:
                if undecodable_rows:
                    raise undecodable(self.path, self.config.encoding) from None
                if self._ragged:
                    raise self._ragged_error() from None
                if "straddling" not in str(error) or block == _BLOCKS[-1]:
                    raise
        raise AssertionError("unreachable")

    def _load(self, names: list[str], block: int) -> pa.Table:
        from pyarrow import csv as arrow_csv

        layout = self.layout
        kinds = dict.fromkeys(names, pa.string())
        within = memory.current() is not None
        roles = pa.large_string() if within else pa.dictionary(pa.int32(), pa.string())
        kinds |= {name: roles for name in names[:2] if name not in self._of_lists}  # user and item come first
        read_csv = arrow_csv.open_csv if within else arrow_csv.read_csv
        stream = opened(self.path, self.config.encoding)
        if layout.change is not None:
            stream = pa.PythonFile(Changed(stream, layout.change), mode="r")
        with stream:
            result = read_csv(
                stream,
                read_options=arrow_csv.ReadOptions(column_names=self.names, skip_rows=layout.header, block_size=block),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=layout.delimiter,
                    quote_char='"' if layout.quoted else False,
                    newlines_in_values=layout.quoted,
                    invalid_row_handler=self._refuse,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=names,
                    column_types=kinds,
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            table = encode_batches(result, result.schema, names) if within else result
        for name in self._of_lists.intersection(names):
            lists = pc.split_pattern_regex(pc.utf8_trim_whitespace(table[name]), r"\s+")
            table = table.set_column(table.column_names.index(name), name, lists)
        return table

    def _check_quotes(self, rows: int) -> None:
        """DataError if quotes that are part of a title, say, have made several lines one row.

        That is so where there are more lines than rows and all lines, taken without quotes, have the same fields.
        """
        from pyarrow import csv as arrow_csv

        if not self.layout.quoted:
            return
        line_ends, quotes = 0, False
        with opened(self.path, self.config.encoding) as stream:
            while block := stream.read(2**22):
                line_ends += block.count(b"\n")
                quotes = quotes or b'"' in block
        if not quotes or line_ends <= rows + self.layout.header:
            return
        with opened(self.path, self.config.encoding) as stream:
            try:
                reader = arrow_csv.open_csv(
                    stream,
                    read_options=arrow_csv.ReadOptions(column_names=self.names, skip_rows=self.layout.header),
                    parse_options=arrow_csv.ParseOptions(delimiter=self.layout.delimiter, quote_char=False),
                    convert_options=arrow_csv.ConvertOptions(
                        include_columns=self.names[:1], column_types={self.names[0]: pa.binary()}
                    ),
                )
                lines = sum(batch.num_rows for batch in reader)
            except pa.ArrowInvalid:
                return
        if lines > rows:
            raise DataError(
                f"{self.path}: a quote that opens a field and is not closed in its line has joined {lines:,} lines to "
                f"{rows:,} rows; remove the quotes by tr -d '\"' < {self.path.name}, or double those within fields"
            )

    def _refuse(self, row: Any) -> str:
        if self.config.on_bad_row == "drop":
            self.dropped.append(row.text)
            return "skip"
        self._ragged.append(row)
        return "error"

    def _ragged_error(self) -> DataError:
        row = self._ragged[0]
        line = line_with(self.path, self.config.encoding, row.text, self.layout.change or bytes)
        like = "in the header" if self.layout.header else "in the first line"
        text = row.text[:80].replace(self.layout.delimiter, self.layout.separator)
        return DataError(
            f"{self.path}: line {line}: expected {row.expected_columns} fields as {like}, got {row.actual_columns}: "
            f"{text!r}; quote ids that hold the separator {self.layout.separator!r}, fix the line, or leave such "
            "lines out by the option data.on_bad_row"
        )

    def checked(self, events: Events) -> Events:
        """The events, none of which is the header once more, as in files that were joined by cat."""
        rows = self._headers(events) if self.layout.header else np.zeros(0, np.int64)
        if not rows.size:
            return events
        if self.config.on_bad_row != "drop":
            raise self.origin.error(int(rows[0]), "expected an event, got the header again; remove the repeated header")
        warn(f"{self.path}: dropped {rows.size} repeated headers")
        return events.keep(np.delete(np.arange(events.users.size), rows))

    def _headers(self, events: Events) -> Any:
        codes = []
        for role, labels in (("user", events.user_labels), ("item", events.item_labels)):
            if pa.types.is_integer(labels.type):
                return np.zeros(0, np.int64)
            name = columns.find(role, getattr(self.config, role), self.names, self.origin.name)
            written = self.layout.fields[self.names.index(name)]  # type: ignore[arg-type]
            codes.append(pc.index(labels, pa.scalar(written, labels.type)).as_py())
        if -1 in codes:
            return np.zeros(0, np.int64)
        return np.flatnonzero((events.users == codes[0]) & (events.items == codes[1]))


@contextmanager
def _undecodable_rows() -> Iterator[list[UnicodeDecodeError]]:
    """Errors of rows that Arrow cannot decode to hand them on, which it would print."""
    found: list[UnicodeDecodeError] = []
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, UnicodeDecodeError):
            found.append(unraisable.exc_value)
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield found
    finally:
        sys.unraisablehook = before


def _typed_layout(path: Path, lines: list[str]) -> Layout:
    if not lines:
        raise DataError(f"{path}: is empty, expected interactions")
    if not lines[0].strip():
        raise DataError(f"{path}: line 1: is blank, expected a header such as user_id,item_id,timestamp")
    fields = lines[0].split("\t")
    untyped = [name for name in fields if not re.search(":(token|float)(_seq)?$", name)]
    if untyped:
        raise DataError(
            f"{path}: line 1: expected a tab-separated header of names and types such as "
            f"user_id:token, got {untyped[0]!r}; a file without types is read as CSV (data.format)"
        )
    return Layout("\t", fields, fields, 1, {}, quoted=False)

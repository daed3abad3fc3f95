"""Sequences as text, ``user item item ...`` a line; and tables that only look like them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.config import DataConfig
from rsir.data.io import columns
from rsir.data.io.columns import Origin
from rsir.data.io.events import Events
from rsir.data.io.layout import advice, is_time
from rsir.data.io.opening import opened
from rsir.data.warn import warn
from rsir.errors import DataError
from rsir.runtime import memory

__all__ = ["read_text"]

_LOOKED_AT = 100_000  # lines that tell whether a file is a table


def read_text(path: Path, config: DataConfig) -> Events:
    """Events of `user item item ...` lines; DataError if they are a table's."""
    if (limit := memory.current()) is not None:
        limit.left({f"{path}, as text, which is held whole": 20 * path.stat().st_size})
    with opened(path, config.encoding) as file:
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
        if config.on_bad_row != "drop" or counts.max() < 2:
            short = int(np.argmin(counts))
            raise DataError(
                f"{path}: line {filled[short] + 1}: user {lines[short].as_py()[:80]!r} has no items; expected "
                f"`user item item ...` separated by {'tabs' if by_tab else 'spaces'} (delete the line, or choose "
                "another format by the option data.format)"
            )
        few = int(np.count_nonzero(counts < 2))
        warn(f"{path}: dropped {few} of {filled.size} lines without items")
        kept = np.flatnonzero(counts >= 2)
        filled, fields, counts = filled[kept], fields.take(pa.array(kept)), counts[kept]
    _refuse_table(path, fields, counts, config)
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


def _line_origin(path: Path, lines: NDArray[np.int64]) -> Origin:
    return Origin(str(path), lambda index: f"line {lines[index] + 1}")


def _refuse_table(path: Path, fields: pa.Array, counts: NDArray[Any], config: DataConfig) -> None:
    """DataError if the lines are rows of a table: as many fields each, and a column of what no items are.

    Such a column holds times while others do not; or numbers with fractions; or, where users have many lines, a few
    small numbers, as ratings are, in a place where its neighbour has many more.
    """
    some = fields.slice(0, _LOOKED_AT)
    rows, width = len(some), int(counts[0])
    if width < 3 or (counts[:rows] != width).any():
        return
    offsets = some.offsets.to_numpy()
    flat = fields.values.slice(int(offsets[0]), rows * width)
    cells = np.asarray(flat.to_pylist(), object).reshape(rows, width)
    header = 0 if any(map(_is_number, cells[0])) else 1  # names of columns
    if header == rows:
        return
    body = cells[header:]
    numeric = [all(map(_is_number, column)) for column in body.T]
    timed = [all(map(is_time, column)) for column in body.T]
    distinct = [len(set(column)) for column in body.T]
    users = distinct[0] < len(body)
    found = None
    for place in range(1, width):
        if timed[place] and not all(timed[1:]):
            found = f"field {place + 1} of each line is a time"
        elif numeric[place] and any("." in value for value in body[:, place]) and users:
            found = f"field {place + 1} of each line is a number with a fraction"
    if found is None and header and numeric[0] and any(numeric[1:]):
        found = "line 1 has names, and those after it have numbers"
    if found is None and config.format == "auto" and users:
        few = [place for place in range(2, width) if numeric[place] and distinct[place] <= 11]
        if few and len(body) >= 10 and distinct[1] >= 3 * distinct[few[0]]:
            found = f"field {few[0] + 1} of each line is one of {distinct[few[0]]} numbers, and users have many lines"
    if found is None:
        return
    sequences = "" if config.format == "text" else "; if they are sequences all the same, --data.format text reads them"
    if "fraction" in found or "time" in found or header:
        sequences = ""
    raise DataError(
        f"{path}: is a table of {width} columns, expected sequences (`user item item ...`): {found}; "
        f"{advice(list(cells[0]), header=bool(header), with_format=config.format == 'text')}{sequences}"
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?", text, re.ASCII) is not None

"""JSON lines: an object a line, as Amazon, Yelp and OTTO publish; also lines of Python's dicts, as Steam's."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir.config import DataConfig
from rsir.data.io.columnar import encode_batches
from rsir.data.io.columns import Origin
from rsir.data.io.opening import beginning, line_of, lines, opened
from rsir.data.sequences import offsets_of
from rsir.errors import DataError

__all__ = ["JsonSource", "check_lines"]

_PIECE = 2**25  # bytes of lines that are read at a time
_SAMPLE = 500  # lines that tell which fields there are
_BARE_NULL = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\r\n}])\s*null")


def check_lines(content: bytes) -> None:
    """Refuse what Arrow's JSON reader must not be given: a ``null`` that stands in no object.

    As the first value it ends the process (in Arrow 26, and in those before), and later it is read as an empty object.

    Parameters
    ----------
    content : bytes
        JSON lines. Only where a ``null`` follows a line's end or a brace are they parsed here.

    Raises
    ------
    ValueError
        A line holds no JSON object, or more than one value: names the line.
    """
    if not _BARE_NULL.search(content):
        return
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if line.strip() and not _is_object(line):
            got = line.strip()[:80].decode(errors="replace")
            raise ValueError(f"line {number}: expected a JSON object, got {got!r}")


class JsonSource:
    """An object a line; as :class:`rsir.data.io.columnar.ColumnarSource`.

    Fields of objects within it are columns by a path such as ``events.aid``; those in a list of objects are lists.
    """

    from_text = False

    def __init__(self, path: Path, config: DataConfig) -> None:
        self.path, self.config = path, config
        self.origin = Origin(str(path), lambda row: f"line {line_of(path, config.encoding, row, 0)}")
        self.usual: dict[str, str] = {}
        self.dropped: list[str] = []
        self._kinds: dict[str, set[str]] = {}
        self._of_objects: set[str] = set()  # paths of lists of objects
        sample = [line for line in beginning(path, config.encoding)[:_SAMPLE] if line.strip()]
        if not sample:
            raise DataError(f"{path}: is empty, expected interactions")
        if sample[0].lstrip().startswith("["):
            raise DataError(
                f"{path}: is one JSON array, expected an object a line: write it so by jq -c '.[]' {path.name} > "
                f"{path.stem}.jsonl"
            )
        self._python = not _is_json(sample[0]) and _python(sample[0]) is not None
        for number, line in enumerate(sample, 1):
            record = self._parse(line)
            if record is not None:
                self._note("", record)
            elif config.on_bad_row != "drop":
                raise self._bad(number, line)
        self.names = list(self._kinds)

    def load(self, names: list[str]) -> pa.Table:
        """Columns by name, user and item first; of ids in text the codes."""
        self.dropped = []
        schema = pa.schema([(name, self._type(name)) for name in names])
        return encode_batches(self._batches(schema), schema, names)

    def _note(self, above: str, record: dict[str, Any], *, listed: bool = False) -> None:
        """Add what a record says of its fields and their types."""
        for key, value in record.items():
            name = f"{above}{key}"
            if isinstance(value, dict):
                self._note(f"{name}.", value, listed=listed)
            elif isinstance(value, list) and value and isinstance(value[0], dict) and not listed:
                self._of_objects.add(name)
                for each in value:
                    if isinstance(each, dict):
                        self._note(f"{name}.", each, listed=True)
            else:
                kinds = self._kinds.setdefault(name, set())
                if listed or isinstance(value, list):
                    kinds.add("list")
                values = value if isinstance(value, list) else [value]
                kinds |= {type(each).__name__ for each in values if each is not None}

    def _type(self, name: str) -> pa.DataType:
        kinds = self._kinds[name] - {"list"}
        inner: Any = pa.large_string()
        if kinds and kinds <= {"int", "float"}:
            inner = pa.float64() if "float" in kinds else pa.int64()
        return pa.large_list(inner) if "list" in self._kinds[name] else inner

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Whole lines, some megabytes at a time."""
        number = 1
        with opened(self.path, self.config.encoding) as file:
            rest = b""
            while True:
                piece = file.read(_PIECE)
                cut = (rest + piece).rfind(b"\n") + 1 if piece else len(rest)
                whole, rest = (rest + piece)[:cut], (rest + piece)[cut:]
                if whole.strip():
                    yield from self._columns(whole.removeprefix(b"\xef\xbb\xbf"), schema, number)
                number += whole.count(b"\n")
                if not piece:
                    return

    def _columns(self, piece: bytes, schema: pa.Schema, number: int) -> Iterator[pa.RecordBatch]:
        """A piece's columns by Arrow's reader; where it fails, line by line."""
        from pyarrow import json as arrow_json

        if not self._python:
            try:
                check_lines(piece)
                table = arrow_json.read_json(
                    pa.BufferReader(piece),
                    read_options=arrow_json.ReadOptions(block_size=2**24),
                    parse_options=arrow_json.ParseOptions(
                        explicit_schema=_nested(schema, self._of_objects), unexpected_field_behavior="ignore"
                    ),
                )
                for batch in table.to_batches():
                    arrays = [
                        _within(batch, name).cast(kind) for name, kind in zip(schema.names, schema.types, strict=True)
                    ]
                    yield pa.record_batch(arrays, schema=schema)
                return
            except (pa.ArrowException, ValueError):
                pass  # the slow way names the line
        rows: list[list[Any]] = []
        for place, line in enumerate(lines(pa.BufferReader(piece)), number):
            if not line.strip():
                continue
            record = self._parse(line.decode())
            try:
                if record is None:
                    raise ValueError
                rows.append([_value(record, field, schema) for field in schema.names])
            except (ValueError, TypeError, OverflowError) as error:
                if self.config.on_bad_row != "drop":
                    raise self._bad(place, line.decode(), str(error)) from None
                self.dropped.append(line.decode())
        arrays = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(schema.types)]
        yield pa.record_batch(arrays, schema=schema)

    def _parse(self, line: str) -> dict[str, Any] | None:
        try:
            record = _python(line) if self._python else json.loads(line)
        except (ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None

    def _bad(self, number: int, line: str, reason: str = "") -> DataError:
        reason = reason or "expected a JSON object"
        return DataError(f"{self.path}: line {number}: {reason}, got {line.strip()[:80]!r}; fix the line, or leave "
                         "such lines out by the option data.on_bad_row")  # fmt: skip


def _nested(schema: pa.Schema, of_objects: set[str]) -> pa.Schema:
    """The objects that hold these columns, in the types of Arrow's JSON reader."""

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_large_list(kind):
            return pa.list_(plain(kind.value_type))
        return pa.string() if pa.types.is_large_string(kind) else kind

    def fields(above: str, names: list[str]) -> list[pa.Field]:
        found = []
        for key in dict.fromkeys(name[len(above) :].partition(".")[0] for name in names):
            name = f"{above}{key}"
            inner = [each for each in names if each.startswith(f"{name}.")]
            if not inner:
                kind = schema.field(name).type
                listed = any(name.startswith(f"{each}.") for each in of_objects)
                found.append(pa.field(key, plain(kind.value_type if listed else kind)))
            else:
                kind = pa.struct(fields(f"{name}.", inner))
                found.append(pa.field(key, pa.list_(kind) if name in of_objects else kind))
        return found

    return pa.schema(fields("", schema.names))


def _within(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column by its path; of lists of objects a column of lists."""
    key, _, rest = name.partition(".")
    column = batch.column(key)
    lengths = None
    while True:
        if rest and pa.types.is_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
            column = pc.list_flatten(column)
        if not rest:
            break
        key, _, rest = rest.partition(".")
        column = pc.struct_field(column, key)
    return column if lengths is None else pa.LargeListArray.from_arrays(pa.array(offsets_of(lengths)), column)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _python(line: str) -> dict[str, Any] | None:
    """A line that holds one of Python's dicts of literals; nothing is executed."""
    try:
        record = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return record if isinstance(record, dict) else None


def _value(record: Any, name: str, schema: pa.Schema) -> Any:
    """A record's value of a column, as its type."""
    kind = schema.field(name).type
    found = _at(record, name)
    if pa.types.is_large_list(kind):
        if found is None:
            return None
        if not isinstance(found, list):
            raise ValueError(f"expected a list as {name!r}")
        return [_as(each, kind.value_type, name) for each in found]
    return _as(found, kind, name)


def _at(record: Any, name: str) -> Any:
    """What a path names; of a list of objects a list."""
    if isinstance(record, dict) and name in record:
        return record[name]
    key, _, rest = name.partition(".")
    while rest and isinstance(record, dict) and key not in record:
        more, _, rest = rest.partition(".")
        key = f"{key}.{more}"
    inner = record.get(key) if isinstance(record, dict) else None
    if isinstance(inner, list):
        return [_at(each, rest) for each in inner]
    return _at(inner, rest) if rest and inner is not None else None


def _as(value: Any, kind: pa.DataType, name: str) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if pa.types.is_large_string(kind):
        if isinstance(value, dict | list):
            raise ValueError(f"expected text or a number as {name!r}")
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number as {name!r}, as in the lines before it")
    if pa.types.is_integer(kind):
        if value != int(value) or not np.iinfo(np.int64).min <= value <= np.iinfo(np.int64).max:
            raise ValueError(f"expected an integer that fits int64 as {name!r}")
        return int(value)
    return float(value)

"""Parquet and Arrow IPC files, and folders of the former, batch by batch: only the columns asked for, ids as codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsir.data.io.columns import Origin, encoded
from rsir.data.io.limits import check_parquet
from rsir.data.sequences import offsets_of
from rsir.errors import DataError
from rsir.runtime import memory

SUFFIXES = (".parquet", ".pq")


class ColumnarSource:
    """One file, or a folder of Parquet files with the partitions that their paths name (``country=de/part.parquet``).

    Parameters
    ----------
    path : Path
    file_format : {"parquet", "arrow"}

    Attributes
    ----------
    names : list of str
        Columns, those of the partitions among them.
    saved : bool
        Whether `Sequences.save` wrote it.
    origin : Origin
        Says of a row which file it is in, and where.

    Raises
    ------
    DataError
        If the folder holds no Parquet file, or one says that it holds far too much.
    pyarrow.ArrowException
        If a file is none, or damaged.
    """

    from_text = False

    def __init__(self, path: Path, file_format: str) -> None:
        import pyarrow.dataset as ds  # takes 40 MiB

        if ":" in str(path):  # Arrow would take the start of logs:2/events.parquet for an address's
            path = path.absolute()
        self.path = path
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise DataError(f"{path}: its name is not UTF-8, which Arrow needs; rename it") from None
        self.usual: dict[str, str] = {}
        self.dropped: list[str] = []
        if path.is_dir():
            files = _files(path)
            self.dataset = ds.dataset(
                files, format="parquet", partitioning=_partitioning(path, files), partition_base_dir=str(path)
            )
        else:
            self.dataset = ds.dataset([str(path)], format=file_format)
        self._fragments = list(self.dataset.get_fragments())
        if path.is_dir() or file_format == "parquet":
            check_parquet(path, [fragment.metadata for fragment in self._fragments])
        own: list[str] = self.dataset.schema.names  # of the first file and of the partitions
        others = (name for fragment in self._fragments[1:] for name in fragment.physical_schema.names)
        self.names = own + [name for name in dict.fromkeys(others) if name not in own]
        self.saved = b"rsir.version" in (self.dataset.schema.metadata or {})
        self.origin = Origin(str(path), self._place)

    def load(self, names: list[str]) -> pa.Table:
        """Columns by name, user and item first; of their text codes and distinct values alone are held in memory.

        DataError if the files of a folder do not have the same columns of the same kind.
        """
        dataset = self._with_types_of_all(names)
        scanner = dataset.scanner(columns=names, batch_readahead=4, fragment_readahead=1)
        return encode_batches(scanner.to_batches(), dataset.schema, names)

    def _with_types_of_all(self, names: list[str]) -> Any:
        """The data set, with these columns of types that hold the values of every file; a first file's may not."""
        import pyarrow.dataset as ds

        schema = self.dataset.schema
        partitions = {key for each in self._fragments for key in ds.get_partition_keys(each.partition_expression)}
        for name in names:
            if name not in partitions:
                kind = self._type_of_all(name)
                schema = schema.set(schema.get_field_index(name), pa.field(name, kind))
        if schema.equals(self.dataset.schema):
            return self.dataset
        return ds.FileSystemDataset(self._fragments, schema, self.dataset.format, self.dataset.filesystem)

    def _type_of_all(self, name: str) -> pa.DataType:
        """A type that holds a column's values in every file: the wider of two, and one kind of text for another."""
        for fragment in self._fragments:
            present = fragment.physical_schema.names
            if present.count(name) != 1:
                raise DataError(
                    f"{fragment.path}: expected a column {name!r}, as in other files of the folder, got "
                    f"{', '.join(map(repr, present))}; rename its column, or move the file elsewhere"
                )
        first = self._fragments[0].path
        types = [fragment.physical_schema.field(name).type for fragment in self._fragments]
        if all(kind == types[0] for kind in types):
            return types[0]
        agreed = _spelt_out(types[0])
        for fragment, kind in zip(self._fragments, types, strict=True):
            try:
                schemas = [pa.schema([(name, each)]) for each in (agreed, _spelt_out(kind))]
                agreed = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
            except pa.ArrowException:
                raise DataError(
                    f"{fragment.path}: column {name!r} is of type {kind}, expected {types[0]} as in {first}; "
                    "write all files of a folder with the same types"
                ) from None
        return agreed

    def _place(self, row: int) -> str:
        if not self.path.is_dir():
            return f"row {row} (counted from 0)"
        starts = offsets_of([fragment.count_rows() for fragment in self._fragments])
        number = int(np.searchsorted(starts, row, side="right")) - 1
        file = Path(self._fragments[number].path).relative_to(self.path)
        return f"{file}: row {row - starts[number]} (counted from 0)"


def encode_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, names: list[str]) -> pa.Table:
    """Record batches as one table; of the first two columns, which are the users and items, codes of the distinct
    values while the batches pass by. Within a limit on memory the table lies in a mapped file, without codes."""
    current = memory.current()
    if current is not None:
        kinds = pa.schema([(name, _spelt_out(schema.field(name).type)) for name in names])
        return current.table((_checked(batch, names, kinds) for batch in batches), kinds)
    chunks: list[list[pa.Array]] = [[] for _ in names]
    for batch in batches:
        for place, name in enumerate(names):
            column = batch.column(name)
            column.validate(full=True)  # a damaged file may point outside of its buffers
            chunks[place].append(encoded(column) if place < 2 else column)
    columns = [
        pa.chunked_array(column) if column else pa.chunked_array([], schema.field(name).type)
        for name, column in zip(names, chunks, strict=True)
    ]
    return pa.table(columns, names=names)


def _checked(batch: pa.RecordBatch, names: list[str], kinds: pa.Schema) -> pa.Table:
    """Some columns of a batch, as these types."""
    for name in names:
        batch.column(name).validate(full=True)  # a damaged file may point outside of its buffers
    return pa.table(
        [batch.column(name).cast(kind) for name, kind in zip(names, kinds.types, strict=True)], schema=kinds
    )


def _spelt_out(kind: pa.DataType) -> pa.DataType:
    """A type that batches can share in a file: the text itself in the place of codes, which each has its own of."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_string_view(kind)
    return pa.large_string() if text else kind


def _partitioning(folder: Path, files: list[str]) -> Any:
    """How paths name partitions: integers where every value is one as Python prints it, else text (store=007)."""
    import pyarrow.dataset as ds

    values: dict[str, set[str]] = {}
    for file in files:
        for part in Path(file).relative_to(folder).parts[:-1]:
            key, equals, value = part.partition("=")
            if equals and value != "__HIVE_DEFAULT_PARTITION__":
                values.setdefault(key, set()).add(value)
    padded = {
        key: pa.string()
        for key, found in values.items()
        if any(re.fullmatch(r"-?0\d+|[+-]?\d{19,}", value) for value in found)
    }
    if not padded:
        return "hive"
    known = {
        key: padded.get(key, pa.int64() if all(re.fullmatch(r"-?\d{1,18}", value) for value in found) else pa.string())
        for key, found in values.items()
    }
    return ds.partitioning(pa.schema(known), flavor="hive")


def _files(folder: Path) -> list[str]:
    """Parquet files below a folder, in order of their paths; names that start with _ or . are not data."""
    found = sorted(path for suffix in SUFFIXES for path in folder.rglob(f"*{suffix}") if path.is_file())
    files = [str(path) for path in found if not any(part[0] in "_." for part in path.relative_to(folder).parts)]
    if not files:
        raise DataError(
            f"{folder}: is a folder without Parquet files; name a file, or a folder with files that end in "
            f"{' or '.join(SUFFIXES)}"
        )
    return files

"""Folders of files of text: one table, in order of their paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsir.config import DataConfig
from rsir.data.io.columnar import encode_batches
from rsir.data.io.columns import Origin
from rsir.data.sequences import offsets_of
from rsir.errors import DataError
from rsir.runtime import memory

__all__ = ["Folder", "files_below"]


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with these endings, compressed or not, in order of their paths, but for names in _ or ."""
    found = []
    for path in sorted(folder.rglob("*")):
        endings = [suffix.lower() for suffix in path.suffixes[-2:]]
        hidden = any(part[0] in "_." for part in path.relative_to(folder).parts)
        if not hidden and any(ending in suffixes for ending in endings) and path.is_file():
            found.append(path)
    return found


class Folder:
    """Several tables as one; as :class:`rsir.data.io.columnar.ColumnarSource`."""

    def __init__(
        self, path: Path, suffixes: tuple[str, ...], config: DataConfig, source: Callable[[Path, DataConfig], Any]
    ) -> None:
        self.path = path
        files = [file for file in files_below(path, suffixes) if file.stat().st_size]
        if not files:
            raise DataError(f"{path}: is a folder without files that end in {', '.join(suffixes)}; name a file")
        first = source(files[0], config)
        self._first, self._files, self._source, self._config = first, files, source, config
        self.names, self.usual, self.from_text = first.names, first.usual, first.from_text
        for file in files[1:]:
            names = source(file, config).names
            if set(names) != set(first.names):
                raise DataError(
                    f"{file}: expected the columns of {files[0].name}, {', '.join(map(repr, first.names))}, got "
                    f"{', '.join(map(repr, names))}; name one file, or move those that are no events elsewhere"
                )
        self.dropped: list[str] = []
        self._counts: list[int] = []
        self.origin = Origin(str(path), self._place)
        self._sources = [first]

    def load(self, names: list[str]) -> pa.Table:
        """Columns of all files, one after the other."""
        self.dropped, self._counts = [], []
        self._sources = [self._first, *(self._source(file, self._config) for file in self._files[1:])]
        if memory.current() is None:
            return pa.concat_tables(self._loaded(names), promote_options="permissive")
        schema = self._sources[0].load(names).schema
        return encode_batches((batch for table in self._loaded(names) for batch in table.to_batches()), schema, names)

    def _loaded(self, names: list[str]) -> Any:
        self._counts = []
        for source in self._sources:
            table = source.load(names)
            self._counts.append(table.num_rows)
            self.dropped += source.dropped
            yield table

    def _place(self, row: int) -> str:
        starts = offsets_of(self._counts)
        number = min(int(np.searchsorted(starts, row, side="right")) - 1, len(self._sources) - 1)
        source = self._sources[number]
        return f"{source.path.relative_to(self.path)}: {source.origin.place(row - int(starts[number]))}"

    def checked(self, events: Any) -> Any:
        """The events; see :meth:`rsir.data.io.delimited.DelimitedSource.checked`."""
        return self._first.checked(events) if hasattr(self._first, "checked") else events

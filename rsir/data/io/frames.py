"""Data frames of any library as tables of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from rsir.config import DataConfig
from rsir.config.arguments import typed
from rsir.data.io.columnar import encode_batches
from rsir.data.io.columns import Origin
from rsir.data.io.events import Events, to_sequences
from rsir.data.io.tables import Table, find_events
from rsir.data.sequences import Sequences
from rsir.errors import DataError
from rsir.runtime.interrupts import prepare_arrow

Load = Callable[[list[str]], pa.Table]


@typed(DataError)
def from_frame(frame: Any, config: DataConfig | None = None) -> Sequences:
    """Read events from a data frame, one a row; as `rsir.data.read`, with rows counted from 0 in messages.

    Parameters
    ----------
    frame : data frame
        pandas, polars (lazy or not), an Arrow table, a Hugging Face ``datasets.Dataset`` (its columns are used where
        they lie) or ``IterableDataset``, any other that narwhals knows, or anything that offers Arrow's C stream.
        Only the columns needed are taken from it.
    config : DataConfig, default: DataConfig()

    Raises
    ------
    DataError
        If it is no data frame, or cannot be used; names the row and the column.
    """
    config = config or DataConfig()
    prepare_arrow()
    return to_sequences(events_of(frame, config), config)


def events_of(frame: Any, config: DataConfig) -> Events:
    present, load = _hugging_face(frame) or _data_frame(frame)
    origin = Origin(f"{type(frame).__module__.split('.')[0]} frame", lambda row: f"row {row} (counted from 0)")
    try:
        return find_events(Table(present, load, origin), config)
    except (pa.ArrowException, TypeError) as error:  # a column of mixed types
        raise DataError(f"{origin.name}: cannot be made an Arrow table: {error}") from error


def _data_frame(frame: Any) -> tuple[list[str], Load]:
    """Columns of a frame that narwhals or Arrow know, and how to load some of them."""
    import narwhals as nw

    _check_columns(frame)
    try:
        known: Any = nw.from_native(frame)
    except TypeError as error:
        if not hasattr(frame, "__arrow_c_stream__"):
            raise DataError(
                "expected a data frame (pandas, polars, Arrow, datasets.Dataset or any other that narwhals or Arrow "
                f"read), got {type(frame).__name__}"
            ) from error
        reader = pa.RecordBatchReader.from_stream(frame)

        def stream(names: list[str]) -> pa.Table:
            return encode_batches((batch.select(names) for batch in reader), reader.schema, names)

        return reader.schema.names, stream

    def load(names: list[str]) -> pa.Table:
        chosen = known.select(names)
        return (chosen.collect() if isinstance(chosen, nw.LazyFrame) else chosen).to_arrow()

    return known.collect_schema().names(), load


def _check_columns(frame: Any) -> None:
    """Refuse what frames can have that tables cannot: one column alone, and names that are no text or not unique."""
    kind = type(frame).__name__
    if kind in ("Series", "ChunkedArray", "Array"):
        raise DataError(f"expected a data frame with columns of users and items, got a {kind}, which is one column")
    names = None if kind == "LazyFrame" else getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    if names is None:
        return
    name, names = f"{type(frame).__module__.split('.')[0]} frame", list(names)
    other = [column for column in names if not isinstance(column, str)]
    if other:
        example = 'frame.columns = ["user", "item", "time"]'
        raise DataError(f"{name}: expected columns with names, got {other[0]!r}; set them, as in {example}")
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{name}: {names.count(twice)} columns are called {twice!r}; rename all but one")


def _hugging_face(frame: Any) -> tuple[list[str], Load] | None:
    """Columns of a Hugging Face dataset, and how to load some of them; None for anything else."""
    if type(frame).__module__.partition(".")[0] != "datasets":
        return None
    if isinstance(frame, dict):
        raise DataError(f"expected one dataset, got {type(frame).__name__} of {', '.join(map(repr, frame))}: choose "
                        f"one, as in data[{next(iter(frame), 'train')!r}]")  # fmt: skip
    arrow = frame.with_format("arrow")
    if hasattr(frame, "num_rows"):  # mapped from disk or held in memory: the columns themselves, nothing is copied
        return frame.column_names, lambda names: arrow.select_columns(names)[:]

    def stream(names: list[str]) -> pa.Table:
        tables = arrow.select_columns(names).iter(batch_size=65_536)
        batches = (batch for table in tables for batch in table.select(names).to_batches())
        return encode_batches(batches, arrow.features.arrow_schema, names)

    if arrow.column_names is None:
        raise DataError("the columns of this streamed dataset are not known in advance: name their types by "
                        "dataset.cast(features), or load it without streaming")  # fmt: skip
    return arrow.column_names, stream

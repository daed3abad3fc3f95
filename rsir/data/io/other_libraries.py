"""Sequences as other libraries take them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from rsir import files
from rsir.data.io.output import to_table
from rsir.data.io.writers import write
from rsir.data.sequences import Sequences
from rsir.errors import DataError

__all__ = ["recbole_files", "rectools_frame"]

_LAST = 2**33  # seconds since 1970 in the year 2242; what is above is of another unit


def rectools_frame(data: Sequences) -> Any:
    """See :meth:`rsir.data.Sequences.to_rectools`."""
    frame = to_table(data).select(["user_id", "item_id"]).to_pandas()
    times, began = data.times, "1970-01-01"
    if times is None or (times.size and not 0 <= int(times.min()) <= int(times.max()) < _LAST):
        times = np.arange(data.num_interactions) - np.repeat(data.offsets[:-1], data.lengths)
        began = "2000-01-01"
    frame["weight"] = 1.0
    frame["datetime"] = (np.datetime64(began, "s") + times.astype("timedelta64[s]")).astype("datetime64[ns]")
    return frame


def recbole_files(data: Sequences, folder: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """See :meth:`rsir.data.Sequences.to_recbole`."""
    path = files.local(folder, DataError)
    if not name or name != os.path.basename(name) or name in (".", ".."):
        raise DataError(f"name: expected a name for a folder and a file, got {name!r}")
    try:
        files.make_folder(path / name)
    except OSError as cause:
        raise files.refused(path / name, cause, DataError) from cause
    write(data, path / name / f"{name}.inter")
    columns = ["user_id", "item_id", "timestamp"]
    fields = dict(zip(("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"), columns, strict=True))
    return {"data_path": str(path), "dataset": name, "load_col": {"inter": columns}, **fields}

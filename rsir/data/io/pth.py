"""`.pth` files with lists of integers, as the authors of RSIR keep their data; read without executing anything."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rsir.data.io.events import Events
from rsir.data.io.limits import check_size
from rsir.errors import DataError

_EXPECTED = (
    "a list with one list of item ids a user, or with one record "
    "[user, padded history, target or targets, length, ...] a user"
)


def read_lists(path: Path) -> Events:
    """Events of a file that ``torch.save`` made of lists.

    Each row is a list of item ids, oldest first, and users are numbered from 1; or it is a record of the authors'
    data sets: the user, the history padded with 0, the target (or the targets, which are the history moved by one),
    the length of the history, and more that is not read. Its sequence is the history and the last target.

    Raises
    ------
    DataError
        If the file holds anything else; names the row.
    """
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_size(path, sum(entry.file_size for entry in archive.infolist()))
        rows = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as cause:  # of a damaged file, any: torch documents none
        reason = str(cause).partition("\n")[0].partition(" Re-running")[0]
        raise DataError(
            f"{path}: cannot be read without executing what it holds; expected {_EXPECTED}, saved by torch.save "
            f"({reason})"
        ) from cause
    if not isinstance(rows, list | tuple) or not len(rows):
        raise DataError(f"{path}: holds {_kind(rows)}; expected {_EXPECTED}")
    if isinstance(rows[0], list | tuple) and len(rows[0]) > 1 and isinstance(rows[0][1], list | tuple):
        users, rows = _from_records(path, rows)
    else:
        users = np.arange(1, len(rows) + 1)
    for number, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            raise DataError(f"{path}: row {number} (counted from 0) is {_kind(row)}; expected {_EXPECTED}")
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    check_size(path, 8 * int(lengths.sum()))
    if set(map(type, itertools.chain.from_iterable(rows))) - {int}:
        row, value = next((n, v) for n, row in enumerate(rows) for v in row if type(v) is not int)
        raise DataError(f"{path}: row {row} (counted from 0): item ids must be integers, got {value!r}")
    try:
        items = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(lengths.sum()))
    except OverflowError as cause:
        raise DataError(f"{path}: item ids must fit int64: {cause}") from cause
    if items.size == 0:
        raise DataError(f"{path}: holds {len(rows)} empty lists, expected interactions")
    if items.min() < 1:
        row = int(np.searchsorted(np.cumsum(lengths), int(np.argmax(items < 1)), side="right"))
        raise DataError(f"{path}: row {row} (counted from 0): expected item ids from 1, as 0 is padding, got "
                        f"{items.min()}")  # fmt: skip
    labels, codes = np.unique(items, return_inverse=True)
    return Events(str(path), np.repeat(np.arange(len(rows)), lengths), codes, pa.array(users), pa.array(labels))


def _from_records(path: Path, records: Any) -> tuple[np.ndarray, list[list[int]]]:
    """Users (n,) int64 and sequences of the authors' records."""
    users, rows = [], []
    for number, record in enumerate(records):
        match record:
            case [int(user), list(history), int() | list() as target, int(length), *_] if 0 < length <= len(history):
                last = target if isinstance(target, int) else target[length - 1] if length <= len(target) else None
                moved = isinstance(target, int) or history[1:length] == target[: length - 1]
                if last is None or not moved:
                    raise DataError(f"{path}: row {number} (counted from 0): the targets of a record must be its "
                                    f"history moved by one, got {history} and {target}")  # fmt: skip
                users.append(user)
                rows.append([*history[:length], last])
            case _:
                shown = repr(record) if len(repr(record)) < 100 else repr(record)[:97] + "..."
                raise DataError(f"{path}: row {number} (counted from 0): expected a record [user, padded history, "
                                f"target or targets, length, ...], got {shown}")  # fmt: skip
    labels, first, counts = np.unique(users, return_index=True, return_counts=True)
    if counts.max() > 1:
        user = labels[counts.argmax()]
        raise DataError(
            f"{path}: user {user} has {counts.max()} rows, the first of them row {first[counts.argmax()]} (counted "
            "from 0); expected one a user: read the file of real sequences, not one with generated ones among them"
        )
    return np.array(users, np.int64), rows


def _kind(value: object) -> str:
    if isinstance(value, list | tuple) and not value:
        return "an empty list"
    return f"{type(value).__name__} {value!r}"[:80]

"""Copies of objects on this machine, for code that reads files."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rsir.errors import RsirError, RunError
from rsir.objects.address import Address, place, remember
from rsir.objects.storage import Storage

__all__ = ["at_hand", "empty_copy", "exists", "fetched"]


@contextmanager
def at_hand(path: str | os.PathLike[str], error: type[ValueError]) -> Iterator[Path]:
    """A file or folder to read: a path of this machine as it is; for an address a copy, removed at the end.

    Errors that name the copy name the address instead.
    """
    where = place(path, error)
    if isinstance(where, Path):
        yield where
        return
    with tempfile.TemporaryDirectory(prefix="rsir-") as folder:
        copy, storage = Path(folder) / where.name, Storage(where, error)
        if storage.is_file():
            storage.fetch_one("", copy)
        else:
            copy.mkdir()
            storage.fetch(copy)
        try:
            yield copy
        except RsirError as cause:
            if str(copy) not in str(cause):
                raise
            raise type(cause)(str(cause).replace(str(copy), str(where))) from cause


def exists(path: str | os.PathLike[str], error: type[ValueError]) -> bool:
    """Whether there is a file or a folder, or an object, or some below an address."""
    where = place(path, error)
    if isinstance(where, Path):
        return where.exists()
    return Storage(where, error).kind() is not None


def fetched(path: str | os.PathLike[str], chosen: Callable[[str], bool] | None = None) -> Path:
    """A run's folder to read: one of this machine as it is; of an address the chosen objects, copied into a folder that
    lasts as long as the process. Default: all but what an unfinished round has so far."""
    where = place(path)
    if isinstance(where, Path):
        return where
    storage = Storage(where)
    storage.check()
    copy = empty_copy(where)
    storage.fetch(copy, chosen or (lambda name: "/partial/" not in name))
    return copy


def empty_copy(address: Address) -> Path:
    """A new folder for a copy, of the address's name; removed when the process ends."""
    try:
        above = Path(tempfile.mkdtemp(prefix="rsir-"))
    except OSError as cause:
        raise RunError(f"{tempfile.gettempdir()}: a copy of {address} cannot be made here: {cause.strerror}") from cause
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(above, ignore_errors=True) if os.getpid() == owner else None)
    copy = above / address.name
    copy.mkdir()
    remember(copy, address)
    return copy

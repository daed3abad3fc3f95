"""Addresses of object storage, such as ``s3://bucket/run``, where a path of this machine could stand."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rsir import files
from rsir.errors import RunError

__all__ = ["Address", "address_of", "as_given", "place", "remember"]

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)

_copies: dict[Path, Address] = {}
"""Copies that last as long as the process, and what they are of."""


@dataclass(frozen=True)
class Address:
    """An object, or all objects whose names begin alike.

    Attributes
    ----------
    scheme : str
        "s3", "gs", ...
    path : str
        Bucket and name, without a slash at the end.
    query : str
        Options of the storage, as in ``s3://bucket/run?region=eu-west-1``; "" where there are none.
    """

    scheme: str
    path: str
    query: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}" + (f"?{self.query}" if self.query else "")

    def __fspath__(self) -> str:
        return str(self)

    def __truediv__(self, name: str) -> Address:
        return Address(self.scheme, f"{self.path}/{name}", self.query)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def bucket(self) -> str:
        """The first part of the path."""
        return self.path.partition("/")[0]


def place(path: str | os.PathLike[str], error: type[ValueError] = RunError) -> Path | Address:
    """A path of this machine as :func:`rsir.files.local` gives it, or an address; `error` for what is neither."""
    text = os.fspath(path)
    text = os.fsdecode(text) if isinstance(text, bytes) else text
    match = _ADDRESS.fullmatch(text)
    if match is None or match[1].lower() == "file":
        return files.local(path, error)
    name, _, query = match[2].partition("?")
    name = name.rstrip("/")
    if not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise error(f"{text}: expected an address such as {match[1]}://bucket/folder, got an empty part or dots")
    return Address(match[1].lower(), name, query)


def remember(copy: Path, address: Address) -> None:
    """Keep what a copy on this machine is of."""
    _copies[copy] = address


def address_of(copy: Path) -> Address:
    """What a copy is of."""
    return _copies[copy]


def as_given(text: str) -> str:
    """A message with addresses in the place of their copies."""
    for copy, address in _copies.items():
        text = text.replace(str(copy), str(address))
    return text

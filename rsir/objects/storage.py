"""Objects by address, read and written whole, through the file systems of Arrow, or of fsspec where it has none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

import pyarrow as pa

from rsir.errors import RunError
from rsir.objects.address import Address

__all__ = ["Entry", "Storage"]

_BLOCK = 2**23
_AT_ONCE = 8
"""Objects that are fetched side by side."""
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "INVALID_CLIENT_TOKEN", "SIGNATURE_DOES_NOT_MATCH", "FORBIDDEN",
            "PERMISSION_DENIED", "UNAUTHENTICATED", "EXPIRED_TOKEN", "HTTP response code 403", "HTTP status 403",
            "MISSING_AUTHENTICATION")  # fmt: skip
_UNREACHED = ("NETWORK_CONNECTION", "curlCode", "CURL error", "UNAVAILABLE", "Could not connect", "Could not resolve",
              "timed out")  # fmt: skip
_NO_BUCKET = ("NO_SUCH_BUCKET", "NoSuchBucket", "Bucket not found", "bucket does not exist")


@dataclass(frozen=True)
class Entry:
    """An object's size, and when it was last written by the storage's own clock, in seconds; None: it does not say."""

    size: int
    written: float | None


class Storage:
    """All objects below an address; `name` is relative to it, "" the object at the address itself.

    Parameters
    ----------
    address : Address
    error : type, default RunError
        Type of the errors that are raised.

    Raises
    ------
    error
        There is no file system for addresses of this kind.
    """

    def __init__(self, address: Address, error: type[ValueError] = RunError) -> None:
        self.address, self._error = address, error
        self._system, self._root = self._open()

    def read(self, name: str = "") -> bytes:
        """An object's content."""
        with self._faults(name, "read"), self._system.open_input_stream(self._path(name)) as stream:
            content: bytes = stream.read()
            return content

    def write(self, name: str, content: Any) -> None:
        """Write an object (bytes or another buffer), in the place of one of that name: it is seen whole or not at all.

        One call hands all of it over, so that what fails on the way leaves no shorter object.
        """
        with self._faults(name, "written"), self._system.open_output_stream(self._path(name)) as stream:
            stream.write(content)

    def send(self, name: str, file: Path) -> None:
        """Write an object from a file."""
        if file.stat().st_size == 0:  # nothing to map
            self.write(name, b"")
            return
        with pa.memory_map(str(file)) as mapped:
            self.write(name, mapped.read_buffer())

    def remove(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._faults(name, "removed"), suppress(FileNotFoundError):
            self._system.delete_file(self._path(name))

    def entries(self, below: str = "") -> dict[str, Entry]:
        """Every object below the address, or below a name, by name."""
        from pyarrow import fs

        root = self._path(below)
        with self._faults(below, "listed"):
            found = self._system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        start = f"{below}/" if below else ""
        return {
            start + info.path[len(root) :].lstrip("/"): Entry(info.size, _seconds(info))
            for info in found
            if info.type == fs.FileType.File
        }

    def kind(self) -> Literal["file", "folder"] | None:
        """Whether there is an object at the address itself, or some below it, or neither; `error` without a bucket."""
        from pyarrow import fs

        with self._faults("", "read"):
            kind = self._system.get_file_info(self._root).type
        if kind == fs.FileType.NotFound:
            self.check()
            return None
        return "file" if kind == fs.FileType.File else "folder"

    def is_file(self) -> bool:
        """Whether there is an object at the address itself; `error` where there is none below it either."""
        kind = self.kind()
        if kind is None:
            raise self._error(f"{self.address}: no such object, and none whose name begins so; correct the address")
        return kind == "file"

    def check(self) -> None:
        """Raise `error` where there is no such bucket, it may not be read, or the storage is not reached."""
        from pyarrow import fs

        if self.address.scheme not in ("s3", "gs", "gcs"):
            return
        with self._faults("", "read"):
            kind = self._system.get_file_info(self.address.bucket).type
        if kind == fs.FileType.NotFound:
            raise self._no_bucket()

    def fetch(self, folder: Path, chosen: Callable[[str], bool] = lambda name: True) -> None:
        """Copy the chosen objects below the address into a folder, under their names.

        Names with a part that begins with a dot are left out, and what is removed meanwhile.
        """
        names = [name for name in self.entries() if _plain(name) and chosen(name)]
        for parent in {(folder / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for _ in threads.map(lambda name: self.fetch_one(name, folder / name, missing=True), names):
                pass

    def fetch_one(self, name: str, file: Path, *, missing: bool = False) -> None:
        """Copy an object into a file; with `missing`, nothing where it is not there."""
        with self._faults(name, "read"):
            try:
                stream = self._system.open_input_stream(self._path(name))
            except FileNotFoundError:
                if missing:
                    return
                raise
            with stream, file.open("wb") as copy:
                while block := stream.read(_BLOCK):
                    copy.write(block)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _open(self) -> tuple[Any, str]:
        from pyarrow import fs

        with self._faults("", "opened"):
            try:
                return fs.FileSystem.from_uri(_for_arrow(self.address))
            except (pa.ArrowNotImplementedError, ImportError, ValueError) as cause:
                if self.address.scheme in ("s3", "gs", "gcs"):
                    raise self._error(f"{self.address}: {_first(cause)}") from cause
        try:
            from fsspec.core import url_to_fs

            system, root = url_to_fs(str(self.address))
        except (ImportError, ValueError) as cause:
            raise self._error(
                f"{self.address}: no file system for {self.address.scheme}:// ({_first(cause)}); install fsspec and "
                "its package for this storage, or give a path of this machine"
            ) from cause

        class Handler(fs.FSSpecHandler):  # type: ignore[misc]
            def delete_file(self, path: str) -> None:
                self.fs.rm_file(path)  # rm, which Arrow calls, takes [ and * in a name for a pattern

        return fs.PyFileSystem(Handler(system)), root

    def _no_bucket(self) -> ValueError:
        return self._error(
            f"{self.address}: there is no bucket {self.address.bucket!r}; make it, or correct the address"
        )

    @contextmanager
    def _faults(self, name: str, what: str) -> Iterator[None]:
        """What the storage says, as one sentence that names the object and how to fix it."""
        try:
            yield
        except self._error:
            raise
        except (OSError, pa.ArrowException) as cause:
            text, where = str(cause), self.address / name if name else self.address
            if any(sign in text for sign in _NO_BUCKET):
                raise self._no_bucket() from cause
            if isinstance(cause, FileNotFoundError):
                raise self._error(f"{where}: no such object") from cause
            if any(sign in text for sign in _REFUSED):
                fix = "give credentials that may do that (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)"
                if self.address.scheme != "s3":
                    fix = "give credentials that may do that (GOOGLE_APPLICATION_CREDENTIALS, or those of the storage)"
                raise self._error(f"{where}: cannot be {what}: access is refused; {fix}") from cause
            if any(sign in text for sign in _UNREACHED):
                raise self._error(
                    f"{where}: cannot be {what}: the storage is not reached; check the network, and AWS_ENDPOINT_URL "
                    "where the storage is not Amazon's"
                ) from cause
            raise self._error(f"{where}: cannot be {what}: {_first(cause)}") from cause


def _for_arrow(address: Address) -> str:
    """An address as Arrow takes it: escaped, and with a limit to the time for which Google's storage is tried."""
    query = address.query
    if address.scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query = "&".join(filter(None, (query, "retry_limit_seconds=60")))
    return str(Address(address.scheme, quote(address.path), query))


def _first(cause: BaseException) -> str:
    return " ".join(str(cause).split())[:300] or type(cause).__name__


def _seconds(info: Any) -> float | None:
    written = info.mtime_ns
    return written / 1e9 if isinstance(written, int) and written > 0 and written / 1e9 < time.time() + 1e8 else None


def _plain(name: str) -> bool:
    return all(not part.startswith(".") and "\0" not in part for part in PurePosixPath(name).parts)

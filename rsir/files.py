"""Files that hold their old content or their new one, whatever happens; and the lock of a folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rsir.errors import RunError

__all__ = [
    "Lock",
    "append",
    "checksum",
    "clear",
    "descriptor",
    "digest",
    "folder",
    "inside",
    "local",
    "make_folder",
    "read_bytes",
    "read_json",
    "refused",
    "remove",
    "replace",
    "replacing",
    "sync",
    "to_json",
]

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
TEMPORARY = re.compile(r"\..+\.tmp")
"""Names of files that :func:`replace` had not finished."""
_NOT_REGULAR = "is a pipe, a socket or a device, expected a regular file"


def local(path: str | os.PathLike[str], error: type[ValueError] = RunError) -> Path:
    """A path of this machine, with ~ for the home folder; `error` for an address such as ``s3://bucket/file``."""
    text = os.fspath(path)
    text = os.fsdecode(text) if isinstance(text, bytes) else text
    if address := _ADDRESS.match(text):
        scheme = address[1].lower()
        then = f"give {text[len(address[0]) :]!r}" if scheme == "file" else "copy it to this machine, or mount it"
        raise error(f"{text}: expected a path of this machine, got an address ({scheme}://); {then}")
    if not text:
        raise error("expected a path, got an empty one")
    try:
        return Path(text).expanduser()
    except RuntimeError as cause:  # no such user, or none at all
        raise error(f"{text}: no home folder is known for this path; give it in full") from cause


def replace(path: Path, content: bytes, error: type[ValueError] = RunError) -> None:
    """Write a file, whole or not at all: under a temporary name in its folder, fsync, rename, fsync of the folder.

    Parameters
    ----------
    path : Path
    content : bytes
        Or another buffer.
    error : type, default RunError
        Type of the error that is raised; for files outside of runs.

    Raises
    ------
    error
        The disk refuses; the old content, if there was any, is still there.
    """
    with _in_place_of(path, error) as temporary:
        _write(temporary, os.O_EXCL, content)


@contextmanager
def replacing(path: Path, error: type[ValueError] = RunError) -> Iterator[Path]:
    """For files too large to hold: yields a temporary name to write to, which takes the file's place at the end, or is
    removed when the block fails. Raises `error` if the disk refuses."""
    with _in_place_of(path, error) as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _in_place_of(path: Path, error: type[ValueError]) -> Iterator[Path]:
    """A temporary name; what the block leaves on the disk there takes the file's place, and goes when it fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # two writers do not share one
    try:
        yield temporary
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as cause:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(cause, OSError):
            raise refused(path, cause, error) from cause
        raise


def append(path: Path, line: bytes) -> None:
    """Append a line; one that an interruption cut short before it is ended first."""
    try:
        with descriptor(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line
            _write_all(file, line)
    except OSError as cause:
        raise refused(path, cause) from cause


@contextmanager
def descriptor(path: Path, flags: int = os.O_RDONLY, *, links: bool = False) -> Iterator[int]:
    """A regular file, opened; OSError, at once, where a link (but with `links`), a pipe or a device is in its place."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)  # a pipe is not waited for
    try:
        file = os.open(path, flags, 0o666)
    except OSError as cause:
        if cause.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link, expected the file itself", str(path)) from cause
        if cause.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, _NOT_REGULAR, str(path)) from cause
        raise
    try:
        kind = os.fstat(file).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.ENXIO, _NOT_REGULAR, str(path))
        yield file
    finally:
        os.close(file)


def read_bytes(path: Path, *, links: bool = False) -> bytes:
    """A file's content; OSError as of :func:`descriptor`."""
    with descriptor(path, links=links) as file, open(file, "rb", closefd=False) as opened:
        return opened.read()


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, so that a power cut takes none of them away again."""
    if not os.path.isdir(path):
        if not path.parent.exists():
            make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


@contextmanager
def folder(path: Path | str, within: int | None = None) -> Iterator[int]:
    """A descriptor of a folder itself; OSError where a link is in its place."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield opened
    finally:
        os.close(opened)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file; what a link points to stays as it is."""
    with suppress(FileNotFoundError):
        _remove(path)


def clear(path: Path, chosen: Callable[[str], bool]) -> None:
    """Remove what is in a folder under the chosen names."""
    with folder(path) as opened:
        for name in [name for name in os.listdir(opened) if chosen(name)]:
            _remove(name, opened)


def _remove(name: Path | str, within: int | None = None) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=within)
        return
    with folder(name, within) as opened:
        for entry in os.listdir(opened):
            _remove(entry, opened)
    os.rmdir(name, dir_fd=within)


def _write(path: Path, flags: int, content: bytes) -> None:
    """Write to a new file until all of it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def sync(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    sha256, size = hashlib.sha256(), 0
    with descriptor(path) as opened, open(opened, "rb", closefd=False) as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            size += len(block)
    return {"sha256": sha256.hexdigest(), "size": size}


def checksum(value: Any) -> str:
    """SHA-256 of a JSON value, of one that was damaged too; the order of keys does not matter."""
    try:
        return hashlib.sha256(_dumped(value, allow_nan=True)).hexdigest()
    except RecursionError:
        return "nested too deeply"


def to_json(value: Any) -> bytes:
    """JSON with sorted keys, floats as short as they read back exactly, nan as null, and a newline at the end."""
    return _dumped(value, allow_nan=False)


def _dumped(value: Any, allow_nan: bool) -> bytes:
    text = json.dumps(plain(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=allow_nan)
    return text.encode(errors="surrogatepass") + b"\n"


def plain(value: Any) -> Any:
    """NumPy scalars as Python's, nan as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; RunError if it is missing or damaged."""
    try:
        value = json.loads(read_bytes(path))
    except FileNotFoundError as cause:
        raise RunError(f"{path}: is missing; put it back, or start another run") from cause
    except OSError as cause:
        raise RunError(f"{path}: cannot be read: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise RunError(f"{path}: is damaged ({cause}); put the original back, or start another run") from cause
    if not isinstance(value, dict):
        raise RunError(f"{path}: is damaged (expected a JSON object, got {type(value).__name__})")
    return value


def inside(folder: Path, name: str) -> Path:
    """The path of a file by its name relative to a run's folder; RunError where the name leads out of it."""
    parts = PurePosixPath(name).parts
    if not parts or any(part.startswith((".", "/")) or "\0" in part for part in parts):
        raise RunError(f"expected the name of a file inside the run's folder, got {name!r}")
    return folder.joinpath(*parts)


def refused(path: Path, cause: OSError, error: type[ValueError] = RunError) -> ValueError:
    """The error to raise when the system refuses to write: of a run, or of the given type outside of one."""
    of_run = error is RunError
    place = "an --out" if of_run else "a folder"
    fix = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EACCES: f"choose {place} that you may write to",
        errno.EROFS: f"choose {place} that can be written to",
    }.get(cause.errno or 0, "fix that")
    if of_run and cause.errno not in (errno.EACCES, errno.EROFS):
        fix += " and resume with --resume"
    return error(f"{path}: cannot be written: {cause.strerror or cause}; {fix}")


class Lock:
    """An advisory lock on a folder: a file ``.lock``, free again when the process that holds it ends.

    Raises
    ------
    RunError
        Another process holds it.
    """

    NAME = ".lock"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME
        while True:
            try:
                self._file = os.open(
                    self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
                )
            except OSError as cause:
                raise refused(self._path, cause) from cause
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self._file).st_ino == os.stat(self._path).st_ino:
                    return
            except BlockingIOError as cause:
                os.close(self._file)
                raise RunError(
                    f"{folder}: another process is writing this run; wait for it to end, or choose another --out"
                ) from cause
            except FileNotFoundError:
                pass  # as below
            except OSError as cause:
                os.close(self._file)
                raise refused(self._path, cause) from cause
            os.close(self._file)  # its last holder removed it between our open and our lock

    def release(self) -> None:
        """Remove the file and let others have the lock."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._file)

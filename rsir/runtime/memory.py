"""A limit on the memory of this process: what may be large lies in mapped files, and chunks are cut to fit.

Within :func:`memory_limit`, :func:`empty` gives arrays that lie in files without a name, which the kernel writes to
disk. Their pages count as memory of the process while they are in use; :func:`release`, which every loop over large
arrays calls, gives them back before the limit is reached, and refuses to go on where that is not enough. In between the
kernel refuses allocations far beyond the limit (``RLIMIT_DATA``). Nothing computed depends on a limit.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import resource
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rsir import files
from rsir.errors import ConfigError
from rsir.runtime import interrupts

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Budget",
    "BudgetExceeded",
    "blocks",
    "current",
    "empty",
    "first_line",
    "format_bytes",
    "memory_limit",
    "opened",
    "out_of_memory",
    "parse",
    "peak",
    "release",
    "row_blocks",
]

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SMALL = 2**20  # bytes; smaller arrays are not worth a file
_FULL = 0.8  # of the limit: from here on mapped pages are given back
_UNTOUCHED = 2**28  # bytes that are reserved at once and never used, as by stacks of threads
_BLOCK = 2**20  # entries that a loop over a large array takes at a time


class BudgetExceeded(MemoryError):
    """The process needs more memory than it may take."""


class Budget:
    """A limit in force; made by :func:`memory_limit`.

    Attributes
    ----------
    limit : int
        Bytes of resident memory, mapped pages and libraries among them.
    folder : Path
        Where mapped arrays lie.
    """

    def __init__(self, limit: int, folder: Path) -> None:
        self.limit, self.folder = limit, folder
        self._hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._adding = threading.Lock()  # training batches are built by a thread of their own

    def empty(self, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A writable array (size,) in a file of its own that is gone when the array is."""
        kind = np.dtype(dtype)
        length = size * kind.itemsize
        try:
            descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".array.", suffix=".tmp")
            try:
                os.unlink(name)
                os.posix_fallocate(descriptor, 0, length)  # a full disk is refused here, not by a signal later
                mapped = mmap.mmap(descriptor, length)
            finally:
                os.close(descriptor)
        except OSError as cause:
            raise files.refused(self.folder, cause) from cause
        self.track(mapped)
        return np.frombuffer(mapped, kind)

    def track(self, mapped: mmap.mmap) -> None:
        """Let the pages of a mapped file be given back, too."""
        with self._adding:
            self._maps.add(mapped)

    def table(self, tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
        """Tables one after the other, in a mapped file that is gone when they are."""
        import pyarrow as pa

        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".table.", suffix=".tmp")
        os.close(descriptor)
        try:
            with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for table in tables:
                    try:
                        writer.write_table(table)
                    except OSError as cause:
                        raise files.refused(self.folder, cause) from cause
                    self.release()
            mapped = opened(Path(name))
        finally:
            os.unlink(name)
        return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()

    def release(self) -> None:
        """Give mapped pages back if the limit is near.

        Raises
        ------
        BudgetExceeded
            The process takes more than the limit all the same.
        """
        taken, reserved = _statm()
        if taken > _FULL * self.limit:
            taken, reserved = self._given_back()
        if taken > self.limit:
            raise BudgetExceeded(
                f"the process takes {format_bytes(taken)}, over the limit of {format_bytes(self.limit)}"
            )
        # What is reserved may never be used, so the kernel's limit follows what is.
        data = reserved + self.limit - taken + _UNTOUCHED
        if self._hard == resource.RLIM_INFINITY or data <= self._hard:
            resource.setrlimit(resource.RLIMIT_DATA, (data, self._hard))

    def left(self, needs: Mapping[str, int]) -> int:
        """Bytes left for chunks, once what is there now and what is needed beside them is taken off.

        Raises
        ------
        ConfigError
            Less than a tenth of the limit is left; names what needs how much.
        """
        parts = {"what is loaded now": self._given_back()[0], **needs}
        left = self.limit - sum(parts.values())
        if left < self.limit // 10:
            listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
            least = int(sum(parts.values()) / 0.9)
            raise ConfigError(
                f"memory: expected {format_bytes(least)} or more ({listed}), got {format_bytes(self.limit)}"
            )
        return left

    def _given_back(self) -> tuple[int, int]:
        """:func:`_statm` once the process has given back what it can."""
        import pyarrow as pa

        with self._adding:
            maps = list(self._maps)
        for mapped in maps:
            mapped.madvise(mmap.MADV_DONTNEED)  # what was written stays in the file
        pa.default_memory_pool().release_unused()
        ctypes.CDLL(None).malloc_trim(0)
        return _statm()


_current: Budget | None = None


@contextmanager
def memory_limit(limit: int | None, folder: Path | None = None) -> Iterator[Budget | None]:
    """Hold this process to a limit (Linux only).

    Parameters
    ----------
    limit : int, optional
        Bytes of resident memory; None sets no limit.
    folder : Path, optional
        Where to put mapped arrays; it must not lie in memory itself. Default: the system's folder for temporary files.

    Raises
    ------
    ConfigError
        The system is not Linux, or the process takes more than that already.
    """
    global _current
    if limit is None:
        yield None
        return
    if not Path("/proc/self/statm").exists():
        raise ConfigError("memory: a limit needs Linux, which tells what a process takes; leave the option away")
    if resident() > limit:
        raise ConfigError(
            f"memory: the process takes {format_bytes(resident())} before it begins, got {format_bytes(limit)}"
        )
    before, outer = resource.getrlimit(resource.RLIMIT_DATA), _current
    _current = Budget(limit, Path(tempfile.gettempdir()) if folder is None else folder)
    try:
        _current.release()
        yield _current
    finally:
        _current = outer
        resource.setrlimit(resource.RLIMIT_DATA, before)


def current() -> Budget | None:
    """The limit in force, if any."""
    return _current


def empty(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """``np.empty``, but within a limit large arrays lie in a mapped file."""
    if _current is None or size * np.dtype(dtype).itemsize < _SMALL:
        return np.empty(size, dtype)
    return _current.empty(size, dtype)


def opened(path: Path) -> mmap.mmap:
    """A file's content, mapped for reading: it is read where it is used."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if _current is not None:
        _current.track(mapped)
    return mapped


def release() -> None:
    """:meth:`Budget.release` of the limit in force; a safe point for signals (:mod:`rsir.runtime.interrupts`)."""
    interrupts.check()
    if _current is not None:
        _current.release()


def blocks(size: int, width: int = 1) -> Iterator[slice]:
    """0..size in slices of about a million entries, divided by `width`; pages are given back in between."""
    step = max(1, _BLOCK // width)
    for first in range(0, size, step):
        yield slice(first, min(first + step, size))
        release()


def row_blocks(offsets: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Rows with these offsets (n + 1,) in slices of about half a million entries."""
    first, rows = 0, offsets.size - 1
    while first < rows:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK // 2, side="right")) - 1
        last = min(max(last, first + 1), first + _BLOCK // 16, rows)
        yield slice(first, last)
        first = last
        release()


def resident() -> int:
    """Bytes of memory that the process takes now."""
    return _statm()[0]


def _statm() -> tuple[int, int]:
    """Bytes that the process takes, and that it has reserved for data."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[1]) * mmap.PAGESIZE, int(pages[5]) * mmap.PAGESIZE


def peak() -> int:
    """Most bytes of memory that the process has taken."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def parse(text: str) -> int:
    """Bytes of a text such as ``4GiB`` or ``700 MiB``; ConfigError if it is no size."""
    match = re.fullmatch(r"\s*([0-9]{0,15}\.?[0-9]{1,15})\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): size for unit, size in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise ConfigError(f"memory: expected a size such as 4GiB or 700MiB, got {text!r}")
    return int(float(match[1]) * units[match[2].lower()])


def format_bytes(size: int) -> str:
    """A number of bytes as text."""
    unit = "GiB" if size >= 2**30 else "MiB"
    return f"{size / _UNITS[unit]:,.{2 if unit == 'GiB' else 0}f} {unit}"


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",  # torch's allocator on a GPU, the driver, the runtime, NCCL
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
    "hipErrorOutOfMemory",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, NumPy's, or torch's on a CPU or GPU, however it says so."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(spelling in str(error) for spelling in _OUT_OF_MEMORY)
    )


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, which torch follows with advice and traces."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__

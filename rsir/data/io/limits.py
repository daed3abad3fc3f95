"""How much memory a file may ask for: a few kilobytes can say that they hold terabytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsir.data.io.opening import compression, stream_of
from rsir.errors import DataError

__all__ = ["check_compressed_text", "check_parquet", "check_size"]

FLOOR, RATIO = 2**28, 200
"""A file may grow to this many bytes, or to this many times its size, whichever is more; logs grow up to 50 times."""


def check_size(path: Path, size: int) -> None:
    """DataError if something that a file holds would take more bytes in memory than it may."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if size > max(FLOOR, RATIO * sum(file.stat().st_size for file in files)):
        raise DataError(
            f"{path}: would take {size:,} bytes or more in memory, over {RATIO} times what it takes on disk; if that "
            "is right, store it uncompressed or in several files"
        )


def check_parquet(path: Path, metadata: list[Any]) -> None:
    """:func:`check_size` of what the footers of Parquet files declare: rows of three numbers, or their pages."""
    pages = sum(file.row_group(group).total_byte_size for file in metadata for group in range(file.num_row_groups))
    check_size(path, max(pages, 24 * sum(file.num_rows for file in metadata)))


def check_compressed_text(path: Path) -> None:
    """:func:`check_size` of what a compressed file holds, which is read through once; of any other nothing."""
    if path.is_dir() or (codec := compression(path)) is None:
        return
    size = 0
    with stream_of(path, codec) as file:
        while block := file.read(2**20):
            size += len(block)
            check_size(path, size)

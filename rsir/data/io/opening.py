"""Files of text opened as UTF-8 whatever they are: compression by content, other encodings, and places for messages."""

from __future__ import annotations

import codecs
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsir.errors import DataError

__all__ = ["Changed", "beginning", "compression", "line_of", "line_with", "lines", "opened", "stream_of", "undecodable"]

_MAGIC = {
    b"\x1f\x8b": "gzip",
    **{b"BZh%d1AY&SY" % level: "bz2" for level in range(1, 10)},
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
_FOREIGN = {
    b"PK\x03\x04": "is a zip archive or a workbook (.xlsx): unzip it, or save the sheet as CSV, and give the table",
    b"\xfd7zXZ\x00": "is compressed by xz, which is not read: unpack it (xz -d), or compress it by gzip or zstd",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive: unpack it, and give the table inside",
    b"Rar!\x1a\x07": "is a rar archive: unpack it, and give the table inside",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "is an old Excel workbook (.xls): save the sheet as CSV and give that",
}
_BEGINNING = 2**16  # bytes that are looked at to tell what a file is
_LONGEST = 2**24  # bytes of the longest line that is looked at whole


def compression(path: Path) -> str | None:
    """The codec that a file's first bytes tell, or None.

    Raises
    ------
    DataError
        It is an archive, or of a compression that Arrow cannot undo.
    """
    with path.open("rb") as file:
        start = file.read(16)
    for magic, reason in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{path}: {reason}")
    return next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), None)


def stream_of(path: Path, codec: str | None) -> Any:
    """A file's content, uncompressed."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # a name of other bytes, which Arrow does not take
        return pa.input_stream(io.BufferedReader(io.FileIO(path)), compression=codec)
    return pa.input_stream(str(path), compression=codec)


def opened(path: Path, encoding: str = "utf-8") -> Any:
    """A file's content as UTF-8, uncompressed; UTF-16 is known by its first bytes."""
    codec = compression(path)
    with stream_of(path, codec) as stream:
        start = stream.read(512)
    if start[257:262] == b"ustar":
        raise DataError(f"{path}: is a tar archive: unpack it (tar -xf), and give the table inside")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    stream = stream_of(path, codec)
    plain = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
    return stream if plain else pa.transcoding_input_stream(stream, encoding, "utf-8")


def beginning(path: Path, encoding: str = "utf-8", *, strict: bool = False) -> list[str]:
    """The first lines of a file, without their ends, but for a last one that is cut off.

    The first two lines are always there, and whole if they take up to 16 MiB. Where a byte is not UTF-8 there is a mark
    in its place; if that is in the first line and `strict`, UnicodeDecodeError.
    DataError if lines end in carriage returns alone.
    """
    with opened(path, encoding) as file:
        content = file.read(_BEGINNING)
        while content.count(b"\n") < 2 and len(content) < _LONGEST and (more := file.read(2**20)):
            content += more
        whole = not file.read(1)
    if b"\r" in content[:-1] and b"\n" not in content and re.search(rb"\r[^\r]", content):
        raise DataError(f"{path}: its lines end in carriage returns alone; convert it by tr '\\r' '\\n' < {path.name}")
    if strict:
        content.partition(b"\n")[0].decode()
    found = content.decode("utf-8-sig", errors="replace").split("\n")
    if (not whole and len(found) > 2) or not found[-1]:
        found.pop()
    return [line.rstrip("\r") for line in found]


class Changed(io.RawIOBase):
    """A stream of lines with something done to every piece of whole ones."""

    def __init__(self, stream: Any, change: Callable[[bytes], bytes]) -> None:
        self._stream, self._change = stream, change
        self._rest = self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._ready:
            piece = self._stream.read(2**22)
            cut = (self._rest + piece).rfind(b"\n") + 1 if piece else len(self._rest)
            whole, self._rest = (self._rest + piece)[:cut], (self._rest + piece)[cut:]
            self._ready = self._change(whole)
            if not piece:
                break
        size = len(self._ready) if size < 0 else size
        out, self._ready = self._ready[:size], self._ready[size:]
        return out

    def close(self) -> None:
        self._stream.close()
        super().close()


def lines(file: Any) -> Iterator[bytes]:
    """Lines of a stream, with their ends."""
    return iter(io.BufferedReader(file).readline, b"")


def line_of(path: Path, encoding: str, row: int, header: int) -> int:
    """Number of the line that holds an event, counting the header and blank lines."""
    with opened(path, encoding) as file:
        filled = (number for number, line in enumerate(lines(file), 1) if line.strip())
        return next(itertools.islice(filled, row + header, None), row + header + 1)


def line_with(path: Path, encoding: str, text: str, change: Callable[[bytes], bytes] = bytes) -> int:
    """Number of the first line that is this text once it is changed."""
    wanted = text.encode().splitlines()[0]
    with opened(path, encoding) as file:
        found = (number for number, line in enumerate(lines(file), 1) if change(line).rstrip(b"\r\n") == wanted)
        return next(found, 0)


def undecodable(path: Path, encoding: str = "utf-8") -> DataError:
    """The error for a file that is not text of its encoding, with the place of the first fault."""
    advice = "name its encoding by --data.encoding latin-1 (or cp1252, ...), or convert it by iconv"
    try:
        with opened(path, encoding) as file:
            for number, line in enumerate(lines(file), 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    return DataError(
                        f"{path}: line {number}: expected UTF-8 text, got byte {line[error.start]:#04x} at "
                        f"position {error.start}; {advice}"
                    )
    except (UnicodeError, OSError, pa.ArrowException):
        pass
    return DataError(f"{path}: is not text of the encoding {encoding}; {advice}")

"""What is printed may have nowhere to go, as a pipe that nobody reads, and may hold what a terminal would obey."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Lasting", "lasting"]


_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")
"""Characters that a terminal obeys, or that reorder what it shows; line feeds and tabs are not among them."""


class Lasting:
    """A text stream that drops what cannot be written instead of raising, and shows control characters as \\x1b.

    What a command prints may come from a file of a run, or of data, that somebody else has made.

    Parameters
    ----------
    stream : text stream or None
        What it writes to; None, as of a process that was started without, takes nothing.
    escapes : bool, default True
        Whether control characters are escaped.

    Attributes
    ----------
    raw : Lasting
        The same without escaping, for progress bars.
    failure : OSError or ValueError, optional
        The first refusal; nothing is written after it.
    """

    def __init__(self, stream: Any, *, escapes: bool = True) -> None:
        self._stream, self._escapes = stream, escapes
        self.failure: OSError | ValueError | None = None

    @property
    def raw(self) -> Lasting:
        return Lasting(self._stream, escapes=False)

    def write(self, text: str) -> int:
        if self._stream is not None and self.failure is None:
            try:
                self._write(text)
            except (OSError, ValueError) as failure:
                self.failure = failure
        return len(text)

    def _write(self, text: str) -> None:
        if self._escapes:
            text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
        try:
            self._stream.write(text)
        except UnicodeEncodeError as cause:  # a path of any bytes, or a terminal of few characters
            self._stream.write(text.encode(cause.encoding, "backslashreplace").decode(cause.encoding))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._stream is not None and self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as failure:
                self.failure = failure

    def isatty(self) -> bool:
        return self._stream is not None and self.failure is None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting() -> Iterator[tuple[Lasting, Lasting]]:
    """Within the block stdout and stderr are such streams; what they could not write is not tried again at exit."""
    before = sys.stdout, sys.stderr
    streams = Lasting(sys.stdout), Lasting(sys.stderr)
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before
        for stream, own in zip(streams, before, strict=True):
            stream.flush()
            if stream.failure is not None and isinstance(stream.failure, OSError):
                _to_nowhere(own)


def _to_nowhere(stream: Any) -> None:
    """Let what a stream still holds go nowhere, as Python would fail to write it when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # it has no descriptor
        pass

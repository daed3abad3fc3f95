"""What is printed may have nowhere to go: a pipe that nobody reads, a full disk, a terminal that was closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Lasting", "lasting"]


class Lasting:
    """A text stream that drops what cannot be written instead of raising; otherwise the stream it is made of.

    Attributes
    ----------
    failure : OSError or ValueError, optional
        The first refusal; nothing is written after it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        if self._stream is not None and self.failure is None:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as failure:
                self.failure = failure
        return len(text)

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

"""Signals are heeded at safe points alone: an exception raised by a handler in the midst of a library can be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rsir.errors import Interrupted

__all__ = ["check", "deferred", "heeding", "prepare_arrow"]

_ends: Callable[[], bool] | None = None
_prepared = False


@contextmanager
def heeding(ends: Callable[[], bool]) -> Iterator[None]:
    """Within the block, :func:`check` asks `ends` whether the process is to end at once."""
    global _ends
    outer, _ends = _ends, ends
    try:
        yield
    finally:
        _ends = outer


def check() -> None:
    """A safe point: raises Interrupted if the process is to end and has nothing to save."""
    if _ends is not None and _ends():
        raise Interrupted("stopped as asked")


@contextmanager
def deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come within the block reach their handlers after it."""
    if threading.current_thread() is not threading.main_thread():  # handlers never run in any other
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    deferring = {number: handler for number, handler in handlers.items() if callable(handler)}  # none set: it ends us
    for number in deferring:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in deferring.items():
            signal.signal(number, handler)
        for one in dict.fromkeys(came):
            signal.raise_signal(one)


def prepare_arrow() -> None:
    """Let Arrow import pandas now, where it is installed, with signals deferred.

    Arrow does so when it first converts anything, from compiled code that can lose a KeyboardInterrupt.
    """
    global _prepared
    if not _prepared:
        import pyarrow as pa

        with deferred():
            pa.array(["a list, which could hold what pandas knows"])
        _prepared = True

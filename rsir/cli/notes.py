"""Warnings of a command, as notes on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["notes"]


@contextmanager
def notes(*, shown: bool = True, held: bool = False) -> Iterator[Callable[[], None]]:
    """Print what users are warned of within, each once, as a sentence after "rsir: note:"; or nothing of it.

    Those of `held` wait for a call of what this yields, or for the end.
    """
    waiting: list[str] = []

    def show(message: object, *_: object, **__: object) -> None:
        waiting.append(f"rsir: note: {message}")
        if not held:
            release()

    def release() -> None:
        nonlocal held
        held = False
        while waiting:
            print(waiting.pop(0), file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default" if shown else "ignore", UserWarning)
        warnings.showwarning = show
        try:
            yield release
        finally:
            release()

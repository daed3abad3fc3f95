"""Warnings of a command, as notes on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["notes"]


@contextmanager
def notes(*, shown: bool = True) -> Iterator[None]:
    """Print what users are warned of within, each once, as a sentence after "rsir: note:"; or nothing of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("default" if shown else "ignore", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"rsir: note: {message}", file=sys.stderr)
        yield

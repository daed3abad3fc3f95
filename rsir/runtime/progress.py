"""How long-running parts of the library say where they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "silent", "timed"]


class Progress(Protocol):
    """Called as work proceeds.

    ``phase`` names the work ("round 1 train"), ``done`` counts ``unit``s of it, ``total`` is None when the end is
    not known, ``note`` is a short remark ("validation ndcg@20 0.0711").
    """

    def __call__(self, phase: str, done: int, total: int | None, unit: str, note: str = "") -> None: ...


def silent(phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
    """The default: say nothing."""


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Note how long the block took, under the name of the phase."""
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start

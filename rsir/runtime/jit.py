"""Compiled loops: numba, cached on disk where there is a place for it. Importing this takes numba's while."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

__all__ = ["compiled"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled() -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorator: compile a function on its first call, and keep the machine code for later processes if possible.

    numba keeps it in ``NUMBA_CACHE_DIR``, beside the source, or in the user's cache folder, and refuses to cache where
    none of them can be written, as in a read-only installation without a home. Then every process compiles anew, which
    takes some seconds.
    """

    def compile_(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        try:
            made = numba.njit(cache=True)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            made = numba.njit()(function)
        return cast(Callable[Arguments, Result], made)

    return compile_

"""Warnings of data, which name the line of the user's that called."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from rsir.errors import DataWarning

__all__ = ["warn"]

_PACKAGE = str(Path(__file__).parents[1])


def warn(text: str) -> None:
    """A DataWarning at the innermost call from outside of this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, DataWarning, stacklevel=level)

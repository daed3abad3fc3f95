"""rsir: recommenders that improve themselves (Recursive Self-Improving Recommendation, arXiv 2602.15659)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsir.generation.enrich import enrich
    from rsir.runs.results import load

__all__ = ["__version__", "enrich", "load"]

__version__ = "0.1.0"

_LAZY = {"enrich": "rsir.generation.enrich", "load": "rsir.runs.results"}
"""What is loaded when it is first asked for, as the modules are: torch and the compiled parts take seconds."""


def __getattr__(name: str) -> Any:
    from importlib import import_module
    from importlib.util import find_spec

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})

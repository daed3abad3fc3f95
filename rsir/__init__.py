"""rsir: recommenders that improve themselves (Recursive Self-Improving Recommendation, arXiv 2602.15659)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsir.enrichment import enrich
    from rsir.results import load

__all__ = ["__version__", "enrich", "load"]

__version__ = "0.1.0"

_LAZY = {"enrich": "rsir.enrichment", "load": "rsir.results"}
"""What is loaded when it is first asked for: torch and the compiled parts take seconds."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})

"""One round under other values of each option of generation, fidelity and acquisition, the rest at the default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rsir.config import RecursionConfig

from .lab import Lab
from .recipes import reset

__all__ = ["GRID", "run"]

GRID: list[tuple[str, str, list[Any]]] = [
    ("fidelity", "tau", [5, 10, 20, 50, 100]),
    ("generation", "p", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ("generation", "m", [2, 5, 10, 20]),
    ("generation", "k", [1, 3, 10]),
    ("acquisition", "policy", ["all", "capped", "disagreement"]),
]


def run(lab: Lab, rounds: int) -> None:
    """One round for every value."""
    lab.record_base()
    for section, option, values in GRID:
        for value in values:
            lab.recursion(f"{section}.{option} {value}", _changed(reset(lab.config), section, option, value))


def _changed(config: RecursionConfig, section: str, option: str, value: Any) -> RecursionConfig:
    part = replace(getattr(config, section), **{option: value})
    return replace(config, rounds=1, **{section: part})

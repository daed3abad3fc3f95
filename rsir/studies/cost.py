"""What else the base could have been given: longer or gentler training, width, dropout, negatives, a second seed.

A gain that a longer or better tuned base also gets is no gain of the recursion.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rsir.config import RecursionConfig
from rsir.studies.lab import RETAINED, Lab
from rsir.studies.recipes import reset

__all__ = ["GRID", "arms", "run"]

GRID: list[tuple[str, str, list[Any]]] = [
    ("training", "ema", [0.0]),
    ("training", "patience", [40]),
    ("training", "learning_rate", [5e-4, 2e-3]),
    ("training", "negatives", [256, 4096]),
    ("model", "dropout", [0.3, 0.6]),
    ("model", "dim", [128]),
]


def arms(config: RecursionConfig) -> list[str]:
    """What ``--arms`` may name."""
    return [*(f"base, {option} {value}" for _, option, values in GRID for value in values), "base, two seeds", "rsir"]


def run(lab: Lab, rounds: int) -> None:
    """The base under each of these settings, two bases together, and the recursion."""
    lab.record_base()
    for section, option, values in GRID:
        for value in values:
            if lab.wants(arm := f"base, {option} {value}"):
                lab.record_round_0(arm, _changed(lab.config, section, option, value))
    if lab.wants("base, two seeds"):
        lab.record_bases(2)
    if lab.wants("rsir"):
        lab.recursion("rsir", replace(reset(lab.config), rounds=rounds), policies=RETAINED)


def _changed(config: RecursionConfig, section: str, option: str, value: Any) -> RecursionConfig:
    return replace(config, **{section: replace(getattr(config, section), **{option: value})})

"""One round under other values of each option of a round, the rest at the default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rsir.config import RecursionConfig
from rsir.studies.lab import Lab
from rsir.studies.recipes import reset

__all__ = ["GRID", "arms", "run"]

GRID: list[tuple[str, str, list[Any]]] = [
    ("fidelity", "tau", [5, 20, 200]),
    ("fidelity", "policy", ["rank", "neighbours", "both", "itemknn", "rank-itemknn"]),
    ("generation", "p", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ("generation", "m", [2, 5, 10, 20]),
    ("generation", "k", [1, 3, 10]),
    ("generation", "temperature", [0.5, 1.0, 2.0]),
    ("generation", "generator", ["networks", "recommender", "itemknn"]),
    ("generation", "start", ["first", "prefix"]),
    ("training", "synthetic_weight", [0.5, 1.0]),
    ("acquisition", "policy", ["all", "capped", "disagreement"]),
    ("distillation", "share", [0.0, 0.5]),
]


def arms(config: RecursionConfig) -> list[str]:
    """What ``--arms`` may name."""
    return ["default", *(arm for arm, _ in _changes(replace(reset(config), rounds=1)))]


def run(lab: Lab, rounds: int) -> None:
    """One round for the defaults and for every other value."""
    default = replace(reset(lab.config), rounds=1)
    lab.record_base()
    if lab.wants("default"):
        lab.recursion("default", default)
    for arm, changed in _changes(default):
        if lab.wants(arm):
            lab.recursion(arm, changed)


def _changes(default: RecursionConfig) -> Iterator[tuple[str, RecursionConfig]]:
    for section, option, values in GRID:
        for value in values:
            changed = replace(getattr(default, section), **{option: value})
            if changed != getattr(default, section):
                yield f"{section}.{option} {value}", replace(default, **{section: changed})

"""What every table of the results page is made of: lines by data set, arm and round, and numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsir.studies.lines import Lines

__all__ = [
    "Group",
    "Line",
    "groups_of",
    "holm",
    "interval",
    "known",
    "mean_and_deviation",
    "of_same_seeds",
    "trainings",
]

Line = dict[str, Any]
Group = tuple[str, str]
"""A data set and a backbone."""


def groups_of(lines: Lines) -> list[Group]:
    """The data sets and backbones that there are trainings of, in the order of the lines."""
    return list(dict.fromkeys((line["data"], line["backbone"]) for line in lines if line["kind"] == "training"))


def trainings(lines: Iterable[Line], group: Group, kind: str = "training") -> dict[tuple[str, int], list[Line]]:
    """Lines of a data set and backbone by arm and round."""
    found: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        if line["kind"] == kind and (line["data"], line["backbone"]) == group:
            found.setdefault((line["arm"], line["round"]), []).append(line)
    return found


def of_same_seeds(base: list[Line], found: list[Line]) -> list[Line]:
    """The lines of ``base`` whose seeds ``found`` has."""
    seeds = {line["seed"] for line in found}
    return [line for line in base if line["seed"] in seeds]


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several tests hold so that a single false one among them is no likelier than `level` (Holm, 1979)."""
    order, held = np.argsort(p_values, kind="stable"), [False] * len(p_values)
    for place, number in enumerate(order):
        if p_values[number] > level / (len(order) - place):
            break
        held[number] = True
    return held


def interval(test: Line | None, before: float) -> str:
    """A difference and the ends of its interval, in percent of what it is a difference from; with a mark where the
    interval leaves 0 out, and the test does not hold among all others ("held")."""
    if test is None or not before > 0:
        return ""
    gain, low, high = (f"{test[name] / before:+.1%}" for name in ("difference", "low", "high"))
    doubtful = not test.get("held", True) and not test["low"] <= 0 <= test["high"]
    return f"{gain} ({low} to {high}){'°' if doubtful else ''}"


def mean_and_deviation(values: np.ndarray, format_: str) -> str:
    """The mean, and the standard deviation of a sample where there are several."""
    deviation = values.std(ddof=1) if np.ptp(values) else 0.0  # of equal values numpy's may be next to 0
    spread = f" ± {deviation:{format_}}" if len(values) > 1 else ""
    return f"{values.mean():{format_}}{spread}"


def known(value: float, format_: str, unit: str = "") -> str:
    """A number as text; nothing where it is not known."""
    return "" if np.isnan(value) else f"{value:{format_}}{unit}"

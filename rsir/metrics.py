"""Names of metrics: those that decide, those that are shown first, and how a change of one is said."""

from __future__ import annotations

from math import nan

__all__ = ["CRITERION", "HEADLINE", "change", "percent_change", "title"]

CRITERION = "ndcg@20"
"""The validation metric that decides when a training stops, which weights it keeps, and which round is the best."""

HEADLINE = (("validation", CRITERION), ("test", "recall@10"), ("test", "ndcg@10"))
"""Part and metric of what every summary shows, and of what each round is compared with round 0 by."""


def title(metric: str, part: str = "") -> str:
    """A metric as it is written: "ndcg@20" as "NDCG@20", with its part as "validation NDCG@20"."""
    name, at, cutoff = metric.partition("@")
    written = {"ndcg": "NDCG", "mrr": "MRR"}.get(name, name.capitalize())
    return f"{part} {written}{at}{cutoff}".lstrip()


def percent_change(value: float, before: float) -> float:
    """How much more a value is than one before, in percent; nan where that was 0."""
    return (value / before - 1) * 100 if before else nan


def change(value: float, before: float, none: str = "-") -> str:
    """:func:`percent_change` as text, `none` where there is none."""
    percent = percent_change(value, before)
    return f"{percent:+.1f}%" if percent == percent else none

"""What a run gains as it comes: every round, with the count's vote, beside the count and as many other networks."""

from __future__ import annotations

from dataclasses import replace

from rsir.config import RecursionConfig
from rsir.models import Ensemble
from rsir.studies.lab import Lab
from rsir.studies.lines import BASES
from rsir.studies.recipes import reset

__all__ = ["arms", "run"]

LINEAGES = {"one round, two seeds": (2, (0, 1)), "successors, three seeds": (3, (1,))}
"""Networks of one-round runs of several seeds together: how many seeds, and which rounds' networks of each."""


def arms(config: RecursionConfig) -> list[str]:
    """What ``--arms`` may name."""
    return ["rsir", *BASES.values(), *LINEAGES]


def run(lab: Lab, rounds: int) -> None:
    """The rounds of one data set, backbone and seed, their networks alone, and what they have to be better than."""
    lab = replace(lab, counting=True)
    lab.record_popularity()
    lab.record_count()
    lab.record_base()
    config = replace(reset(lab.config), rounds=rounds)
    if lab.wants("rsir"):
        lab.recursion("rsir", config, policies=("none", "all"))
    for count, arm in BASES.items():
        if lab.wants(arm) and count <= rounds + 1:
            lab.record_bases(count)
    for arm, (seeds, networks) in LINEAGES.items():
        if lab.wants(arm):
            lab.record(arm, 1, Ensemble(lab.lineages(arm, config, seeds, networks)), config)

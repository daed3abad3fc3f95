"""Many rounds, with the fidelity check and without it: the paper reports a collapse by round 3 without."""

from __future__ import annotations

from dataclasses import replace

from rsir.config import FidelityConfig, RecursionConfig
from rsir.studies.lab import RETAINED, Lab
from rsir.studies.recipes import fixed, paper, reset

__all__ = ["arms", "run"]


def arms(config: RecursionConfig) -> list[str]:
    """What ``--arms`` may name."""
    return ["rsir", "rsir, no fidelity", "rsir, fixed tau", "paper", "paper, no fidelity"]


def run(lab: Lab, rounds: int) -> None:
    """The paper's recipe and ours, each with and without the check, and ours with one that does not get stricter."""
    lab.record_base()
    for name, recipe in (("rsir", reset(lab.config)), ("paper", paper(lab.config))):
        whole = replace(recipe, rounds=rounds)
        policies = RETAINED if whole.retention != "none" else ("none",)
        if lab.wants(name):
            lab.recursion(name, whole, policies=policies)
        if lab.wants(unchecked := f"{name}, no fidelity"):
            lab.recursion(unchecked, replace(whole, fidelity=FidelityConfig(policy="off")), policies=policies)
    if lab.wants("rsir, fixed tau"):
        lab.recursion("rsir, fixed tau", replace(fixed(lab.config), rounds=rounds), policies=RETAINED)

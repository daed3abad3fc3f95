"""Recipes that several studies compare."""

from __future__ import annotations

from dataclasses import replace

from rsir.config import AcquisitionConfig, DistillationConfig, FidelityConfig, GenerationConfig, RecursionConfig

__all__ = ["CHOSEN", "fixed", "paper", "reset"]

CHOSEN = ("accumulate", "sources", "successor", "retention", "generation", "fidelity", "acquisition", "distillation")
"""Options and sections that every recipe sets."""


def reset(config: RecursionConfig) -> RecursionConfig:
    """The configuration with this library's own defaults for everything that comes after the base."""
    default = RecursionConfig()
    return replace(config, **{name: getattr(default, name) for name in CHOSEN})


def paper(config: RecursionConfig) -> RecursionConfig:
    """RSIR as its paper describes it: tau 10, p 0.5, m 10, everything kept and accumulated; the base is this library's.

    Trajectories are sources, too, in later rounds. arXiv 2602.15659, sections 3 and 4.
    """
    return replace(
        config,
        accumulate=True,
        sources="all",
        successor="scratch",
        retention="none",
        generation=GenerationConfig(p=0.5, m=10, k=1),
        fidelity=FidelityConfig(policy="rank", tau=10),
        acquisition=AcquisitionConfig("all"),
        distillation=DistillationConfig(share=0.0),
    )


def fixed(config: RecursionConfig) -> RecursionConfig:
    """The default recipe with the same check in every round, that of its first: tau 50."""
    return replace(reset(config), fidelity=FidelityConfig(tau=50))

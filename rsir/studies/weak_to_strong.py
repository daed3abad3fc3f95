"""A weaker model generates for a stronger one: does the stronger one still gain?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rsir.config import ModelConfig, RecursionConfig
from rsir.data.sequences import Sequences
from rsir.generation.enrich import Enricher
from rsir.studies.lab import Lab
from rsir.studies.recipes import reset

__all__ = ["BACKBONES", "WIDTHS", "arms", "run"]

WIDTHS = (16, 32, 64, 128)
BACKBONES = ("gru4rec",)


def arms(config: RecursionConfig) -> list[str]:
    """What ``--arms`` may name."""
    return [f"from {_name(model)}" for model in _generators(config.model)]


def run(lab: Lab, rounds: int) -> None:
    """Generators of the same backbone in several widths, and other backbones."""
    lab.record_base()
    for model in _generators(lab.config.model):
        weak = replace(reset(lab.config), model=model)
        if lab.wants(arm := f"from {_name(model)}"):
            lab.record_round_0(f"{_name(model)} alone", weak)
            lab.training(arm, partial(_enriched, lab, weak))


def _generators(own: ModelConfig) -> list[ModelConfig]:
    widths = [replace(own, dim=width, feedforward=2 * width) for width in WIDTHS]
    return [*widths, *(own.for_backbone(name) for name in BACKBONES if name != own.name)]


def _name(model: ModelConfig) -> str:
    return f"{model.name} d {model.dim}"


def _enriched(lab: Lab, config: RecursionConfig) -> Sequences:
    """The real sequences and what the configuration's base generates from them."""
    model, train, seed = lab.base(config).model, lab.parts.train, config.seed
    bound = Enricher(config.generation, config.fidelity, config.acquisition, seed=seed).bind(model, 1)
    return Sequences.concat(train, bound.acquire(bound.generate(train).trajectories))

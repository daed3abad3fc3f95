"""Is a successor's loss flatter than its base's? Sharpness, the loss along random directions, and along perturbations.

All of it on the same real training sequences and negatives, without dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsir.config import RecursionConfig
from rsir.data.batches import Batches
from rsir.data.ragged import Ragged
from rsir.data.sequences import Sequences
from rsir.models import checkpoint, encode_sequences
from rsir.studies.lab import Lab
from rsir.studies.recipes import reset

__all__ = ["along", "arms", "perturbation_effect", "run", "sharpness"]

BATCHES = 8
ITERATIONS = 20
DISTANCES = (-0.5, -0.25, 0.25, 0.5)
_DIFFERENCE = 1e-2  # of a step along a unit direction, relative to the length of the weights


def arms(config: RecursionConfig) -> list[str]:
    """None to choose: the study has all of its arms."""
    return []


def run(lab: Lab, rounds: int) -> None:
    """The base and the successor of one round."""
    lab.record_base()
    config = replace(reset(lab.config), rounds=1)
    done = lab.recursion("rsir", config)
    assert done.path is not None
    accepted = Sequences.load(done.path / "round-01" / "trajectories.parquet")
    for round_, arm in enumerate(("base", "rsir")):
        if lab.has_note(arm, round_, config):
            continue
        model: Any = checkpoint.load(done.path / f"round-{round_:02d}")
        loss = _loss(model, lab)
        lab.note(
            arm,
            round_,
            config,
            sharpness=sharpness(model, loss, seed=lab.config.seed),
            loss=float(loss().detach()),
            **{f"loss at {distance:+}": along(model, loss, distance, lab.config.seed) for distance in DISTANCES},
            perturbation=perturbation_effect(model, lab.parts.train, accepted),
        )


def _loss(model: Any, lab: Lab) -> Callable[[], Tensor]:
    """The mean training loss of a fixed set of batches, as a function of the model's current weights."""
    config = lab.config
    stream = Batches(
        lab.parts.train,
        config.training.batch_size,
        model.max_len,
        config.training.negatives,
        seed=0,
        device=torch.device("cpu"),
        generator=torch.Generator(),
    ).stream()
    batches = [next(stream) for _ in range(BATCHES)]
    stream.close()

    def loss() -> Tensor:
        return torch.stack([model.loss(batch, negatives) for batch, negatives in batches]).mean()

    return loss


def sharpness(model: Any, loss: Callable[[], Tensor], *, seed: int) -> float:
    """Largest eigenvalue of the loss's Hessian, by power iteration.

    Products with the Hessian are central differences of gradients, as the fused losses have no second derivative.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    origin = [weight.detach().clone() for weight in weights]
    length = float(torch.stack([value.norm() for value in origin]).norm())
    generator = torch.Generator().manual_seed(seed)
    direction = _unit([torch.randn(value.shape, generator=generator) for value in origin])
    value = 0.0
    step = _DIFFERENCE * length

    def gradient_at(sign: float) -> list[Tensor]:
        with torch.no_grad():
            for weight, start, part in zip(weights, origin, direction, strict=True):
                weight.copy_(start + sign * step * part)
        return [g.detach() for g in torch.autograd.grad(loss(), weights)]

    try:
        for _ in range(ITERATIONS):
            product = [(b - a) / (2 * step) for a, b in zip(gradient_at(-1), gradient_at(1), strict=True)]
            value = float(sum((a * b).sum() for a, b in zip(product, direction, strict=True)))
            direction = _unit(product)
    finally:
        _set(weights, origin)
    return value


@torch.no_grad()
def along(model: Any, loss: Callable[[], Tensor], distance: float, seed: int) -> float:
    """The loss ``distance`` away in a random direction, every row of it as long as the weights' (Li et al. 2018)."""
    weights = list(model.parameters())
    origin = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    try:
        for weight in weights:
            direction = torch.randn(weight.shape, generator=generator)
            rows = direction.flatten(1) if weight.ndim > 1 else direction[None]
            lengths = (weight.flatten(1) if weight.ndim > 1 else weight[None]).norm(dim=1, keepdim=True)
            weight += distance * (rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12) * lengths).view_as(weight)
        return float(loss().detach())
    finally:
        _set(weights, origin)


@torch.no_grad()
def perturbation_effect(model: Any, train: Sequences, accepted: Sequences) -> float:
    """Mean change of a query, relative to its length, when a user's history is exchanged for an accepted trajectory.

    The finite difference of the model along the perturbations that fidelity accepted, which RSIR's analysis says its
    training makes small: the trajectory against as many of the source's first items.
    """
    source = accepted.source
    lengths = np.minimum(accepted.lengths, train.lengths[source])
    real = Ragged.windows(train.items, train.offsets[source], lengths)
    made = Ragged.windows(accepted.items, accepted.offsets[:-1], lengths)
    before, after = encode_sequences(model, real), encode_sequences(model, made)
    return float(((after - before).norm(dim=1) / before.norm(dim=1)).mean())


def _unit(parts: list[Tensor]) -> list[Tensor]:
    length = torch.stack([part.norm() for part in parts]).norm()
    return [part / length for part in parts]


@torch.no_grad()
def _set(weights: list[Tensor], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)

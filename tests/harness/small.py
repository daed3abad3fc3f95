"""Settings of runs of seconds."""

from __future__ import annotations

import dataclasses

from rsir.config import FidelityConfig, GenerationConfig, ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig
from rsir.runs.results import Run

SMALL = RecursionConfig(
    rounds=2,
    stop_after=9,
    simulation=SimulationConfig(num_users=120, num_items=60, mean_length=7),
    model=ModelConfig(dim=16, layers=1, heads=2, feedforward=16, dropout=0.1, max_len=12),
    training=TrainingConfig(
        batch_size=32,
        negatives=32,
        evaluate_every=4,
        max_evaluations=3,
        learning_rate=1e-2,
        synthetic_weight=1.0,
        real_last=0,
    ),
    generation=GenerationConfig(m=2, slots=64),
    fidelity=FidelityConfig(tau=15),
)
"""On simulated users."""

ON_DATA = RecursionConfig(
    rounds=2,
    stop_after=9,
    guard=False,
    accumulate=True,
    model=ModelConfig(dim=8, layers=1, heads=2, feedforward=8, dropout=0.1, max_len=12),
    training=TrainingConfig(batch_size=32, negatives=16, max_evaluations=2, learning_rate=1e-2, real_last=0),
    generation=GenerationConfig(m=2),
    fidelity=FidelityConfig(tau=15),
)
"""On users that a test makes."""


def metrics(run: Run) -> list[dict[str, object]]:
    """The metrics of each round, without the wall clock."""
    return [result.metrics() for result in run.rounds]


def small(**changes: object) -> RecursionConfig:
    return dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]

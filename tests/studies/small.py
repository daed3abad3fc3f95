"""Settings and helpers of the tests of studies: simulated users, tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsir.cli import main as command
from rsir.config import ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig

TINY = [
    *("--simulation.num_users", "150", "--simulation.num_items", "80"),
    *("--model.dim", "16", "--model.feedforward", "16", "--model.layers", "1"),
    *("--training.max_evaluations", "2", "--training.negatives", "32"),
]
CONFIG = RecursionConfig(
    simulation=SimulationConfig(num_users=150, num_items=80),
    model=ModelConfig(dim=16, feedforward=16, layers=1),
    training=TrainingConfig(max_evaluations=2, negatives=32),
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(arguments: list[str]) -> int:
    """``rsir studies`` with these arguments; its exit status."""
    return command.main(["studies", *arguments])

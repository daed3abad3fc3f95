"""Training steps on a CUDA device as graphs: gradients and Adam of a batch are one launch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rsir.config import TrainingConfig
from rsir.data.batches import TrainingBatch
from rsir.runtime.graphs import Repeated, can_capture
from rsir.runtime.world import World

__all__ = ["CapturedSteps", "captures"]


def captures(model: object, config: TrainingConfig, device: torch.device, world: World) -> bool:
    """Whether steps of a training can be captured: by one process, of a backbone whose loss never waits for the device
    (``capturable``), over sampled negatives; that over the whole catalogue waits."""
    return world.size == 1 and config.negatives > 0 and getattr(model, "capturable", False) and can_capture(device)


class CapturedSteps:
    """Training steps of a model, each number of rows as a graph of its own.

    Batches of one number of rows must come in the same memory (``fixed`` of :class:`rsir.data.batches.Batches`).

    Parameters
    ----------
    model : TrainableBackbone and torch.nn.Module
    learning_rate : float
    generator : torch.Generator
        Of the batches.

    Attributes
    ----------
    optimizer : torch.optim.Adam
        Its learning rate is a number on the device, which graphs read.
    """

    def __init__(self, model: Any, learning_rate: float, generator: torch.Generator) -> None:
        self.model: nn.Module = model
        self.generator, self.rate = generator, learning_rate
        lr = torch.tensor(learning_rate, device=generator.device)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True, capturable=True)
        self.steps: dict[int, Repeated] = {}

    def __call__(self, batch: TrainingBatch, negatives: Tensor, rate: float) -> Tensor:
        """Take one step with a learning rate; -> the loss."""
        if rate != self.rate:
            self.rate = rate
            for group in self.optimizer.param_groups:
                group["lr"].fill_(rate)
        rows = len(batch.items)
        if rows not in self.steps:
            step = partial(self._step, batch, negatives)
            self.steps[rows] = Repeated(step, self.generator.device, "training", self.generator)
        return self.steps[rows]().clone()

    def _step(self, batch: TrainingBatch, negatives: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss: Tensor = self.model.loss(batch, negatives)  # type: ignore[operator]
        loss.backward()
        self.optimizer.step()
        return loss.detach()

"""Where a training is, all of it, so that it can be resumed; and what comes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rsir import ops
from rsir.errors import TrainingError
from rsir.metrics import CRITERION
from rsir.runtime.resume import Snapshot

__all__ = ["Checkpoint", "Trained", "TrainingState"]


@dataclass(frozen=True)
class Checkpoint:
    """One validation during training.

    Attributes
    ----------
    step : int
        Steps taken so far.
    loss : float
        Mean training loss since the last validation.
    metrics : dict of str to float
        Validation metrics, as of :func:`rsir.evaluation.evaluate`.
    seconds : float
        Since training began.
    """

    step: int
    loss: float
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and how it came about.

    Attributes
    ----------
    model : torch.nn.Module
        With the weights of the best validation, in evaluation mode.
    history : list of Checkpoint
    best_step, steps : int
        Steps until the best validation and in all.
    seconds, evaluation_seconds : float
        Wall time in all, and what of it went into validation.
    tokens : int
        Positions trained on, an item as often as it was seen.
    """

    model: nn.Module
    history: list[Checkpoint]
    best_step: int
    steps: int
    seconds: float
    evaluation_seconds: float
    tokens: int

    @property
    def best(self) -> Checkpoint:
        """The validation whose weights the model has."""
        return next(entry for entry in self.history if entry.step == self.best_step)

    @property
    def curves(self) -> dict[str, list[float]]:
        """The history by name ("step", "loss" and the criterion), without the wall clock."""
        return {
            "step": [entry.step for entry in self.history],
            "loss": [entry.loss for entry in self.history],
            CRITERION: [entry.metrics[CRITERION] for entry in self.history],
        }

    @property
    def tokens_per_second(self) -> float:
        """Positions trained on a second, validation left out."""
        return self.tokens / max(self.seconds - self.evaluation_seconds, 1e-9)


@dataclass
class TrainingState:
    """Where a training is, beside its model, optimizer and generators.

    Attributes
    ----------
    step : int
        Steps taken.
    tokens : int
        Positions trained on.
    seconds, evaluation_seconds : float
        Wall time in all, interruptions left out, and what of it went into validation.
    history : list of Checkpoint
    losses : list of Tensor
        Losses of the steps since the last validation.
    best : float
        The highest validation metric so far.
    best_step : int
    best_weights : dict of str to Tensor
    average : dict of str to Tensor
        Exponential moving average of the parameters, but for those whose average the optimizer keeps; empty where none
        is kept. Buffers, which may be integers or infinite, are not averaged.
    phase, phase_began : int
        Which phase of the training this is, from 0, and how many steps had been taken before it.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    history: list[Checkpoint] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    best: float = -1.0
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    phase: int = 0
    phase_began: int = 0

    def next_phase(self, model: nn.Module) -> None:
        """Begin another phase from the best weights so far, with an average of its own."""
        model.load_state_dict(self.best_weights)
        self.phase, self.phase_began, self.average = self.phase + 1, self.step, {}

    @torch.no_grad()
    def average_weights(self, model: nn.Module, decay: float, others: Collection[str] = ()) -> None:
        """Let the average of all parameters but `others` follow the model by one step; a decay of 0 keeps none."""
        if decay == 0:
            return
        parameters = model.named_parameters(remove_duplicate=False)
        weights = {name: value.detach() for name, value in parameters if name not in others}
        if not weights:
            return
        if not self.average:
            self.average = {name: value.clone() for name, value in weights.items()}
        follows = 1 - ops.average_keeps(decay, 1 + self.step - self.phase_began)
        torch._foreach_lerp_([self.average[name] for name in weights], list(weights.values()), follows)

    @contextmanager
    def averaged(self, model: nn.Module, others: Mapping[str, Tensor]) -> Iterator[None]:
        """The model with the averages, `others` among them, for a while; with its own weights where none is kept."""
        if not (self.average or others):
            yield
            return
        own = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict({**own, **self.average, **others})  # buffers are the model's own
        try:
            yield
        finally:
            model.load_state_dict(own)

    def save(self, model: nn.Module, optimizer: Any, generator: torch.Generator) -> Snapshot:
        """Everything :meth:`restore` needs, torch's global generators among it, which foreign backbones draw from."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        tensors |= {"generator": generator.get_state(), "cpu_generator": torch.get_rng_state()}
        if generator.device.type == "cuda":
            tensors["cuda_generator"] = torch.cuda.get_rng_state(generator.device)
        if self.losses:
            tensors["losses"] = torch.stack(self.losses)
        names = ("step", "tokens", "seconds", "evaluation_seconds", "best", "best_step", "phase", "phase_began")
        values = {name: getattr(self, name) for name in names}
        return Snapshot(tensors, values | {"history": [asdict(entry) for entry in self.history]})

    @classmethod
    def restore(cls, saved: Snapshot, model: nn.Module, optimizer: Any, generator: torch.Generator) -> TrainingState:
        """The state that was saved, with model, optimizer and generators as they were then."""
        device = generator.device
        before = "cuda" if "cuda_generator" in saved.tensors else "cpu"
        if before != device.type:
            raise TrainingError(
                f"the training was stopped on {before} and cannot be resumed on {device.type} in the middle of a "
                f"round: resume it on {before}"
            )
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "average": {}, "optimizer": {}}
        for name, value in saved.tensors.items():
            group, _, rest = name.partition(".")
            if group in groups:
                groups[group][rest] = value
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["optimizer"].items():
            number, _, part = name.partition(".")
            moments.setdefault(int(number), {})[part] = value
        model.load_state_dict(groups["model"])
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        generator.set_state(saved.tensors["generator"])
        torch.set_rng_state(saved.tensors["cpu_generator"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(saved.tensors["cuda_generator"], device)
        values = dict(saved.values)
        history = [Checkpoint(**entry) for entry in values.pop("history")]
        losses = list(saved.tensors["losses"].to(device)) if "losses" in saved.tensors else []
        best, average = ({name: value.to(device) for name, value in groups[key].items()} for key in ("best", "average"))
        return cls(**values, history=history, losses=losses, best_weights=best, average=average)

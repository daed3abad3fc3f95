"""The loop of one training: gradients, steps, validations, early stopping; ``fit`` sets it up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsir.config import TrainingConfig
from rsir.data.batches import Batches, TrainingBatch
from rsir.data.splits import EvaluationSet
from rsir.errors import TrainingError
from rsir.evaluation import evaluate
from rsir.metrics import CRITERION
from rsir.runtime.memory import first_line, out_of_memory
from rsir.runtime.resume import Checkpoints, Snapshot
from rsir.runtime.runtime import Runtime
from rsir.training.adam import TableAdam, has_table_adam, table_adam
from rsir.training.captured import CapturedSteps, captures
from rsir.training.state import Checkpoint, Trained, TrainingState

__all__ = ["Phase", "TrainingLoop"]

_SMALL_MODEL = 2**22  # parameters; Adam of more is worth several threads


@dataclass(frozen=True)
class Phase:
    """A stretch of a training.

    Attributes
    ----------
    batches : Batches
    learning_rate : float
    steps : int, optional
        How many it takes; none: until the training has run out of patience or of validations.
    falls_over : int, optional
        Steps over which the learning rate falls to a hundredth, along half a cosine; none: it stays.
    """

    batches: Batches
    learning_rate: float
    steps: int | None = None
    falls_over: int | None = None

    def is_over(self, state: TrainingState) -> bool:
        """Whether its number of steps has been taken; False where it has none."""
        return self.steps is not None and state.step - state.phase_began >= self.steps

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.falls_over is None:
            return self.learning_rate
        share = min(1.0, step / self.falls_over)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class TrainingLoop:
    """One training: its steps, validations and snapshots."""

    def __init__(
        self,
        model: Any,
        config: TrainingConfig,
        validation: EvaluationSet | None,
        every: int,
        checkpointer: Checkpoints,
        runtime: Runtime,
        noise_seed: int,
        total: int,
    ) -> None:
        self.model, self.config, self.validation, self.every, self.total = model, config, validation, every, total
        self.checkpointer, self.runtime, self.world = checkpointer, runtime, runtime.world
        self.noise_seed = noise_seed
        self.draws_apart = self.world.size > 1 and not getattr(model, "draws_for_whole_batch", False)
        self.threads = self.torch_threads = torch.get_num_threads()
        self.rows: TableAdam | None = None  # of the phase at work

    def __call__(self, phases: Sequence[Phase], generator: torch.Generator) -> Trained:
        small = has_table_adam(self.model) or sum(p.numel() for p in self.model.parameters()) <= _SMALL_MODEL
        if not hasattr(self.model, "threads") or not small:
            return self._train(phases, generator)
        # The fused ops get all threads, and torch's own get one: they are too small for several, whose idle ones then
        # spin on the cores that the fused ops want. With two threads a step took 1.5 times the processor time.
        before, self.model.threads, self.torch_threads = self.model.threads, self.threads, 1
        torch.set_num_threads(1)
        try:
            return self._train(phases, generator)
        finally:
            torch.set_num_threads(self.threads)
            self.model.threads = before

    def _train(self, phases: Sequence[Phase], generator: torch.Generator) -> Trained:
        state, saved = TrainingState(), self.checkpointer.newest("training")
        began, first = time.perf_counter(), 0
        if saved is not None:
            began, first = began - saved.values["seconds"], saved.values["phase"]
        for number in range(first, len(phases)):
            if number > first:
                state.next_phase(self.model)
            state = self._train_phase(phases[number], state, saved if number == first else None, generator, began)
        self.model.load_state_dict(state.best_weights)
        self.model.eval()
        seconds = time.perf_counter() - began
        return Trained(
            self.model, state.history, state.best_step, state.step, seconds, state.evaluation_seconds, state.tokens
        )

    def _train_phase(
        self, phase: Phase, state: TrainingState, saved: Snapshot | None, generator: torch.Generator, began: float
    ) -> TrainingState:
        """Train until the phase is over, from a state, or from one that was saved; -> the state then."""
        rows = self.rows = table_adam(self.model, replace(self.config, learning_rate=phase.learning_rate), self.threads)
        captured = None
        if captures(self.model, self.config, generator.device, self.world):
            captured = CapturedSteps(self.model, phase.learning_rate, generator)
        # foreach and plain Adam take three times as long on a CPU
        optimizer: Any = (
            captured.optimizer
            if captured
            else rows or torch.optim.Adam(self.model.parameters(), lr=phase.learning_rate, fused=True)
        )
        if saved is not None:
            state = TrainingState.restore(saved, self.model, optimizer, generator)

        def save() -> Snapshot | None:
            if not self.world.is_main:
                return None
            state.seconds = time.perf_counter() - began
            return state.save(self.model, optimizer, generator)

        averaged = frozenset(rows.averages if rows else ())  # by the optimizer
        self.model.train()
        stream = phase.batches.stream(state.step - state.phase_began)
        try:
            while not self._finished(state, phase):
                batch, negatives = next(stream)
                rate = phase.rate(state.step - state.phase_began)
                if captured:
                    stopping, loss = self.runtime.stop(), captured(batch, negatives, rate)
                else:
                    optimizer.zero_grad()
                    loss, stopping = self._gradients(batch, negatives, state.step, generator)
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    optimizer.step()
                state.average_weights(self.model, self.config.ema, averaged)
                state.losses.append(loss)
                state.tokens += batch.tokens
                state.step += 1
                self.runtime.progress("train", state.step, self.total, "steps", _note(state))
                if self.validation is None:
                    self._keep_last(state, phase)
                elif state.step % self.every == 0:
                    self._validate(state, began, self.validation)
                self.checkpointer.maybe_save("training", save, keep=2, stopping=stopping)
        except (MemoryError, RuntimeError) as cause:
            if not out_of_memory(cause):
                raise
            raise TrainingError(
                f"out of memory at step {state.step + 1} ({first_line(cause)}); free some and resume with --resume, or "
                "start another run with a lower training.batch_size, training.negatives or model.dim"
            ) from cause
        finally:
            stream.close()
            if rows:
                rows.close()
        return state

    def _gradients(
        self, whole: TrainingBatch, negatives: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, bool]:
        """Give every parameter its gradient over the whole batch; -> the loss, and whether to stop after this step."""
        stopping = self.runtime.stop()
        if self.draws_apart:
            key = np.random.SeedSequence([self.noise_seed, step, self.world.rank])
            seed = int(key.generate_state(1, np.uint64)[0]) >> 1
            generator.manual_seed(seed)
            torch.manual_seed(seed)
        batch, share = whole.divided(self.world)
        loss = self.model.loss(batch, negatives)
        if self.world.size == 1:
            loss.backward()
            return loss.detach(), stopping
        loss = loss * share
        loss.backward()
        loss, raised = loss.detach(), loss.new_tensor(float(stopping))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None and not p.grad.is_sparse]
        self.world.all_reduce(loss, raised, *gradients)
        for parameter in self.model.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._of_all(parameter.grad)
        return loss, bool(raised > 0)

    def _of_all(self, gradient: Tensor) -> Tensor:
        """A sparse gradient with the rows of all processes, so that each steps the same rows; one may come up often."""
        ids, values = self.world.all_gather(gradient._indices()[0], gradient._values())
        return torch.sparse_coo_tensor(ids[None], values, gradient.shape, check_invariants=False)

    def _settle(self, state: TrainingState) -> dict[str, Tensor]:
        """Bring weights up to date, of all processes to those of the first; -> averages that the optimizer keeps."""
        averages = {}
        if self.rows:
            self.rows.settle()
            averages = self.rows.averages
        # Processors that round differently drift apart; all processes go on from the weights of the first.
        # By name: a state that was read has its tensors in an order that differs from process to process.
        own = [state.average[name] for name in sorted(state.average)]
        self.world.broadcast(*self.model.state_dict().values(), *own, *averages.values())
        return averages

    def _keep_last(self, state: TrainingState, phase: Phase) -> None:
        """At the last step of a phase without validation: keep its weights."""
        if len(state.losses) == self.every or phase.is_over(state):
            _mean_loss(state.losses, state.step)
            state.losses.clear()
        if phase.is_over(state):
            with state.averaged(self.model, self._settle(state)):
                _check_finite(self.model, state.step)
                state.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            state.best_step = state.step

    def _validate(self, state: TrainingState, began: float, validation: EvaluationSet) -> None:
        loss = _mean_loss(state.losses, state.step)
        state.losses.clear()
        evaluation_began = time.perf_counter()
        torch.set_num_threads(self.threads)
        averages = self._settle(state)
        with state.averaged(self.model, averages):
            metrics = evaluate(self.model, validation, spread=False, runtime=self.runtime).metrics
            weights = self.model.state_dict() if metrics[CRITERION] > state.best else {}
            kept = {name: value.clone() for name, value in weights.items()}
            if kept:
                _check_finite(self.model, state.step)
        torch.set_num_threads(self.torch_threads)
        now = time.perf_counter()
        state.evaluation_seconds += now - evaluation_began
        state.history.append(Checkpoint(state.step, loss, metrics, now - began))
        if metrics[CRITERION] > state.best:
            state.best, state.best_step = metrics[CRITERION], state.step
            state.best_weights = kept
        self.runtime.progress("train", state.step, self.total, "steps", _note(state))

    def _finished(self, state: TrainingState, phase: Phase) -> bool:
        if phase.steps is not None:
            return phase.is_over(state)
        if not state.history:
            return False
        stale = (state.history[-1].step - state.best_step) // self.every
        return stale >= self.config.patience or len(state.history) >= self.config.max_evaluations


def _note(state: TrainingState) -> str:
    if not state.history:
        return ""
    return f"validation {CRITERION} {state.history[-1].metrics[CRITERION]:.4f}, best {state.best:.4f}"


def _mean_loss(losses: list[Tensor], last: int) -> float:
    """Mean of the losses of the steps up to ``last``; TrainingError when one is not finite."""
    values = torch.stack(losses)
    wrong = ~values.isfinite()
    if bool(wrong.any()):
        step = last - len(losses) + 1 + int(wrong.int().argmax())
        raise TrainingError(
            f"the loss is {float(values[step - 1 - last])} at step {step}: "
            "expected a finite number; try a lower training.learning_rate"
        )
    return float(values.mean())


def _check_finite(model: nn.Module, step: int) -> None:
    """TrainingError unless weights that are to be kept can be used; the loss of their step may have been finite."""
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise TrainingError(
                f"{name} holds nan or infinite weights after step {step}: expected finite numbers; try a lower "
                "training.learning_rate"
            )

"""Fit one backbone: Adam, negatives shared by the batch, early stopping on validation NDCG@20."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsir.config import ModelConfig, TrainingConfig
from rsir.data.batches import Batches, SoftTargets
from rsir.data.sequences import Sequences
from rsir.data.splits import EvaluationSet
from rsir.errors import TrainingError
from rsir.models.protocol import TrainableBackbone, require
from rsir.models.registry import build
from rsir.models.times import decided, uses_times, usual_gap
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpoints
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.runtime.torch_state import plain_torch
from rsir.training.captured import captures
from rsir.training.loop import Phase, TrainingLoop
from rsir.training.state import Checkpoint, Trained

__all__ = ["Checkpoint", "Trained", "fit", "training_seed"]

_LEAST_STEPS = 10  # between validations: patience would otherwise end trainings on few users within some dozen steps


@plain_torch()
def fit(
    model_config: ModelConfig,
    config: TrainingConfig,
    train: Sequences,
    validation: EvaluationSet | None,
    *,
    seed: int,
    steps: tuple[int, int] | None = None,
    init: nn.Module | Mapping[str, Tensor] | None = None,
    checkpointer: Checkpoints = NO_CHECKPOINTS,
    soft: SoftTargets | None = None,
    runtime: Runtime = RUNTIME,
) -> Trained:
    """Train a backbone until its validation NDCG@20 no longer rises.

    For a given seed, machine and number of threads the weights come out the same to the bit. Nothing global is
    touched: torch's global generator, which dropout of foreign backbones draws from, and its number of threads are
    restored.

    Parameters
    ----------
    model_config : ModelConfig
        Names a registered backbone. Of one that uses times ``times`` auto is on where ``train`` has times.
    config : TrainingConfig
    train : Sequences
        Real sequences, and generated ones whose loss weighs ``config.synthetic_weight``.
    validation : EvaluationSet or None
        None: nothing is held out, and ``steps`` says when to end.
    seed : int
        0..2**63 - 1: initial weights, batches, negatives, dropout.
    steps : (int, int), optional
        With no validation: train for the first number of steps, and then on the real sequences alone for the second,
        as ``config.real_last`` does; none of those where there is no synthetic sequence. The last weights are kept
        (their average where ``config.ema`` keeps one): those that a validation after as many steps would have kept.
    init : torch.nn.Module or state dict, optional
        Weights to start from, of the same shapes.
    checkpointer : Checkpoints, optional
        Where to save the training's state now and then, and to resume from if there is one already.
    soft : SoftTargets, optional
        Soft targets for ``train``; a share of its targets is drawn from them.
    runtime : Runtime, optional
        Its device is where the backbone is trained; progress is reported after every step and validation. Its number of
        threads is not looked at: training and the validation in it take torch's. Each of several processes computes
        some rows of every batch, and gradients are added up: weights are those of one process up to the rounding of
        sums, those of a backbone without ``draws_for_whole_batch`` (:class:`rsir.models.protocol.TrainableBackbone`)
        only where it has no dropout.

    Returns
    -------
    Trained

    Raises
    ------
    ConfigError, DataError
        ``model_config.times`` is on for a backbone that does not use times, or for data that have none.
    TrainingError
        A loss that is not finite or memory that ran out (names the step), or weights in ``init`` that do not fit.
    BackboneError
        Unknown or untrainable backbone.
    DataError
        No sequence to learn from, or nothing to validate on.
    Interrupted
        ``runtime.stop`` asked for it; the state was saved before.
    RunError
        The state cannot be saved.
    """
    if (validation is None) != (steps is not None):
        raise TrainingError("steps: expected numbers where there is no validation, and none where there is one")
    device = torch.device(runtime.device)
    weights_seed, noise_seed = (int(word) >> 1 for word in np.random.SeedSequence(seed).generate_state(2, np.uint64))
    model: Any = build(decided(model_config, train), train.num_items, seed=weights_seed)
    require(model, TrainableBackbone)
    if config.loss_precision == "bfloat16":
        if not hasattr(model, "loss_precision"):
            raise TrainingError(
                f"training.loss_precision: {type(model).__name__} computes its loss by itself and has no attribute "
                "loss_precision: expected float32"
            )
        model.loss_precision = "bfloat16"
    if init is not None:
        _start_from(model, init)
    if uses_times(model) and hasattr(model, "gap"):
        model.gap.fill_(usual_gap(train))
    model.to(device)
    generator = torch.Generator(device).manual_seed(noise_seed)
    weights = np.where(train.is_real, np.float32(1), np.float32(config.synthetic_weight))

    def batches(weights: np.ndarray, seed: int) -> Batches:
        return Batches(
            train,
            config.batch_size,
            model_config.max_len,
            config.negatives,
            seed=seed,
            device=device,
            generator=generator,
            weights=weights,
            soft=soft,
            proposal=config.proposal,
            timed=uses_times(model),
            fixed=captures(model, config, device, runtime.world),
        )

    first, last = (None, None) if steps is None else steps
    every = config.evaluate_every or max(_LEAST_STEPS, _steps_of_real(train, config))
    falls_over = every * config.max_evaluations if config.schedule == "cosine" else None
    phases = [Phase(batches(weights, seed), config.learning_rate, first, falls_over)]
    last = config.real_last * every if last is None else last
    trainable = train.lengths >= 2
    if last and (trainable & train.is_real).any() and (trainable & ~train.is_real & (weights > 0)).any():
        own = int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0]) >> 1
        real = train.is_real.astype(np.float32)
        phases.append(Phase(batches(real, own), config.real_rate, last))
    total = sum(phase.steps or 0 for phase in phases) if validation is None else every * config.max_evaluations
    loop = TrainingLoop(
        model, config, validation, every, checkpointer, replace(runtime, threads=None), noise_seed, total
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(noise_seed)
        return loop(phases, generator)


def training_seed(seed: int, round_: int) -> int:
    """Every round of a run trains with randomness of its own."""
    return int(np.random.SeedSequence([seed, round_]).generate_state(1, np.uint64)[0]) >> 1


def _steps_of_real(train: Sequences, config: TrainingConfig) -> int:
    """Steps of one pass over the real sequences that can be trained on; over all, if none is real."""
    trainable = train.lengths >= 2
    real = int(np.count_nonzero(trainable & train.is_real)) or int(np.count_nonzero(trainable))
    return -(-real // config.batch_size)


def _start_from(model: nn.Module, init: nn.Module | Mapping[str, Tensor]) -> None:
    weights = init.state_dict() if isinstance(init, nn.Module) else init
    try:
        model.load_state_dict(weights)
    except RuntimeError as cause:
        raise TrainingError(f"init: its weights do not fit this backbone and catalogue: {cause}") from cause

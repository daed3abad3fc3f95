"""The base alone, with no recursion: SASRec and BSARec, each with sampled negatives and with the full softmax.

Every line is one training: validation NDCG@20, which stops it, then test Recall@10 and NDCG@10, leave-one-out over the
whole catalogue. Seconds an epoch leave validation out, processor seconds do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import torch

from rsir.config import ModelConfig, TrainingConfig
from rsir.data import leave_one_out, read
from rsir.evaluation import evaluate
from rsir.metrics import CRITERION
from rsir.training.fit import fit

from . import toys
from .harness import describe_machine

ARMS = {
    "sasrec": ("sasrec", TrainingConfig().negatives),
    "sasrec-full": ("sasrec", 0),
    "bsarec": ("bsarec", TrainingConfig().negatives),
    "bsarec-full": ("bsarec", 0),
}
"""Backbone and negatives (0: the full softmax) by name."""


def main(arguments: list[str]) -> int:
    own = TrainingConfig()
    parser = argparse.ArgumentParser(prog="python -m benchmarks bases", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", help="default: Amazon Toys")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=own.learning_rate)
    parser.add_argument("--schedule", choices=["constant", "cosine"], default=own.schedule)
    parser.add_argument("--ema", type=float, default=own.ema)
    parser.add_argument("--batch-size", type=int, default=own.batch_size)
    parser.add_argument("--patience", type=int, default=own.patience)
    parser.add_argument("--epochs", type=int, default=own.max_evaluations, help="at most")
    parser.add_argument("--quick", action="store_true", help="few simulated users, two epochs")
    options = parser.parse_args(arguments)
    sets = {path.name: path for path in options.data or []}
    loaded = {name: read(path) for name, path in sets.items()}
    if options.quick or not loaded:
        data, described = toys.load(options.quick)
        loaded[described] = data
    epochs = 2 if options.quick else options.epochs

    torch.set_num_threads(options.threads)
    machine = ", ".join(f"{key}: {value}" for key, value in describe_machine().items())
    rate = f"learning rate {options.learning_rate}, {options.schedule}"
    print(f"## Bases\n\n{machine}; {options.threads} threads, {rate}\n")
    print(
        "| data | arm | seed | validation NDCG@20 | test Recall@10 | test NDCG@10 | best of epochs | seconds | "
        "seconds an epoch | processor seconds |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, data in loaded.items():
        parts = leave_one_out(data)
        for arm in options.arms:
            backbone, negatives = ARMS[arm]
            config = dataclasses.replace(
                own,
                negatives=negatives,
                learning_rate=options.learning_rate,
                schedule=options.schedule,
                ema=options.ema,
                batch_size=options.batch_size,
                patience=options.patience,
                max_evaluations=epochs,
            )
            for seed in options.seeds:
                began = time.process_time()
                fitted = fit(ModelConfig().for_backbone(backbone), config, parts.train, parts.validation, seed=seed)
                processor = time.process_time() - began
                test = evaluate(fitted.model, parts.test).metrics
                per_epoch = fitted.history[0].step
                each = (fitted.seconds - fitted.evaluation_seconds) / len(fitted.history)
                cells = (
                    name,
                    arm,
                    seed,
                    f"{fitted.best.metrics[CRITERION]:.4f}",
                    f"{test['recall@10']:.4f}",
                    f"{test['ndcg@10']:.4f}",
                    f"{fitted.best_step // per_epoch} of {len(fitted.history)}",
                    f"{fitted.seconds:.0f}",
                    f"{each:.2f}",
                    f"{processor:.0f}",
                )
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return 0

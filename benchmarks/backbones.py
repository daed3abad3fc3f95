"""A training step of every backbone on the shape of Amazon Toys, in turns within one process.

First, each backbone's incremental decoding must give the queries of its encoder. With ``--epochs`` each is then trained
with its settings and seed 0, and its validation NDCG@20 is shown beside what it took.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from rsir.config import ModelConfig, TrainingConfig
from rsir.data import leave_one_out
from rsir.models import build, names
from rsir.training.fit import fit

from . import toys
from .harness import Contender, Report, compare, describe_machine, extra_memory
from .training import runner, training_steps


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks backbones", description=__doc__)
    parser.add_argument("--names", nargs="+", default=["sasrec", *(name for name in names() if name != "sasrec")])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=9, help="turns that are timed")
    parser.add_argument("--steps", type=int, default=10, help="training steps in a turn")
    parser.add_argument("--epochs", type=int, default=0, help="train each for this many epochs, too")
    parser.add_argument("--quick", action="store_true", help="few simulated users, two turns of two steps")
    parser.add_argument(
        "--cpu-time", action="store_true", help="time by processor seconds, for a machine that others use, too"
    )
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.steps, options.epochs = 2, 2, 1

    data, described = toys.load(options.quick)
    parts = leave_one_out(data)
    config = TrainingConfig(max_evaluations=max(options.epochs, 1), patience=max(options.epochs, 1))
    models = {name: ModelConfig().for_backbone(name) for name in options.names}
    for model_config in models.values():
        _check(model_config, data.num_items)
    steps, per_epoch = training_steps(parts.train, ModelConfig(), config, options.steps)
    report = Report(f"Training step of every backbone, {described}", describe_machine())
    for threads in options.threads:
        runs = {
            name: runner("rsir", data.num_items, model_config, config, steps, threads)
            for name, model_config in models.items()
        }
        figures = compare(
            f"{len(steps)} steps",
            [Contender(name, run) for name, run in runs.items()],
            threads=threads,
            rounds=options.rounds,
            cpu_time=options.cpu_time,
        )
        for run, figure in zip(runs.values(), figures, strict=True):
            figure.extra_mib = extra_memory(run)
            each = figure.median_ms / len(steps)
            report.notes.append(
                f"- {threads} threads, {figure.contender}: {each:.1f} ms a step, {each * per_epoch / 1e3:.2f} s an "
                f"epoch of {per_epoch} steps"
            )
        report.figures += figures
    for name, model_config in models.items() if options.epochs else ():
        torch.set_num_threads(options.threads[0])
        fitted = fit(model_config, config, parts.train, parts.validation, seed=toys.SEED)
        weights = sum(parameter.numel() for parameter in fitted.model.parameters())
        report.notes.append(
            f"- {name}: validation NDCG@20 {fitted.best.metrics['ndcg@20']:.4f}, the best of {options.epochs} epochs, "
            f"after {fitted.best_step // per_epoch}; {weights:,} weights"
        )
    report.notes.append("- Before they were timed, decoding item by item gave each backbone's queries.")
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


@torch.no_grad()
def _check(config: ModelConfig, num_items: int) -> None:
    """Decoding against the encoder; ends the run when they differ."""
    model: Any = build(config, num_items, seed=1).eval()
    items = torch.randint(1, num_items + 1, (64, 12), generator=torch.Generator().manual_seed(0))
    state, slots = model.new_state(64), torch.arange(64)
    for place in range(items.shape[1]):
        queries = model.step(state, slots, items[:, place])
        expected = model.encode(items[:, : place + 1], torch.full((64,), place + 1))
        if (queries - expected).abs().max() > 1e-4 * expected.abs().max():
            raise SystemExit(f"{config.name}: after {place + 1} items step and encode differ")

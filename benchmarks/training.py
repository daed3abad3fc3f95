"""One training step and an epoch on the shape of Amazon Toys, against plain packed torch.

All train the same model (``--model``) on the same packed batches with the same shared negatives (``--negatives``; 0 is
the full softmax), in turns within one process, and keep the moving average of the weights. Plain torch is written with
care (benchmarks/plain.py): in float32, with MKL or oneDNN behind its products, and under autocast to bfloat16. First,
without dropout, losses and gradients in float32 must agree. Floating point operations are counted by hand and held
against the multiply-add peak. Then comes what several threads can divide of a step, and the validation that follows
every epoch of rsir, and its share of the time. ``--catalogues`` is about larger ones instead: a step whose Adam and
average see the whole table of items against one where they see the rows looked up.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsir import _core
from rsir.config import ModelConfig, RecursionConfig, TrainingConfig
from rsir.data.batches import Batches, TrainingBatch
from rsir.data.sequences import Sequences
from rsir.evaluation import evaluate
from rsir.models import build
from rsir.ops import cpp
from rsir.training.adam import TableAdam, table_adam
from rsir.training.state import TrainingState

from . import toys
from .harness import Contender, Report, compare, describe_machine, extra_memory
from .plain import Plain

Step = tuple[TrainingBatch, Tensor]

PLAIN = {
    "plain torch, MKL": ("highest", False),
    "plain torch, oneDNN": ("medium", False),
    "plain torch, bfloat16": ("highest", True),
}
"""What is behind the products of plain torch: a precision of float32, and whether they are of bfloat16."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    parser.add_argument("--model", choices=["sasrec", "bsarec"], default="sasrec")
    parser.add_argument("--negatives", type=int, default=TrainingConfig().negatives, help="0: the full softmax")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9, help="turns that are timed")
    parser.add_argument("--steps", type=int, default=10, help="training steps in a turn")
    parser.add_argument("--quick", action="store_true", help="few simulated users, two turns of two steps")
    parser.add_argument(
        "--cpu-time", action="store_true", help="time by processor seconds, for a machine that others use, too"
    )
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument(
        "--catalogues", type=int, nargs="+", metavar="ITEMS", help="compare Adam on the whole table and on rows instead"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.steps = 2, 2

    data, described = toys.load(options.quick)
    if options.catalogues:
        return catalogues(data, described, options)
    model, parts, of_model = toys.trained(data, 1 if options.quick else 20)
    train = parts.train
    whole = RecursionConfig().for_backbone(options.model)
    model_config, config = whole.model, dataclasses.replace(whole.training, negatives=options.negatives)
    _check(train, model_config, config)
    steps, per_epoch = training_steps(train, model_config, config, options.steps)
    work = _operations(steps, model_config)
    tokens = sum(batch.tokens for batch, _ in steps) / len(steps)
    instruction_set = _core.instruction_sets()[0]
    machine = {**describe_machine(), "model that is validated": of_model}
    loss = f"{config.negatives:,} negatives" if config.negatives else "the full softmax"
    report = Report(f"Training step of {type(build(model_config, 1)).__name__}, {loss}, {described}", machine)
    for threads in options.threads:
        runs = {
            name: runner(name, train.num_items, model_config, config, steps, threads)
            for name in ("rsir", "rsir, loss in bfloat16", *PLAIN)
        }
        figures = compare(
            f"{len(steps)} steps",
            [Contender(name, run) for name, run in runs.items()],
            threads=threads,
            rounds=options.rounds,
            cpu_time=options.cpu_time,
            peak=lambda threads=threads: _core.measure_fma(instruction_set, threads, 0.02),  # type: ignore[misc]
            operations=sum(work.values()),
        )
        for run, figure in zip(runs.values(), figures, strict=True):
            figure.extra_mib = extra_memory(run)
            each = figure.median_ms / len(steps)
            report.notes.append(
                f"- {threads} threads, {figure.contender}: {each:.2f} ms a step, {each * per_epoch / 1e3:.2f} s an "
                f"epoch of {per_epoch} steps, {tokens / each * 1e3:,.0f} tokens/s"
            )
        if threads == 1:
            whole, compiled = (1e3 * seconds / len(steps) for seconds in _in_compiled_ops(runs["rsir"]))
            report.notes.append(
                f"- rsir, processor time: of {whole:.2f} ms a step {compiled:.2f} in compiled ops, which divide their "
                f"work; if these took half on two threads, a step would be {whole / (whole - compiled / 2):.2f} times "
                "as fast"
            )
        report.figures += figures
        torch.set_num_threads(threads)
        epoch = figures[0].median_ms / len(steps) * per_epoch
        (validation,) = compare(
            f"a validation of {len(parts.validation):,} users",
            [Contender("rsir", lambda: evaluate(model, parts.validation, spread=False))],
            threads=threads,
            rounds=options.rounds,
            cpu_time=options.cpu_time,
        )
        report.figures.append(validation)
        report.notes.append(
            f"- {threads} threads: a validation of {validation.median_ms:.0f} ms after each epoch of {epoch:.0f} ms is "
            f"{validation.median_ms / (validation.median_ms + epoch):.1%} of both"
        )
    counted = ", ".join(f"{name} {operations / len(steps) / 1e6:.0f}" for name, operations in work.items())
    report.notes += [
        f"- A step has {tokens:,.0f} tokens, {len(steps[0][1]):,} shared negatives; MFLOP counted: {counted}. "
        "Elementwise work, look-ups and Adam are not counted, nor what is spent on positions that hold no token.",
        "- rsir and plain torch gave the same loss and gradients without dropout, in float32, before they were timed.",
    ]
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


def catalogues(data: Sequences, described: str, options: argparse.Namespace) -> int:
    """Steps on catalogues of several sizes: each item of the data stands for many, of which every user sees one."""
    report = Report(f"Adam on the whole table and on rows, {described}", describe_machine())
    for items in options.catalogues:
        copies = items // data.num_items
        if not copies:
            raise SystemExit(f"--catalogues: expected at least the {data.num_items:,} items of the data, got {items:,}")
        drawn = np.random.default_rng([0, items]).integers(0, copies, len(data.items))
        ids = (data.items - 1) * copies + drawn.astype(np.int32) + 1
        larger = Sequences(items=ids, offsets=data.offsets, num_items=items)
        for threads in options.threads:
            runs = {
                "whole table": _catalogue_runner(larger, options.steps, threads, rows=False),
                "rows": _catalogue_runner(larger, options.steps, threads, rows=True),
            }
            figures = compare(
                f"{options.steps} steps, {items:,} items",
                [Contender(name, run) for name, run in runs.items()],
                threads=threads,
                rounds=options.rounds,
                cpu_time=options.cpu_time,
            )
            report.figures += figures
            each = ", ".join(f"{figure.contender} {figure.median_ms / options.steps:.2f} ms" for figure in figures)
            report.notes.append(f"- {items:,} items, {threads} threads, a step: {each}")
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


def _catalogue_runner(train: Sequences, count: int, threads: int, rows: bool) -> Callable[[], None]:
    """Takes the next steps of an endless stream."""
    model_config, config = toys.sasrec()
    model: Any = build(model_config, train.num_items, seed=0)
    model.threads = threads
    model.train()
    optimizer = TableAdam(model, config.learning_rate, threads, config.ema, lazy=rows)
    stream = iter(_batches(train, model_config, config))

    def run(steps: int = count) -> None:
        torch.set_num_threads(1)  # as rsir.training.fit.fit sets it
        for _ in range(steps):
            batch, negatives = next(stream)
            optimizer.zero_grad()
            model.loss(batch, negatives).backward()
            optimizer.step()

    if rows:
        run(200)  # rows then have as many steps to make up for as in a long training
    return run


def _batches(train: Sequences, model_config: ModelConfig, config: TrainingConfig) -> Batches:
    generator = torch.Generator().manual_seed(0)
    size, width, negatives = config.batch_size, model_config.max_len, config.negatives
    return Batches(train, size, width, negatives, seed=0, device=torch.device("cpu"), generator=generator)


def training_steps(train: Any, model_config: ModelConfig, config: TrainingConfig, count: int) -> tuple[list[Step], int]:
    """Batches with their negatives, and how many make an epoch."""
    batches = _batches(train, model_config, config)
    stream = iter(batches)
    steps = [next(stream) for _ in range(count)]
    stream.close()
    return steps, batches.steps_per_epoch


def runner(
    name: str, num_items: int, model_config: ModelConfig, config: TrainingConfig, steps: list[Step], threads: int
) -> Callable[[], None]:
    """Trains on all the steps, with the threads set as rsir.training.fit.fit sets them for each."""
    model: Any = build(model_config, num_items, seed=0)
    precision = "highest"
    if name not in PLAIN:
        model.threads = threads
        if name.endswith("bfloat16"):
            model.loss_precision = "bfloat16"
    else:
        precision, rounded = PLAIN[name]
        plain = Plain(model_config, num_items, rounded)
        plain.load_state_dict(model.state_dict())
        model = plain
    model.train()
    table = table_adam(model, config, threads)
    optimizer: Any = table or torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    averaged = frozenset(table.averages if table else ())
    state = TrainingState()

    def run() -> None:
        torch.set_num_threads(1 if table else threads)  # as rsir.training.fit.fit sets it
        torch.set_float32_matmul_precision(precision)
        for batch, negatives in steps:
            optimizer.zero_grad()
            model.loss(batch, negatives).backward()
            optimizer.step()
            state.average_weights(model, config.ema, averaged)
            state.step += 1
        torch.set_float32_matmul_precision("highest")

    return run


class _Timed:
    """Stands in for the compiled module and adds up the processor time that its functions take in this thread."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        value = getattr(_core, name)
        if not callable(value):
            return value

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return value(*arguments, **options)
            finally:
                self.seconds += time.thread_time() - began

        return timed


def _in_compiled_ops(run: Callable[[], None]) -> tuple[float, float]:
    """Processor time of one run in one thread, and what of it compiled ops take; seconds."""
    timed, before = _Timed(), cpp._core
    cpp._core = timed  # type: ignore[assignment]
    try:
        began = time.thread_time()
        run()
        return time.thread_time() - began, timed.seconds
    finally:
        cpp._core = before


def _operations(steps: list[Step], config: ModelConfig) -> dict[str, float]:
    """Floating point operations of forward and backward passes, which take twice those of the forward one."""
    d = config.dim
    projections = attention = loss = 0.0
    for batch, negatives in steps:
        lengths = batch.positions[batch.segments > 0].numpy() + 1.0  # positions that a token looks at
        projections += 3 * 2 * config.layers * batch.tokens * (4 * d * d + 2 * d * config.feedforward)
        attention += 3 * 2 * config.layers * 2 * d * float(np.sum(lengths))
        loss += 3 * 2 * batch.tokens * len(negatives) * d
    return {"projections": projections, "attention": attention, "loss": loss}


def _check(train: Any, model_config: ModelConfig, config: TrainingConfig) -> None:
    """Losses and gradients of both without dropout; ends the run when they differ."""
    ours: Any = build(model_config, train.num_items, seed=1).eval()
    plain = Plain(model_config, train.num_items).eval()
    plain.load_state_dict(ours.state_dict())
    (step,), _ = training_steps(train, model_config, config, 1)
    results = []
    for model in (ours, plain):
        loss = model.loss(*step)
        results.append((loss, *torch.autograd.grad(loss, [value for _, value in sorted(model.named_parameters())])))
    for a, b in zip(*results, strict=True):
        if (a - b).abs().max() > 1e-4 * b.abs().max():
            raise SystemExit(f"losses {results[0][0]:.7f} and {results[1][0]:.7f}: they or their gradients differ")

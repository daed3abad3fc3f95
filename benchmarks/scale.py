"""Hours, GPUs, bytes and money of a round for a million to a billion users: a model, and how far off it is here.

Rates come from three small sizes, measured on one thread of this machine in processor time; its predictions for three
others are checked against measurements of those. Devices are nominal, each figure with its source, and everything that
is assumed is listed. Slow devices and failures are simulated event by event.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsir import _core
from rsir.config import FidelityConfig, GenerationConfig, ModelConfig, TrainingConfig
from rsir.data import leave_one_out
from rsir.evaluation import evaluate
from rsir.generation.fidelity import build
from rsir.generation.generate import generate
from rsir.runtime.runtime import Runtime
from rsir.training.fit import fit

from . import growth
from .cost import H100, TERMS, Assumed, Plan, Rates, Sizes, fewest, host_bytes, simulate
from .harness import describe_machine

MEASURED = [(2000, 1000), (2000, 20_000), (6000, 4000)]  # users, items
CHECKED = [(1000, 8000), (4000, 2000), (6000, 30_000)]
QUICK = [(60, 100), (60, 300), (120, 100)], [(80, 200)]
PASSES = 2
LARGE = [(users, items) for items in (100_000, 10_000_000) for users in (10**6, 10**8, 10**9)]
SEED, REPEATS = 0, 50


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="that a round may take where nothing fails")
    parser.add_argument("--price", type=float, default=H100.price, help="USD for an hour of a GPU")
    parser.add_argument("--rates", type=Path, help="what an earlier --json wrote: take its measurements")
    parser.add_argument("--threads", type=int, default=1, choices=[1], help="rates are those of one core")
    parser.add_argument("--quick", action="store_true", help="sizes that say nothing, at once")
    parser.add_argument("--json", type=Path, help="write measurements and figures here, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    machine = describe_machine()
    if options.rates:
        kept = json.loads(options.rates.read_text())
        machine, measured, checked, peak = (kept[name] for name in ("machine", "measured", "checked", "peak"))
    else:
        calibration, check = QUICK if options.quick else (MEASURED, CHECKED)
        measure(*calibration[0])  # compiles
        peak = _core.measure_fma(_core.instruction_sets()[0], 1, 0.2)
        measured, checked = ([measure(*size) for size in sizes] for sizes in (calibration, check))
    rates = fitted(measured, peak)
    device, assumed = replace(H100, price=options.price), Assumed()
    figures = [figure(Sizes(*size), rates, device, assumed, options.hours) for size in LARGE]
    print("## What a round costs\n")
    print("\n".join(f"- {key}: {value}" for key, value in machine.items()))
    print("\n".join(["", *rates_table(rates), "", *errors_table(rates, checked), "", *costs_table(figures)]))
    print("\nNominal:\n\n" + "\n".join(f"- {source}" for source in device.sources))
    if options.price != H100.price:
        print(f"- but USD {options.price:g} an hour for each, as given")
    print("\nAssumed:\n\n" + "\n".join(f"- {line}" for line in assumed.described(Sizes(*LARGE[0]))))
    if options.json:
        kept = {"machine": machine, "peak": peak, "measured": measured, "checked": checked, "figures": figures}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    return 0


def measure(users: int, items: int) -> dict[str, Any]:
    """Processor seconds of each phase at a size; evaluation is of all users once."""
    sizes = small(users, items)
    data = growth.log(users, items, sizes.length)
    parts = leave_one_out(data)
    model_config = ModelConfig("sasrec", max_len=sizes.length)
    config = TrainingConfig(max_evaluations=PASSES, patience=PASSES)
    trained, fitting = _timed(lambda: fit(model_config, config, parts.train, parts.validation, seed=SEED))
    model: Any = trained.model
    policy = build(FidelityConfig(tau=items), model.item_embeddings().detach(), 1)
    one = Runtime(threads=1)
    found, generating = _timed(
        lambda: generate(model, parts.train, GenerationConfig(m=sizes.m), policy, seed=SEED, round_=1, runtime=one), 2
    )
    _, evaluating = _timed(lambda: evaluate(model, parts.validation, spread=False, runtime=one), 3)
    return {
        "users": users,
        "items": items,
        "train": fitting - PASSES * evaluating,
        "generate": generating,
        "evaluate": evaluating,
        "steps": int(found.stats.scanned),
    }


def small(users: int, items: int) -> Sizes:
    """What :func:`measure` does, but that it evaluates once."""
    return Sizes(users, items, m=4, validations=PASSES)


def units(run: dict[str, Any], phase: str) -> np.ndarray:
    """(2,) of both terms in a measurement."""
    sizes = small(run["users"], run["items"])
    return np.array(sizes.units(phase)) / (sizes.evaluations if phase == "evaluate" else 1)


def fitted(measured: list[dict[str, Any]], peak: float) -> Rates:
    """Seconds of a unit of both terms, neither below 0, by the least squares of relative errors."""
    seconds = {}
    for phase in TERMS:
        taken = np.array([run[phase] for run in measured])
        each = np.array([units(run, phase) for run in measured]) / taken[:, None]
        both = np.linalg.lstsq(each, np.ones(len(taken)), rcond=None)[0]
        if both.min() < 0:  # the best with one of them alone
            alone = each.sum(0) / (each**2).sum(0)
            off = ((each * alone - 1) ** 2).sum(0)
            both = np.where(np.arange(2) == off.argmin(), alone, 0.0)
        seconds[phase] = (float(both[0]), float(both[1]))
    return Rates(seconds, peak)


def figure(sizes: Sizes, rates: Rates, device: Any, assumed: Assumed, hours: float) -> dict[str, Any]:
    """A row of the table of costs."""
    planned: Plan = fewest(sizes, rates, device, assumed, hours)
    runs = np.array(
        [simulate(planned, device, assumed, np.random.default_rng([SEED, repeat])) for repeat in range(REPEATS)]
    )
    simulated = float(runs.mean()) / 3600
    return {
        "users": sizes.users,
        "items": sizes.items,
        "core_hours": sum(rates.predict(sizes, phase) for phase in TERMS) / 3600,
        "gpus": planned.gpus,
        "ideal_hours": {phase: seconds / 3600 for phase, seconds in planned.seconds.items()},
        "hours": simulated,
        "hours_95": float(np.quantile(runs, 0.95)) / 3600,
        "money": simulated * planned.gpus * device.price,
        "table_bytes": 4.0 * sizes.parameters,
        "gpu_bytes": 4.0 * sizes.parameters * assumed.copies,
        "host_bytes": host_bytes(sizes),
        "notes": planned.notes,
    }


def rates_table(rates: Rates) -> list[str]:
    """Markdown: what a unit takes, and the share of the peak that this is."""
    sizes = small(*MEASURED[0])
    lines = ["| phase | term | of one core, a unit | of the core's peak |", "|---|---|---|---|"]
    for phase, terms in TERMS.items():
        for number, term in enumerate(terms):
            seconds = rates.seconds[phase][number]
            moved = f"{sizes.operations(phase)[number] / seconds / 1e9:.1f} GB/s" if seconds else "nothing seen"
            share = moved if term == "table" else f"{rates.share(sizes, phase, number):.1%}"
            lines.append(f"| {phase} | {term} | {seconds * 1e9:,.4g} ns | {share} |")
    unit = "Units: a position; an item's number in a step of Adam; a step of a trajectory; an item's number in a scan."
    return [*lines, "", f"{unit} Peak of multiply-adds: {rates.peak / 1e9:.0f} GFLOP/s."]


def errors_table(rates: Rates, checked: list[dict[str, Any]]) -> list[str]:
    """Markdown: what was predicted for sizes that rates were not taken from, and what they took."""
    lines = ["| users | items | phase | predicted core-s | measured core-s | error |", "|---|---|---|---|---|---|"]
    errors = []
    for run in checked:
        for phase in TERMS:
            predicted = float(np.dot(rates.seconds[phase], units(run, phase)))
            errors.append(predicted / run[phase] - 1)
            numbers = f"{predicted:.3f} | {run[phase]:.3f} | {errors[-1]:+.0%}"
            lines.append(f"| {run['users']:,} | {run['items']:,} | {phase} | {numbers} |")
    mean = float(np.abs(errors).mean())
    return [*lines, "", f"Off by {mean:.0%} on average, by {max(map(abs, errors)):.0%} at most."]


def costs_table(figures: list[dict[str, Any]]) -> list[str]:
    """Markdown: a row for each size."""
    head = ["users", "items", "core-hours", "GPUs", "ideal hours: train, generate, evaluate", "hours (95%)", "USD"]
    head += ["item table", "on a GPU", "data of a process"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in figures:
        ideal = ", ".join(f"{hours:.3g}" for hours in row["ideal_hours"].values())
        sizes = [f"{row[name] / 1e9:,.3g} GB" for name in ("table_bytes", "gpu_bytes", "host_bytes")]
        cells = [f"{row['users']:,}", f"{row['items']:,}", f"{row['core_hours']:,.3g}", f"{row['gpus']:,}", ideal]
        cells += [f"{row['hours']:.3g} ({row['hours_95']:.3g})", f"{row['money']:,.3g}", *sizes]
        lines.append("| " + " | ".join(cells) + " |")
    noted = [f"- {row['users']:,} users, {row['items']:,} items: {note}" for row in figures for note in row["notes"]]
    return [*lines, *([""] if noted else []), *noted]


def _timed(run: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    """What it gives, and the fewest processor seconds of all threads."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        result = run()
        times.append(time.process_time() - began)
    return result, min(times)

"""How time and memory grow with users, items, sequence length, trajectories a source and rounds.

Simulated logs without structure: every user has the same number of items, popular ones more often. One base and one
round, two passes over the real users each, with the default SASRec. Fidelity checks the rank at every step but never
refuses (tau is the size of the catalogue), so that the work depends on the sizes alone; that is more than a real run
does, where most trajectories end early. Each size runs in a process of its own, whose peak memory is taken. Exponents
are least-squares slopes of log time (or of log peak memory above that of the imports) against log size: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rsir.runtime.runtime import Runtime

from .harness import describe_machine

BASE = {"users": 4000, "items": 5000, "length": 10, "m": 2, "rounds": 1}
SIZES = {
    "users": [2000, 4000, 8000, 16_000, 32_000],
    "items": [2500, 10_000, 40_000, 160_000],
    "length": [10, 20, 40, 80],
    "m": [1, 2, 4, 8],
    "rounds": [1, 2, 4],
}
QUICK = {"users": [60, 120, 240]}
PHASES = ("train", "generate", "evaluate", "all", "memory")
NAMES = {
    "users": "users",
    "items": "items",
    "length": "items a user",
    "m": "trajectories a user",
    "rounds": "rounds after the base",
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    parser.add_argument("--axes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="users alone, at most 240 of them")
    parser.add_argument("--jsonl", type=Path, help="write a line for each size here, too")
    parser.add_argument("--plot", type=Path, help="draw them into this image (.svg, .png); needs rsir[plots]")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(options.one, options.threads)))
        return 0
    sizes = QUICK if options.quick else {axis: SIZES[axis] for axis in options.axes}
    machine = describe_machine()
    lines = []
    for axis, values in sizes.items():
        for value in values:
            lines.append({"axis": axis, **BASE, axis: value, **run({**BASE, axis: value}, options.threads)})
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    if options.jsonl:
        options.jsonl.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"## Growth, {options.threads} threads\n")
    print("\n".join(f"- {key}: {value}" for key, value in machine.items()))
    print("\n".join(["", *table(lines)]))
    if options.plot:
        plot(lines, options.plot)
    return 0


def run(sizes: dict[str, int], threads: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "growth", "--threads", str(threads), "--one", json.dumps(sizes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(sizes: dict[str, int], threads: int) -> dict[str, float]:
    """Seconds by phase, seconds in all, and MiB by which the peak exceeds what the imports take."""
    import torch

    from rsir.config import FidelityConfig, GenerationConfig, ModelConfig, RecursionConfig, TrainingConfig
    from rsir.recursion.loop import recurse

    torch.set_num_threads(threads)
    config = RecursionConfig(
        rounds=sizes["rounds"],
        stop_after=sizes["rounds"] + 1,
        guard=False,
        model=ModelConfig("sasrec", max_len=sizes["length"]),
        training=TrainingConfig(max_evaluations=2),
        generation=GenerationConfig(m=sizes["m"]),
        fidelity=FidelityConfig(tau=sizes["items"]),
    )
    small = {"users": 60, "items": 100, "length": 5}
    runtime = Runtime(threads=threads)
    recurse(replace(config, fidelity=FidelityConfig(tau=100)), data=log(**small), runtime=runtime)  # compiles
    before = _peak_mib()
    data = log(sizes["users"], sizes["items"], sizes["length"])
    seconds = dict.fromkeys(PHASES[:3], 0.0)
    for result in recurse(config, data=data, runtime=runtime).rounds:
        for phase, spent in result.seconds.items():
            seconds[phase] += spent
    return {**seconds, "all": sum(seconds.values()), "memory": _peak_mib() - before}


def log(users: int, items: int, length: int) -> Any:
    """Users with the same number of items each, two of them for validation and test, drawn by Zipf's law."""
    from rsir.data.sequences import Sequences

    weight = 1.0 / np.arange(1, items + 1) ** 0.7
    random = np.random.default_rng(0)
    drawn = random.choice(items, users * (length + 2), p=weight / weight.sum()) + 1
    return Sequences(
        items=drawn.astype(np.int32), offsets=np.arange(users + 1, dtype=np.int64) * (length + 2), num_items=items
    )


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of log value against log size."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Markdown: a row for each size, and the exponents below those of an axis."""
    head = ["axis", "size", "training s", "generation s", "evaluation s", "all s", "peak MiB above imports"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for axis in dict.fromkeys(line["axis"] for line in lines):
        own = [line for line in lines if line["axis"] == axis]
        for line in own:
            cells = [f"{line[phase]:.2f}" for phase in PHASES[:-1]] + [f"{line['memory']:,.0f}"]
            rows.append("| " + " | ".join([NAMES[axis], f"{line[axis]:,}", *cells]) + " |")
        slopes = [f"**{exponent([e[axis] for e in own], [e[phase] for e in own]):.2f}**" for phase in PHASES]
        rows.append("| " + " | ".join([NAMES[axis], "**exponent**", *slopes]) + " |")
    return rows


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Seconds by phase and memory against each size, both axes logarithmic."""
    try:
        import matplotlib
    except ImportError as cause:
        raise SystemExit("plots need matplotlib: pip install 'rsir[plots]'") from cause
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = list(dict.fromkeys(line["axis"] for line in lines))
    figure, grid = plt.subplots(
        2, len(axes), figsize=(2.6 * len(axes), 4.6), layout="constrained", squeeze=False, sharey="row"
    )
    for column, axis in enumerate(axes):
        own = [line for line in lines if line["axis"] == axis]
        sizes = [line[axis] for line in own]
        for phase in PHASES:
            values = [max(line[phase], 1e-3) for line in own]
            place = grid[int(phase == "memory"), column]
            place.loglog(sizes, values, "o-", ms=3, lw=1.2, label=f"{phase}, exponent {exponent(sizes, values):.2f}")
        for place in grid[:, column]:
            place.set_xlabel(NAMES[axis])
            place.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
            place.minorticks_off()
            place.spines[["top", "right"]].set_visible(False)
            place.legend(frameon=False, fontsize=6)
    grid[0, 0].set_ylabel("seconds")
    grid[1, 0].set_ylabel("MiB above the imports")
    with matplotlib.rc_context({"svg.hashsalt": "rsir"}):  # equal figures give equal files
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _peak_mib() -> float:
    """Of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform.startswith("linux") else 2**20)

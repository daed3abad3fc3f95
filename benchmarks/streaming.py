"""One whole round of simulated users within a limit on memory: simulation, split, base, generation, successor, report.

Every size runs in a process of its own that holds itself to ``--memory`` (as ``rsir --memory`` does) and fails beyond
it; the peaks are what the system says that the process has taken (VmHWM), libraries and mapped files among it. Both
trainings are cut short, after ``--steps`` steps and one validation by everybody; all users generate and are evaluated.
The run's folder is a temporary one in ``--folder``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsir.runtime.runtime import Runtime

from .harness import describe_machine

SIZES = [500_000, 1_500_000, 5_000_000]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks streaming", description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=SIZES)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--length", type=float, default=10.0, help="mean number of interactions of a user")
    parser.add_argument("--memory", default="4GiB", help="what each process may take")
    parser.add_argument("--steps", type=int, default=200, help="training steps of the base and of its successor")
    parser.add_argument("--dim", type=int, default=32, help="width of the backbone, a SASRec of one layer")
    parser.add_argument("--m", type=int, default=1, help="trajectories a user")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where files go [the system's folder for temporary files]")
    parser.add_argument("--quick", action="store_true", help="500 and 2,000 users, 200 items")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.users, options.items, options.steps = [500, 2000], 200, 20
    if options.one:
        print(json.dumps(measure(options)))
        return 0
    machine = describe_machine()
    results = []
    for users in options.users:
        results.append(_alone(users, options))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(f"## A round within {options.memory}, {options.items:,} items, {options.threads} threads\n")
    print("\n".join(f"- {key}: {value}" for key, value in machine.items()))
    print("\n".join(["", *table(results)]))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "sizes": results}, indent=2) + "\n")
    return 0


def _alone(users: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own; one that is over its limit ends in an error."""
    command = [sys.executable, "-m", "benchmarks", "streaming", "--one", str(users), "--memory", options.memory]
    for name in ("items", "length", "steps", "dim", "m", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--folder", str(options.folder)] if options.folder else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@dataclass
class Phase:
    """What a part of the run took; peak in bytes."""

    name: str
    seconds: float
    cpu_seconds: float
    peak: int


class Phases:
    """Parts of the run, told apart by what it reports."""

    def __init__(self) -> None:
        self.done: list[Phase] = []
        self._begin()

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._since = time.perf_counter(), time.process_time()

    def ends(self, name: str) -> None:
        from rsir.runtime.memory import peak

        wall, processor = self._since
        self.done.append(Phase(name, time.perf_counter() - wall, time.process_time() - processor, peak()))
        print(self.done[-1], file=sys.stderr, flush=True)
        self._begin()

    def progress(self, phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
        before = {"round 0 train": "split and data file", "round 1 train": "generation"}.get(phase)
        if before is not None and before not in [entry.name for entry in self.done]:
            self.ends(before)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One round; -> phases, and what came of it."""
    import torch

    from rsir.config import GenerationConfig, ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig
    from rsir.data.load import load_data
    from rsir.recursion.loop import recurse
    from rsir.runtime.memory import memory_limit, parse

    torch.set_num_threads(options.threads)
    limit = parse(options.memory)
    config = RecursionConfig(
        rounds=1,
        retention="none",
        simulation=SimulationConfig(options.one, options.items, options.length),
        model=ModelConfig("sasrec", dim=options.dim, layers=1, feedforward=2 * options.dim),
        training=TrainingConfig(evaluate_every=options.steps, max_evaluations=1),
        generation=GenerationConfig(m=options.m),
    )
    phases = Phases()
    with tempfile.TemporaryDirectory(dir=options.folder) as name, memory_limit(limit, Path(name)):
        data = load_data(config)
        phases.ends("simulation")
        run = recurse(
            config,
            data=data,
            out=Path(name) / "run",
            runtime=Runtime(threads=options.threads, progress=phases.progress),
            on_round=lambda result: phases.ends("successor" if result.round else "base"),
        )
        size = sum(path.stat().st_size for path in (Path(name) / "run").rglob("*") if path.is_file())
    highest = max(phase.peak for phase in phases.done)
    if highest > limit:
        raise SystemExit(f"the process took {highest:,} bytes, over the limit of {limit:,}")
    last = run.rounds[-1]
    return {
        "users": options.one,
        "interactions": data.num_interactions,
        "generated": last.generated,
        "acquired": last.acquired,
        "tokens": last.tokens,
        "folder": size,
        "peak": highest,
        "limit": limit,
        "phases": [asdict(phase) for phase in phases.done],
    }


def table(results: list[dict[str, Any]]) -> list[str]:
    """Markdown: a row for each phase of each size, and exponents of growth."""
    head = ["users", "phase", "seconds", "processor-seconds", "users/s", "peak MiB"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for result in results:
        whole = {name: sum(phase[name] for phase in result["phases"]) for name in ("seconds", "cpu_seconds")}
        for phase in [*result["phases"], {"name": "**all**", "peak": result["peak"], **whole}]:
            times = f"{phase['seconds']:,.1f} | {phase['cpu_seconds']:,.1f} | {result['users'] / phase['seconds']:,.0f}"
            lines.append(f"| {result['users']:,} | {phase['name']} | {times} | {phase['peak'] / 2**20:,.0f} |")
    lines.append("")
    for result in results:
        rate = {phase["name"]: phase["seconds"] for phase in result["phases"]}["generation"]
        lines.append(
            f"- {result['users']:,} users, {result['interactions']:,} interactions: {result['generated']:,} "
            f"trajectories generated ({result['generated'] / rate:,.0f}/s), {result['acquired']:,} kept; peak "
            f"{result['peak'] / 2**20:,.0f} of {result['limit'] / 2**20:,.0f} MiB; {result['folder'] / 2**20:,.0f} MiB "
            "in the run's folder."
        )
    if len(results) > 1:
        sizes = np.log([result["users"] for result in results])
        processor = [sum(phase["cpu_seconds"] for phase in result["phases"]) for result in results]
        time_, memory = (
            np.polyfit(sizes, np.log(values), 1)[0] for values in (processor, [result["peak"] for result in results])
        )
        lines.append(f"- Growth with users: processor time ^{time_:.2f}, peak memory ^{memory:.2f}.")
    return lines

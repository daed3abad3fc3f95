"""Two processes of one run against one, a thread each: generation and evaluation on Amazon Toys, a tenth of it, and
five copies of it: a second or less of work, as one copy is, shows what starts and ends with each process.

Both take turns; while one process works alone, the other waits. They must give the same bytes, or there is no figure.
Two processes include what they send each other. With --cpu-time a time is the processor seconds of all
processes over their number: the time they would take if none waited for a processor or for another process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial as bound
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from rsir.config import FidelityConfig, GenerationConfig
from rsir.data import Sequences, leave_one_out
from rsir.data.splits import Split
from rsir.evaluation import evaluate
from rsir.generation.fidelity import build
from rsir.generation.generate import generate
from rsir.runtime.launch import join
from rsir.runtime.resume import Checkpointer
from rsir.runtime.runtime import Runtime
from rsir.runtime.world import ALONE, World

from . import toys
from .harness import Figure, Report, describe_machine

PROCESSES = 2
ROUND = 1
TAU, P, M = 10, 0.5, 5
COPIES = 5
END = "end"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks distributed", description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="the model is trained for")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--rounds", type=int, default=5, help="turns that are timed")
    parser.add_argument("--quick", action="store_true", help="400 simulated users, one epoch, one turn")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a machine that others use, too")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs, options.rounds = 1, 1

    torch.set_num_threads(options.threads)
    machine = describe_machine()
    data, described = toys.load(options.quick)
    _, _, of_model = toys.trained(data, options.epochs)  # once, before the others want it
    report = Report("Two processes against one", {**machine, "data": described, "model": of_model})
    with (
        tempfile.TemporaryDirectory() as folder,
        _meeting(options.quick, options.epochs, options.threads, folder) as world,
    ):
        tasks = _Tasks(options.quick, options.epochs, options.threads, Path(folder))
        for task in tasks.kinds:
            figures, note = _compared(tasks, task, world, options.rounds, options.cpu_time)
            report.figures += figures
            report.notes.append(note)
        world.broadcast_object(lambda: END)
    if options.cpu_time:
        report.notes.append("- Times are processor seconds of all processes over their number, not the clock's.")
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


@dataclass(frozen=True)
class _Result:
    """How much was done, in which unit, and all that must be the same, which is not timed."""

    work: int
    unit: str
    facts: Callable[[], Any]


class _Tasks:
    """What is timed: the same in every process."""

    def __init__(self, quick: bool, epochs: int, threads: int, folder: Path) -> None:
        self.folder, self.threads = folder, threads
        data, _ = toys.load(quick)
        self.model, whole, _ = toys.trained(data, epochs)
        tenth = leave_one_out(data.select(np.arange(len(data) // 10)))
        copies = leave_one_out(Sequences.from_lists([row for _ in range(COPIES) for row in data], data.num_items))
        self.policy = build(FidelityConfig(tau=TAU), self.model.item_embeddings().detach(), ROUND)
        self.kinds: dict[str, Callable[[World], _Result]] = {
            "generation": bound(self.generation, whole),
            "evaluation": bound(self.evaluation, whole),
            "generation for a tenth": bound(self.generation, tenth),
            "evaluation of a tenth": bound(self.evaluation, tenth),
            "generation for five copies": bound(self.generation, copies),
            "evaluation of five copies": bound(self.evaluation, copies),
        }

    def generation(self, parts: Split, world: World) -> _Result:
        name = world.broadcast_object(lambda: tempfile.mkdtemp(dir=self.folder))
        found = generate(
            self.model,
            parts.train,
            GenerationConfig(p=P, m=M, k=1),
            self.policy,
            seed=toys.SEED,
            round_=ROUND,
            checkpointer=Checkpointer(Path(name), lambda *_, **__: None, world=world),
            runtime=Runtime(threads=self.threads, world=world),
        )
        return _Result(
            found.stats.decoded, "trajectories/s", lambda: (found.trajectories.to_bytes(), *astuple(found.stats))
        )

    def evaluation(self, parts: Split, world: World) -> _Result:
        tasks = parts.validation
        found = evaluate(self.model, tasks, runtime=Runtime(threads=self.threads, world=world))
        return _Result(len(tasks), "users/s", lambda: (found.metrics, found.ranks.tolist()))


def _compared(tasks: _Tasks, task: str, world: World, rounds: int, cpu_time: bool) -> tuple[list[Figure], str]:
    """Time one kind of task by all processes and by this one alone, in turns, when both have given the same."""
    run = tasks.kinds[task]
    alone = run(ALONE)
    work, unit = alone.work, alone.unit
    if _all(world, task, run).facts() != alone.facts():
        raise SystemExit(f"{task}: {PROCESSES} processes give something else than one")
    names = [f"{PROCESSES} processes", "one process"]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        clock, spent = time.perf_counter(), time.process_time()
        _all(world, task, run)
        others = torch.zeros(1, dtype=torch.float64)
        world.all_reduce(others)  # their processor time
        both = (time.process_time() - spent + float(others)) / PROCESSES if cpu_time else time.perf_counter() - clock
        clock, spent = time.perf_counter(), time.process_time()
        run(ALONE)
        one = time.process_time() - spent if cpu_time else time.perf_counter() - clock
        if turn > 0:  # the first warms up
            times[names[0]].append(both)
            times[names[1]].append(one)
    figures = []
    for name in names:
        own = sorted(times[name])
        figures.append(
            Figure(
                case=f"{task}, {work:,}",
                contender=name,
                threads=tasks.threads,
                median_ms=median(own) * 1e3,
                low_ms=own[len(own) // 4] * 1e3,
                high_ms=own[(3 * len(own)) // 4] * 1e3,
                times_slower=median(a / b for a, b in zip(times[name], times[names[0]], strict=True)),
                rate=work / median(own),
                unit=unit,
            )
        )
    return figures, f"- {task}: {PROCESSES} processes and one gave the same bytes."


def _all(world: World, task: str, run: Callable[[World], _Result]) -> _Result:
    world.broadcast_object(lambda: task)
    return run(world)


def _other(rank: int, environment: dict[str, str], quick: bool, epochs: int, threads: int, folder: str) -> None:
    """Another process: does what the first one names."""
    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(threads)
    world = join()
    tasks = _Tasks(quick, epochs, threads, Path(folder))
    seen: set[str] = set()
    while (task := world.broadcast_object(lambda: END)) != END:
        spent = time.process_time()
        tasks.kinds[task](world)
        if task in seen:  # the first time is the check
            world.all_reduce(torch.tensor([time.process_time() - spent], dtype=torch.float64))
        seen.add(task)
    world.close()


@contextmanager
def _meeting(quick: bool, epochs: int, threads: int, folder: str) -> Iterator[World]:
    """This process as the first of several, and the others at their work."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(PROCESSES)}
    environment["TMPDIR"] = tempfile.gettempdir()  # where the model is
    spawn, before = multiprocessing.get_context("spawn"), dict(os.environ)
    arguments = (environment, quick, epochs, threads, folder)
    others = [spawn.Process(target=_other, args=(rank, *arguments), daemon=True) for rank in range(1, PROCESSES)]
    for other in others:
        other.start()
    try:
        os.environ |= environment | {"RANK": "0", "LOCAL_RANK": "0"}
        world = join()
    finally:
        os.environ.clear()
        os.environ.update(before)
    yield world
    world.close()
    for other in others:
        other.join()

"""Kills one of two processes of a run at random points; started again, the run must end as the one nobody killed.

``python -m tests.harness kill_ranks --kills 20 --seed 0``. What torchrun does is done here by forking: when a process
ends, the other one is stopped, and both start again, told by the environment that it is for another time. Half of the
kills come at a random time, half within a write of the process that is killed. Every step and trajectory is saved at
once.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rsir.cli import main as command
from tests.harness import (
    ranks,
    tiny,
)
from tests.harness.kill import INSIDE_WRITES, kill_at, where

PROCESSES = 2
MOST_RESTARTS = 5
WRITES = 60
"""Calls of write, fsync and rename of which one is chosen; a process that makes fewer is killed at a time instead."""


def attempt(folder: Path, output: Path, number: int, doomed: Callable[[int], None] = lambda rank: None) -> list[int]:
    """Start both processes for the n-th time, the command line the same each time; -> their exit statuses."""

    def work(rank: int) -> int:
        doomed(rank)
        with tiny.saving_always():
            return command.main([*tiny.OPTIONS, "--out", str(folder)])

    return ranks.together(work, PROCESSES, output, attempt=number, restarts=MOST_RESTARTS)


def killing(rank: int, draw: random.Random, seconds: float, note: Path) -> Callable[[int], None]:
    """What a process does first for the one of this rank to be killed."""
    inside, delay = draw.random() < 0.5, draw.uniform(0, seconds)
    call, number, done = draw.choice(INSIDE_WRITES), draw.randint(1, WRITES), draw.random() < 0.5

    def doomed(own: int) -> None:
        if own != rank:
            return
        if inside:
            kill_at(call, number, done, note)
        else:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    return doomed


def harness(kills: int, seed: int, report: Callable[[str], None] = print) -> None:
    """Kill that many times; AssertionError at the first difference."""
    draw = random.Random(seed)
    points: collections.Counter[str] = collections.Counter()
    places: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder, output, note, runs = scratch / "run", scratch / "output", scratch / "note", 0
        with tiny.saving_always(), tiny.quiet():
            assert tiny.start(scratch / "warm", resume=False) == 0  # loads, and compiles what is compiled at first use
        began = time.perf_counter()
        statuses = attempt(scratch / "whole", output, 0)
        seconds = time.perf_counter() - began
        assert statuses == [0, 0], output.read_text()
        expected = tiny.contents(scratch / "whole")
        while points.total() < kills:
            shutil.rmtree(folder, ignore_errors=True)
            runs, number, statuses = runs + 1, 0, [1]
            while any(statuses):
                rank, doomed = draw.randrange(PROCESSES), None
                if points.total() < kills and number < MOST_RESTARTS and (number == 0 or draw.random() < 1 / 3):
                    note.unlink(missing_ok=True)
                    doomed = killing(rank, draw, seconds, note)
                output.unlink(missing_ok=True)
                statuses = attempt(folder, output, number, doomed or (lambda rank: None))
                if statuses[rank] == -signal.SIGKILL and doomed is not None:
                    points[f"rank {rank}, {'within a write' if note.exists() else 'at a random time'}"] += 1
                    places[where(folder)] += 1
                else:
                    assert not any(statuses), f"seed {seed}, run {runs}: {statuses} {output.read_text()}"
                number += 1
            found = tiny.contents(folder)
            differing = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
            values = [_values(scratch / "whole", differing) ^ _values(folder, differing)]
            assert not differing, f"seed {seed}, run {runs}: other files than without a kill: {differing} {values}"
            report(f"{points.total():12}  kills in {runs} runs: files identical")
    for title, counter in (("point", points), ("place", places)):
        for key, count in sorted(counter.items()):
            report(f"{title:6} {count:5}  {key}")
    report(f"{kills} of {kills} kills of one of {PROCESSES} processes survived in {runs} runs: files identical")


def _values(folder: Path, names: list[str]) -> set[str]:
    """What the metrics among these files hold."""
    files = [json.loads((folder / name).read_bytes()) for name in names if Path(name).name == "metrics.json"]
    return {f"{key}: {value}" for file in files for key, value in file.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    harness(options.kills, options.seed, lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Kills runs at random points and resumes them: every one must end as the one that nobody killed.

``python -m tests.harness kill --kills 200 --seed 0``. Half of the kills come from outside at a random time. The others
come at a chosen moment within a write (of half a file's bytes, before or after fsync and rename) or within a removal;
a third of the resumed runs are killed again. The small run saves at every step, so that writes are everywhere.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.tiny import ROUNDS, begun, calls_and_contents, contents, fork, saving_always, start, wait

INSIDE_WRITES, REMOVALS = ("write", "fsync", "replace"), ("unlink", "rmdir")


def kill_at(name: str, number: int, done: bool, note: Path) -> None:
    """Let this process die within its n-th call of that name: of a write the half is done, of others all or nothing."""
    call, seen = getattr(os, name), 0

    def fatal(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen != number:
            return call(*arguments, **options)
        if name == "write":
            call(arguments[0], arguments[1][: len(arguments[1]) // 2])
        elif done:
            call(*arguments, **options)
        note.touch()
        return os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, name, fatal)


def kill_once(folder: Path, draw: random.Random, counts: dict[str, int], seconds: float, inside: bool) -> str | None:
    """Start or resume a run and kill it; -> where, None if it ended before."""
    note, output = folder.parent / "note", folder.parent / "output"
    note.unlink(missing_ok=True)
    kind = draw.choice((*INSIDE_WRITES, *INSIDE_WRITES, *REMOVALS))
    number, done = draw.randint(1, counts[kind]), draw.random() < 0.5

    def work() -> int:
        if inside:
            kill_at(kind, number, done, note)
        with saving_always():
            return start(folder, resume=begun(folder))

    child = fork(work, output)
    if not inside:
        time.sleep(draw.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    status = wait(child)
    if status == -signal.SIGKILL:
        return f"in {kind}" if note.exists() else "at a random time"
    assert status == 0, output.read_text()
    return None


def where(folder: Path) -> str:
    """What a killed run was at, as its folder shows."""
    if not begun(folder):
        return "before the run began"
    done = len(list(folder.glob("round-*/DONE")))
    if done == ROUNDS:
        return "after the last round"
    kinds = {path.name.partition("-")[0] for path in folder.glob(f"round-{done:02d}/partial/*")}
    files = [path for path in folder.glob(f"round-{done:02d}/*") if path.name != "partial"]
    phase = "finishing" if files else "training" if "training" in kinds else "generating" if kinds else "beginning"
    return f"round {done}, {phase}"


def harness(kills: int, seed: int, report: Callable[[str], None] = print) -> None:
    """Kill that many times; AssertionError at the first difference."""
    draw = random.Random(seed)
    points: collections.Counter[str] = collections.Counter()
    places: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        counts, seconds, expected = calls_and_contents(scratch)
        folder, output, runs = scratch / "run", scratch / "output", 0
        while points.total() < kills:
            shutil.rmtree(folder, ignore_errors=True)
            runs += 1
            again = True
            while again and points.total() < kills:
                point = kill_once(folder, draw, counts, seconds, inside=points.total() % 2 == 0)
                if point is None:
                    break
                points[point] += 1
                places[where(folder)] += 1
                again = draw.random() < 1 / 3
            status = wait(fork(lambda: start(folder, resume=begun(folder)), output))
            assert status == 0, f"seed {seed}, run {runs}: {output.read_text()}"
            found = contents(folder)
            differing = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
            assert not differing, f"seed {seed}, run {runs}: other files than without a kill: {differing}"
    inside = sum(points[f"in {call}"] for call in INSIDE_WRITES)
    for title, counter in (("point", points), ("place", places)):
        for key, count in sorted(counter.items()):
            report(f"{title:6} {count:5}  {key}")
    report(
        f"{kills} of {kills} kills survived ({inside} inside writes) in {runs} runs: files identical, none left over"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    harness(options.kills, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

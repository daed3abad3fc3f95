"""``rsir update`` week by week, against runs from scratch on all events: processor seconds, and quality of both.

The last weeks of a log are taken off it. A run learns the rest; then each week's events are added by an update of the
run from the week before, and beside it a run from scratch learns all events so far. Both are evaluated on the same
held-out events. Finished runs in ``--out`` are not made again.

Where a log has only an order of each user's events, a clock stands in: users begin at times drawn evenly, and their
events follow each other at even distances over half of the log's time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rsir
from benchmarks.harness import describe_machine
from rsir import files
from rsir.config import SimulationConfig
from rsir.data import Sequences, simulate
from rsir.evaluation import mean_interval
from rsir.runs.results import Run

_METRICS = (("validation", "ndcg@20"), ("test", "recall@10"), ("test", "ndcg@10"))
_DATA = Path(os.environ.get("RSIR_DATA", "../shared/data")) / "amazon-toys.txt"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks update", description=__doc__)
    parser.add_argument("--data", type=Path, default=_DATA)
    parser.add_argument("--weeks", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.05, help="of all events that a week has")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, help="so many of the log's, drawn at random [all]")
    parser.add_argument("--out", type=Path, help="folder of the runs [one that is removed at the end]")
    for which in ("run", "update"):
        what = f"settings of a {which}, as JSON"
        parser.add_argument(f"--{which}", nargs="*", default=[], metavar="NAME=VALUE", help=what)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="300 simulated users, trained for a moment")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.out is None:
        with tempfile.TemporaryDirectory() as folder:
            return main([*arguments, "--out", folder])
    given, changes = (
        {name: json.loads(value) for name, _, value in (one.partition("=") for one in those)}
        for those in (options.run, options.update)
    )
    settings: dict[str, Any] = {"rounds": options.rounds, "seed": options.seed, **given}
    if options.quick:
        log = simulate(SimulationConfig(num_users=300, num_items=150)).sequences
        settings |= {"training": {"max_evaluations": 2}, "fidelity": {"tau": 10}}
    else:
        log = rsir.read(options.data)
    if options.users is not None:
        log = log.select(np.sort(np.random.default_rng(options.seed).permutation(len(log))[: options.users]))
    print("## Updates against runs from scratch\n")
    for name, value in describe_machine().items():
        print(f"- {name}: {value}")
    timed = log.times is not None
    name, clock = "simulated" if options.quick else options.data.name, "its own" if timed else "a clock that stands in"
    print(f"- data: {name}, {log}; a week is {options.share:.0%} of it; times: {clock}")
    print(f"- runs: {settings}; updates besides: {changes}\n")
    log = log if timed else with_clock(log, options.seed)
    assert log.times is not None
    ends = np.quantile(log.times, [1 - options.share * week for week in range(options.weeks, -1, -1)])
    ends[-1] = log.times.max()
    first = _between(log, None, ends[0])
    run, seconds = made(options.out / "week-0", lambda out: rsir.run(data=first, out=out, **settings))
    print("| week | events | users | items | way | CPU s | validation NDCG@20 | test Recall@10 | test NDCG@10 |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(row(0, run, "from scratch", seconds), flush=True)
    below = []
    for week in range(1, options.weeks + 1):
        new, before = _between(log, ends[week - 1], ends[week]), run
        run, spent = made(options.out / f"week-{week}", lambda out: before.update(new, out, **changes))  # noqa: B023
        print(row(week, run, "update", spent), flush=True)
        data = run.data
        scratch, seconds = made(options.out / f"scratch-{week}", lambda out: rsir.run(data=data, out=out, **settings))  # noqa: B023
        print(row(week, scratch, "from scratch", seconds), flush=True)
        below += [f"| {week} | {seconds / spent:.1f} | {' | '.join(compared(run, scratch))} |"]
    print(
        "\n| week | scratch / update, CPU | update less scratch: validation NDCG@20 | test Recall@10 | test NDCG@10 |"
    )
    print("|---|---|---|---|---|")
    print("\n".join(below))
    print("\nDifferences in percent of the run from scratch, with 95% intervals over users.")
    return 0


def with_clock(log: Sequences, seed: int) -> Sequences:
    """A log with times that keep each user's order: begun at times drawn evenly, over half of the log's time."""
    lengths = log.lengths
    begins = np.random.default_rng(seed).uniform(size=len(log))
    place = np.arange(log.items.size) - np.repeat(log.offsets[:-1], lengths)
    share = (place + 0.5) / np.repeat(np.maximum(lengths, 1), lengths)
    return dataclasses.replace(log, times=((np.repeat(begins, lengths) + share / 2) * 1e6).astype(np.int64))


def _between(log: Sequences, after: float | None, until: float) -> Sequences:
    """The users and events of a time; items without an event are not of its catalogue."""
    assert log.times is not None
    kept = (log.times <= until) & (True if after is None else log.times > after)
    lists = log.lists.where(kept)
    users = np.flatnonzero(lists.lengths)
    items, places = np.unique(lists.values, return_inverse=True)
    names = np.arange(1, log.num_items + 1) if log.item_labels is None else log.item_labels.to_numpy(False)
    users_names = np.arange(1, len(log) + 1) if log.user_labels is None else log.user_labels.to_numpy(False)
    import pyarrow as pa

    return Sequences(
        items=(places + 1).astype(np.int32),
        offsets=np.append(0, np.cumsum(lists.lengths[users])),
        num_items=items.size,
        times=log.times[kept],
        item_labels=pa.array(names[items - 1]),
        user_labels=pa.array(users_names[users]),
    )


def made(folder: Path, make: Callable[[Path], Run]) -> tuple[Run, float]:
    """A run, made or read back, and the processor seconds that it took."""
    note = folder.with_suffix(".json")
    if not note.exists():
        began = time.process_time()
        make(folder)
        files.replace(note, files.to_json({"seconds": time.process_time() - began}))
    return rsir.load(folder), float(files.read_json(note)["seconds"])


def row(week: int, run: Run, way: str, seconds: float) -> str:
    best = run.rounds[run.best]
    values = " | ".join(f"{getattr(best, part)[metric]:.4f}" for part, metric in _METRICS)
    sizes = " | ".join(f"{size:,}" for size in (run.data.num_interactions, len(run.data), run.data.num_items))
    return f"| {week} | {sizes} | {way} | {seconds:,.0f} | {values} |"


def compared(run: Run, other: Run) -> list[str]:
    """By metric the difference of two runs on the same data, in percent of the other, with its interval."""
    cells = []
    for part, metric in _METRICS:
        ours, theirs = (rsir.evaluate(one, part=part).gains(metric) for one in (run, other))  # type: ignore[arg-type]
        difference = (100 * value / theirs.mean() for value in mean_interval(ours - theirs))
        cells.append("{:+.1f}% ({:+.1f} to {:+.1f})".format(*difference))
    return cells


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

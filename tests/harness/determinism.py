"""The same run at several numbers of threads and slots, and a second time: its files must be the same, to the byte.

``python -m tests.harness determinism``: weights, trajectories and metrics of every round. SASRec, whose ops are fused,
gives the same weights at any number of threads; the other backbones are held to the same number of threads.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from rsir.cli import main as recurse
from rsir.models import names
from tests.harness import tiny

COMPARED = ("model.safetensors", "trajectories.parquet", "metrics.json")
USERS = 300  # enough for several threads to have something to do


def one_run(scratch: Path, model: str, threads: int, slots: int) -> dict[str, str]:
    """SHA-256 of the files that are compared, by name."""
    folder, output = scratch / "run", scratch / "output"
    shutil.rmtree(folder, ignore_errors=True)
    changed = ("--model", model, "--generation.slots", str(slots), "--simulation.num_users", str(USERS))

    def work() -> int:
        torch.set_num_threads(threads)
        return recurse.main([*tiny.OPTIONS, *changed, "--out", str(folder)])

    assert tiny.wait(tiny.fork(work, output)) == 0, output.read_text()
    return {name: value for name, value in tiny.contents(folder).items() if name.endswith(COMPARED)}


def harness(
    models: Sequence[str], threads: Sequence[int], slots: Sequence[int], report: Callable[[str], None] = print
) -> None:
    """AssertionError at the first run whose files differ."""
    with tempfile.TemporaryDirectory() as scratch:
        for model in models:
            found: dict[int, dict[str, str]] = {}
            cases = [*itertools.product(threads, slots), (threads[0], slots[0])]
            for count, size in cases:
                hashes = one_run(Path(scratch), model, count, size)
                first = found.setdefault(0 if model == "sasrec" else count, hashes)
                differing = sorted(name for name in hashes if hashes[name] != first[name])
                assert hashes.keys() == first.keys(), f"{model}: {count} threads, {size} slots: other files"
                assert not differing, f"{model}: {count} threads, {size} slots: other bytes in {differing}"
            alike = "at any number of threads" if model == "sasrec" else "at the same number of threads"
            files = len(next(iter(found.values())))
            report(f"{model}: {len(cases)} runs, the same bytes in all {files} files {alike}")
    shown = ", ".join(map(str, threads)), ", ".join(map(str, slots))
    report(f"{len(models)} backbones at {shown[0]} threads and {shown[1]} slots: every repetition identical")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=names())
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 48, 2048])
    options = parser.parse_args()
    harness(options.models, options.threads, options.slots)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make the page of a run again, or one that compares several: ``rsir report RUN [RUN ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rsir import files
from rsir.errors import RunError
from rsir.report.comparison import comparison
from rsir.report.page import REPORT, page
from rsir.runs.directory import MANIFEST, RunDirectory
from rsir.runs.results import read_data, read_round

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """The command; returns the exit status: 0, or 2 where a run cannot be read."""
    parser = argparse.ArgumentParser(prog="rsir report", description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, finished or not")
    parser.add_argument(
        "--out", metavar="FILE", help=f"page to write [RUN/{REPORT}; of several runs: comparison.html here]"
    )
    options = parser.parse_args(arguments)
    runs = [Path(run) for run in options.runs]
    file = Path(options.out or (runs[0] / REPORT if len(runs) == 1 else "comparison.html"))
    try:
        opened = [_open(run) for run in runs]
        rounds = [
            [read_round(directory, number) for number in range(directory.finished_rounds())] for directory in opened
        ]
        for directory, finished in zip(opened, rounds, strict=True):
            if not finished:
                raise RunError(f"{directory.path}: no round is finished yet, so there is nothing to show")
        if len(runs) == 1:
            content = page(opened[0], read_data(opened[0]), rounds[0])
        else:
            whole = zip(opened, rounds, strict=True)
            content = comparison([(one.path, one.config, one.data, finished) for one, finished in whole])
        files.replace(file, content.encode())
    except RunError as error:
        print(f"rsir: error: {error}", file=sys.stderr)
        return 2
    print(file)
    return 0


def _open(run: Path) -> RunDirectory:
    if not (run / MANIFEST).exists():
        raise RunError(f"{run}: holds no run: there is no {MANIFEST} in it")
    return RunDirectory.open(run)

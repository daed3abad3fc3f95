"""``rsir report RUN [RUN ...]``: the page of a run, one page that compares several, or a plot."""

from __future__ import annotations

from pathlib import Path

from rsir import files
from rsir.cli.parsing import Parser, run_place
from rsir.data.io.items import read_titles
from rsir.data.load import split
from rsir.errors import ConfigError, RunError
from rsir.objects.address import Address
from rsir.objects.storage import Storage
from rsir.report.comparison import comparison
from rsir.report.page import REPORT, Report
from rsir.report.plot import plot_rounds
from rsir.runs.baselines import read_baselines
from rsir.runs.directory import RunDirectory, here
from rsir.runs.inputs import read_data
from rsir.runs.layout import MANIFEST
from rsir.runs.rounds import RoundResult, read_round
from rsir.runs.store import Follower

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("report", "Write the page of a run, one page that compares several runs, or a plot of a run.")
    made.add_argument(
        "runs", metavar="RUN", nargs="+", type=run_place, help="folder or address of a run, finished or not"
    )
    made.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help=f"page to write [RUN/{REPORT}; of several runs: comparison.html here]",
    )
    made.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="write a plot of the run's rounds (.svg, .png or .pdf) in place of the page; needs rsir[plots]",
    )
    return made


def main(arguments: list[str]) -> int:
    """Run the command; 0 if the file was written."""
    options = parser().parse_args(arguments)
    if options.plot is not None:
        return _plot(options.runs, options.plot, options.out)
    runs: list[Path | Address] = options.runs
    file = options.out or (runs[0] / REPORT if len(runs) == 1 else Path("comparison.html"))
    opened = [_open(run) for run in runs]
    rounds = [[read_round(directory, number) for number in range(directory.finished_rounds())] for directory in opened]
    for directory, finished in zip(opened, rounds, strict=True):
        if not finished:
            raise RunError(f"{directory.path}: no round is finished yet, so there is nothing to show")
    if len(runs) == 1:
        content = _page(opened[0], rounds[0])
    else:
        whole = zip(opened, rounds, strict=True)
        content = comparison([(one.path, one.config, one.data, finished) for one, finished in whole])
    if isinstance(file, Address):
        Storage(file).write("", content.encode())
    else:
        files.replace(file, content.encode())
    print(file)
    return 0


def _page(directory: RunDirectory, rounds: list[RoundResult]) -> str:
    data, store = read_data(directory), Follower(directory)
    train = split(data, directory.config.data, directory.config.seed).train
    titles = read_titles(directory.path, data.num_items)
    report = Report(directory.config, data, train, read_baselines(directory), titles)
    for result in rounds:
        report.add(result, store.trajectories(result.round) if result.round > 0 else None)
    return report.page(directory.path.resolve().name, store.environment())


def _plot(runs: list[Path | Address], file: Path, page: Path | None) -> int:
    if len(runs) > 1 or page is not None:
        got = "--out" if page is not None else f"{len(runs)} runs"
        raise ConfigError(f"--plot: draws one run and writes no page, got {got}; run the command once for each file")
    plot_rounds(_open(runs[0]).path, file)
    print(file)
    return 0


def _open(run: Path | Address) -> RunDirectory:
    folder = here(run)
    if not (folder / MANIFEST).exists():
        raise RunError(f"{run}: holds no run: there is no {MANIFEST} in it")
    return RunDirectory.open(folder)

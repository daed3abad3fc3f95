"""What a run's folder holds and whether it is whole: ``rsir inspect RUN``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rsir.cli.show import cut_short, rounds_table, verdict
from rsir.errors import ConfigError, RunError
from rsir.runs.directory import ENVIRONMENT, MANIFEST, RunDirectory

if TYPE_CHECKING:
    from rsir.runs.results import RoundResult

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Print the rounds, the best one, settings, data and versions of a run, and the state of its files.

    Returns
    -------
    int
        Exit status: 0 every file is as it was written, 1 some are not, 2 there is no run that can be read.
    """
    parser = argparse.ArgumentParser(
        prog="rsir inspect", description="Print what a run has come to and whether its files are whole."
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, finished or interrupted")
    run = Path(parser.parse_args(arguments).run)
    try:
        if not (run / MANIFEST).exists():
            raise RunError(f"{run}: holds no run: there is no {MANIFEST} in it")
        directory = RunDirectory.open(run)
    except (RunError, ConfigError) as error:
        print(f"rsir: error: {error}", file=sys.stderr)
        return 2
    from rsir.errors import DataError
    from rsir.report.page import changed, shown
    from rsir.runs.results import best_round, is_over, read_data, read_round

    damage = directory.damage()
    rounds: list[RoundResult] = []
    for number in directory.done_rounds():
        try:
            rounds.append(read_round(directory, number))
        except (RunError, KeyError, TypeError):
            break  # one that is damaged or missing; said above
    try:
        data = read_data(directory)
        found = f"{len(data):,} users, {data.num_items:,} items, {data.num_interactions:,} interactions"
    except (RunError, DataError) as error:
        found = "cannot be read"
        damage.append(str(error))
    config = directory.config
    over = bool(rounds) and is_over(config, rounds)
    if rounds:
        best, asked = best_round(rounds), config.rounds if over else len(rounds) - 1
        print(rounds_table(rounds, best), verdict(rounds, best, asked, guard=config.guard), sep="\n\n")
        print(cut_short(rounds, config.training), end="")
    if not over:
        so_far = f"{len(rounds) - 1} of {config.rounds} rounds after the base" if rounds else "no round is finished yet"
        print(f"Unfinished: {so_far}. Go on: rsir --out {shlex.quote(str(run))} --resume")
    print(f"\nData:     {config.data.path or 'given or simulated'}: {found}; fingerprint {directory.data[:16]}")
    differing = [f"  {name} {shown(value)} [{shown(default)}]" for name, (value, default) in changed(config).items()]
    print("\n".join(["Settings: other than the [defaults]", *differing] if differing else ["Settings: the defaults"]))
    try:
        versions = directory.read_json(ENVIRONMENT)
    except RunError as error:
        versions = {}
        damage.append(str(error))
    print("Versions: " + ", ".join(f"{name} {value}" for name, value in versions.items()))
    if damage:
        print("Files:    damaged\n  " + "\n  ".join(damage))
        return 1
    print("Files:    every checksum holds")
    return 0

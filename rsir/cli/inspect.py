"""``rsir inspect RUN``: what a run's folder holds, and whether its files are whole."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rsir.cli.parsing import Parser, run_place
from rsir.cli.show import cut_short, rounds_table, verdict
from rsir.config import as_text, changed
from rsir.errors import DataError, RunError
from rsir.objects.address import as_given
from rsir.runs.directory import RunDirectory, here
from rsir.runs.layout import ENVIRONMENT, MANIFEST, REFIT

if TYPE_CHECKING:
    from rsir.runs.rounds import RoundResult

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("inspect", "Print a run's rounds, settings and data, and check its files.")
    made.add_argument("run", metavar="RUN", type=run_place, help="folder or address of a run, finished or interrupted")
    return made


def main(arguments: list[str]) -> int:
    """Print the rounds, the best one, settings, data and versions of a run, and the state of its files.

    Returns
    -------
    int
        Exit status: 0 every file is as it was written, 1 some are not.
    """
    given = parser().parse_args(arguments).run
    run = here(given)
    if not (run / MANIFEST).exists() and not (run / REFIT).exists():
        raise RunError(f"{given}: holds no run: there is no {MANIFEST} in it")
    directory = RunDirectory.open(run)
    from rsir.runs.ancestry import read_lineage
    from rsir.runs.baselines import read_baselines, remarks, said_of_the_search
    from rsir.runs.inputs import read_data
    from rsir.runs.layout import DATA
    from rsir.runs.rounds import best_round, is_over, read_round

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
        if rounds or (run / DATA).exists():
            found = "cannot be read"
            damage.append(str(error))
        else:
            found = "not written yet"
    config, lineage = directory.config, read_lineage(directory)
    over = bool(rounds) and is_over(config, rounds)
    if rounds:
        best, asked = best_round(rounds), config.rounds if over else len(rounds) - 1
        beside = read_baselines(directory)
        print(rounds_table(rounds, best, beside), verdict(rounds, best, asked, guard=config.guard), sep="\n\n")
        if searched := said_of_the_search(rounds, beside, config.itemknn):
            print(f"Count:     {searched}")
        for sentence in remarks(rounds, beside):
            print(f"Note:      {sentence}")
        print(cut_short(rounds, config.training), end="")
    if not over:
        so_far = f"{len(rounds) - 1} of {config.rounds} rounds after the base" if rounds else "no round is finished yet"
        command = "rsir update RUN --data FILE" if lineage else "rsir"
        print(f"Unfinished: {so_far}. Resume: {command} --out {shlex.quote(str(given))} --resume")
    print(f"\nData:     {config.data.path or 'given or simulated'}: {found}; fingerprint {directory.data[:16]}")
    if lineage:
        print("Goes on:  from " + ", ".join(f"{one['run']} ({one['events']:,} events)" for one in reversed(lineage)))
    differing = [
        f"  {name} {as_text(value)} [{as_text(default)}]" for name, (value, default) in changed(config).items()
    ]
    print("\n".join(["Settings: other than the [defaults]", *differing] if differing else ["Settings: the defaults"]))
    try:
        versions = directory.read_json(ENVIRONMENT)
    except RunError as error:
        versions = {}
        damage.append(str(error))
    print("Versions: " + ", ".join(f"{name} {value}" for name, value in versions.items()))
    if damage:
        print("Files:    damaged\n  " + as_given("\n  ".join(damage)))
        return 1
    print("Files:    every checksum holds")
    return 0

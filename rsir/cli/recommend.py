"""``rsir recommend RUN``: the best items for every user as a file, or for some as a table."""

from __future__ import annotations

import dataclasses
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from rsir.cli.notes import notes
from rsir.cli.parsing import Parser, run_place
from rsir.data.io.readers import histories_config, read_histories, read_names
from rsir.errors import ConfigError, DataError
from rsir.runtime.environment import check_device

if TYPE_CHECKING:
    from rsir.data.io.events import Histories
    from rsir.runs.results import Run
    from rsir.serving.output import Recommendations
    from rsir.serving.recommender import Recommender

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("recommend", "Write the best items for every user of a run to a file, or print them for some.")
    made.add_argument("run", metavar="RUN", type=run_place, help="folder or address of the run")
    made.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help=".parquet, .csv or .jsonl, a row for each recommendation: user_id, item_id, rank, score, and by: "
        "model, or popularity where nothing is known of a history [a table on the screen, for --users or --history]",
    )
    made.add_argument("--k", type=int, default=10, metavar="N", help="items for each user [10]")
    made.add_argument("--users", nargs="+", metavar="ID", help="for these users alone, by what they have in the run")
    made.add_argument("--users-in", metavar="FILE", type=Path, help="for the users that this file names, a line each")
    made.add_argument(
        "--history", nargs="*", metavar="ITEM", help="after these items, oldest first; none: what is popular"
    )
    made.add_argument(
        "--histories",
        metavar="FILE",
        help="what users had, in any format that a run reads; the run's min_rating applies where it has ratings [the "
        "run's own users, held-out events included]",
    )
    for role in ("user", "item", "time"):
        made.add_argument(
            f"--{role}", metavar="COLUMN", help=f"column of the {role}s in FILE [as in the run, or found]"
        )
    made.add_argument(
        "--candidates",
        metavar="FILE",
        type=Path,
        help="recommend only what this file names: text with an item a line, or a table with a column of items",
    )
    made.add_argument("--exclude", metavar="FILE", type=Path, help="never recommend what this file names")
    made.add_argument(
        "--repeats",
        choices=("excluded", "included"),
        help="whether items that a user had already are recommended [as the run was evaluated: its data.repeats]",
    )
    made.add_argument("--round", type=int, metavar="N", help="the round that recommends [the best]")
    made.add_argument("--gpu", action="store_true", help="compute on a CUDA device")
    return made


def main(arguments: list[str]) -> int:
    """Run the command; 0 if the file was written."""
    options = parser().parse_args(arguments)
    from rsir.serving.output import check_name, left_out, recommendations, write
    from rsir.serving.recommender import check_request

    device = "cuda" if options.gpu else "cpu"
    check_device(device, "--gpu")
    _check_options(options)
    check_request(options.k, options.repeats or "excluded")
    if options.out is not None:
        check_name(options.out)
    from rsir.runs.results import load

    run = load(options.run, device=device)
    recommender = run.recommender(options.round)
    with notes():
        histories = _histories(options, run, recommender)
        candidates, exclude = (
            None if file is None else read_names(file, "item") for file in (options.candidates, options.exclude)
        )
    offer = recommender.offer(candidates, exclude)
    for sentence in left_out(histories, offer):
        print(f"rsir: note: {sentence}", file=sys.stderr)
    if options.out is None:
        _print(
            recommendations(
                recommender, histories, options.k, offer=offer, repeats=options.repeats, named=options.history is None
            )
        )
        return 0
    popular = write(options.out, recommender, histories, options.k, offer=offer, repeats=options.repeats)
    print(f"{options.out}: the best {options.k} items for {len(histories.users):,} users")
    if popular:
        print(f"Of {popular:,} of them nothing is known: they have the most popular items")
    return 0


def _check_options(options: Namespace) -> None:
    """Refuse options that exclude each other, and a screenful of every user."""
    ways = ("users", "users_in", "history", "histories")
    chosen = [f"--{name.replace('_', '-')}" for name in ways if getattr(options, name) is not None]
    if ("--history" in chosen and len(chosen) > 1) or {"--users", "--users-in"} <= set(chosen):
        raise ConfigError(f"{chosen[0]}: expected it without {chosen[1]}, got both")
    if options.out is None and not {"--users", "--history"} & set(chosen):
        raise ConfigError("rsir recommend: expected --out FILE, or --users ID or --history ITEM to print some")
    given = [f"--{role}" for role in ("user", "item", "time") if getattr(options, role) is not None]
    if given and options.histories is None:
        raise ConfigError(f"{given[0]}: names a column of --histories FILE, and none is given")


def _histories(options: Namespace, run: Run, recommender: Recommender) -> Histories:
    if options.history is not None:
        return recommender.histories([options.history])
    users = options.users if options.users_in is None else read_names(options.users_in, "user")
    if options.histories is None:
        return recommender.histories_of(users)
    columns = {role: getattr(options, role) for role in ("user", "item", "time") if getattr(options, role)}
    config = histories_config(options.histories, run.config.data, columns)
    histories = read_histories(options.histories, run.data, config)
    return histories if users is None else _some(histories, users, options.histories)


def _some(histories: Histories, users: list[object], path: Path) -> Histories:
    """The histories of some users of a file."""
    from rsir.serving.names import Names

    ids = Names("user", histories.users, len(histories.users)).ids(users)
    if not ids.all():
        raise DataError(f"{path}: has no user {users[int((ids == 0).argmax())]!r}")
    rows = ids - 1
    return dataclasses.replace(histories, users=histories.users.take(rows), lists=histories.lists.take(rows))


def _print(found: Recommendations) -> None:
    """A table, a recommendation a line."""
    from rsir.cli.table import lines

    table = found.table()
    names = [name for name in table.column_names if name != "history"]
    print("\n".join(lines([names, *([row[name] for name in names] for row in table.to_pylist())])))

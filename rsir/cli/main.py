"""The command line: ``rsir COMMAND ...``, or ``python -m rsir``."""

from __future__ import annotations

import sys
from importlib import import_module

from rsir.errors import RsirError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "run": "let a recommender improve itself (what `rsir --data FILE` does, too)",
    "inspect": "what a run has come to, and whether its files are whole",
    "recommend": "the best items for every user of a run, as a file",
    "export": "what a round was trained on, or the best model, for use elsewhere",
    "report": "the page of a run, one page that compares several, or a plot",
    "datasets": "public data sets: list and fetch them",
}
"""Every command and what it is for; each is the module of its name in :mod:`rsir.cli`, with a function ``main``."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process. Where the first is no command, all are options of ``run``.

    Returns
    -------
    int
        Exit status: 0 done, 1 ``inspect`` found damage, 2 options or data that cannot be used (nothing is written
        then), 3 another of several processes has ended, 130 or 143 interrupted by Ctrl-C or SIGTERM. Anything
        unexpected is raised.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in COMMANDS else ("run", arguments)
    try:
        status: int = import_module(f"rsir.cli.{command}").main(rest)
    except RsirError as error:
        print(f"rsir: error: {error}", file=sys.stderr)
        return 2
    return status

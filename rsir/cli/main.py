"""The command line: ``rsir COMMAND ...``, or ``python -m rsir``."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from pathlib import Path

from rsir.cli import plugins
from rsir.cli.commands import COMMANDS
from rsir.cli.terminal import lasting
from rsir.errors import ConfigError, RsirError, WorldError
from rsir.objects.address import as_given
from rsir.runtime.launch import join
from rsir.runtime.world import ALONE

__all__ = ["main"]

_SHOWS = {"--print-config", "--version"}
"""With these ``rsir run`` only prints."""

REASON = "say why the run ends"
"""One of several processes says it; the reasons of the others follow from its."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process. Where the first is an option, or there is none, the command is ``run``.
        ``--plugins FILE.py`` goes with every command and is taken off before it sees the others.

    Returns
    -------
    int
        Exit status: 0 done, 1 ``inspect`` found damage, 2 options or data that cannot be used (nothing is written
        then) or stdout that cannot be written, 3 another of several processes has ended, 130 or 143 interrupted by
        Ctrl-C or SIGTERM. Anything unexpected is raised. A run ends with its files, and with 0, wherever what it
        prints goes.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    with lasting() as (stdout, stderr):
        status = _main(arguments)
        stdout.flush()
        if stdout.failure is not None and not isinstance(stdout.failure, BrokenPipeError):
            cause = getattr(stdout.failure, "strerror", None) or stdout.failure
            of_run = status == 0 and _command(arguments)[0] == "run" and not _SHOWS & set(arguments)
            print(f"rsir: {'note' if of_run else 'error'}: stdout: cannot be written: {cause}", file=stderr)
            return status if of_run else status or 2
    return status


def _main(arguments: list[str]) -> int:
    world = ALONE
    try:
        arguments, files = plugins.take(arguments)
        for file in files:
            plugins.load(file)
        command, rest = _command(arguments)
        module = import_module(f"rsir.cli.{command}")
        status: int
        if command == "run":
            world = join()
            status = module.main(rest, world)
        else:
            status = module.main(rest)
        return status
    except RsirError as error:
        if world.first_to(REASON):
            print(f"rsir: error: {world.name}{as_given(str(error))}", file=sys.stderr)
        return 3 if isinstance(error, WorldError) else 2
    except KeyboardInterrupt:  # before or beside a run, which heeds signals itself
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command that the arguments name, and what is left of them."""
    if not arguments or arguments[0].startswith("-"):
        return "run", arguments
    first, *rest = arguments
    if first in COMMANDS:
        return first, rest
    later = next((word for word in rest if word in COMMANDS), None)
    if later is not None:
        others = " ".join(word for word in arguments if word != later)
        raise ConfigError(f"{later}: the command comes first: rsir {later} {others}")
    if "." in first or Path(first).exists():
        raise ConfigError(f"{first!r}: unexpected; options begin with --, as in --data {first}")
    near = difflib.get_close_matches(first, COMMANDS, n=1)
    hint = f"did you mean rsir {near[0]}?" if near else f"expected an option or one of {', '.join(COMMANDS)}"
    raise ConfigError(f"{first!r}: unknown command; {hint}")

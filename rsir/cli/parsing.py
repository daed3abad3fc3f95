"""The argument parser of every command: errors of one line, and ``-`` and ``_`` the same in an option's name."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rsir.config.changes import nearest
from rsir.errors import ConfigError, RunError
from rsir.objects.address import Address, place

__all__ = ["Parser", "run_place", "unknown_option"]


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError, and names the nearest option for one that it does not know.

    Parameters
    ----------
    command : str
        As typed after ``rsir``; "" for the command where none is named.
    description : str
    **options
        As for argparse.ArgumentParser.
    """

    def __init__(self, command: str, description: str, **options: Any) -> None:
        kind: Any = options.pop("formatter_class", argparse.HelpFormatter)
        super().__init__(
            prog=f"rsir {command}".rstrip(),
            description=description,
            allow_abbrev=False,
            formatter_class=lambda prog: kind(prog, max_help_position=28, width=_width()),
            **options,
        )

    @property
    def flags(self) -> list[str]:
        """Every option as typed."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required: "):
            missing = message.partition(": ")[2]
            raise ConfigError(f"{self.prog}: expected {missing}; {self.prog} --help shows how")
        message = message.removeprefix("argument ")
        wrong = re.fullmatch(r"(.*): invalid choice: (.*) \(choose from (.*)\)", message)
        if wrong is not None:
            choices = wrong[3].replace("'", "").split(", ")
            near = difflib.get_close_matches(wrong[2].strip("'"), choices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"{wrong[1]}: expected one of {', '.join(choices)}, got {wrong[2]}{hint}"
        raise ConfigError(message)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = None if args is None else [_as_known(word, self._option_string_actions) for word in args]
        return super().parse_known_args(words, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = unknown[0]
            if word.startswith("-"):
                raise ConfigError(f"{unknown_option(word, self.flags, f'{self.prog} --help')}")
            raise ConfigError(f"{word!r}: unexpected; {self.prog} --help shows what it takes")
        return found


def run_place(text: str) -> Path | Address:
    """The type of an argument that names a run: a folder, or an address such as ``s3://bucket/run``."""
    if "://" not in text:
        return Path(text)
    try:
        return place(text)
    except RunError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from cause


def unknown_option(word: str, known: list[str], listing: str) -> str:
    """What to say of an option that is not known."""
    name = word.partition("=")[0]
    near = nearest(name, known)
    return f"{name}: unknown option; " + (f"did you mean {near}?" if near else f"{listing} lists those there are")


def _as_known(word: str, known: Container[str]) -> str:
    """``--stop-after=3`` as ``--stop_after=3``, and ``--held_out`` as ``--held-out``, where that is an option."""
    name, equals, value = word.partition("=")
    if not name.startswith("--") or name in known:
        return word
    spelt = ("--" + name[2:].replace("-", "_"), "--" + name[2:].replace("_", "-"))
    found = next((other for other in spelt if other in known), name)
    return found + equals + value


def _width() -> int:
    try:
        return min(os.get_terminal_size().columns, 110)
    except OSError:
        return 100

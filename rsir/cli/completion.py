"""``rsir completion SHELL``: a script that completes commands, options and their values in bash or zsh."""

from __future__ import annotations

import argparse
import typing
from importlib import import_module
from typing import Any, Literal

from rsir.cli.commands import COMMANDS
from rsir.cli.kernels import ACTIONS
from rsir.cli.options import OPTIONS
from rsir.cli.parsing import Parser
from rsir.config.registry import Registry
from rsir.datasets import DATASETS

__all__ = ["main", "parser", "script"]

SHELLS = ("bash", "zsh")

_SCRIPT = """\
_rsir() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=run place=$COMP_CWORD
    COMPREPLY=()
    case ${{COMP_WORDS[1]}} in {commands}) [ "$COMP_CWORD" -gt 1 ] && command=${{COMP_WORDS[1]}};; esac
    case "$command $before" in
{values}
    esac
    case $word in -*) case $command in
{flags}
    esac; return;; esac
    case "$place $command $before" in
    "1 "*) COMPREPLY=($(compgen -W "{words}" -- "$word"));;
{positions}
    esac
}}
complete -o default -o bashdefault -F _rsir rsir
"""


def parser() -> Parser:
    """The parser of the command."""
    made = Parser(
        "completion",
        "Print a script that completes commands, options and their values. Keep it in a file, as making it takes a "
        "while, and source it: rsir completion bash > ~/.rsir-completion, and . ~/.rsir-completion in ~/.bashrc.",
    )
    made.add_argument("shell", choices=SHELLS, metavar="{bash,zsh}", help="the shell that is to read the script")
    return made


def main(arguments: list[str]) -> int:
    """Print the script."""
    print(script(parser().parse_args(arguments).shell), end="")
    return 0


def script(shell: str) -> str:
    """What a shell is to evaluate; it completes options, the values of those that have few, else files."""
    parsers = {name: import_module(f"rsir.cli.{name}").parser() for name in COMMANDS}
    places = {
        "datasets": (["list", "fetch"], {"fetch": list(DATASETS)}),
        "kernels": (list(ACTIONS), {}),
        "studies": ([*_choices(parsers["studies"]), "results"], {}),
        "completion": (list(SHELLS), {}),
    }
    positions = []
    for name, (second, third) in places.items():
        positions.append(_case(f'"2 {name} {name}"', second))
        positions += [_case(f'"3 {name} {word}"', words) for word, words in third.items()]
    first = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n" if shell == "zsh" else ""
    return first + _SCRIPT.format(
        commands="|".join(COMMANDS),
        words=" ".join(COMMANDS),
        values="\n".join(_case("|".join(f'"run {flag}"' for flag in flags), found) for flags, found in _values()),
        flags="\n".join(_case(name, sorted(made.flags)) for name, made in parsers.items()),
        positions="\n".join(positions),
    )


def _case(pattern: str, words: list[str]) -> str:
    return f'    {pattern}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")); return;;'


def _choices(made: argparse.ArgumentParser) -> list[str]:
    """The choices of a parser's first positional argument."""
    return next([*action.choices] for action in made._actions if action.choices and not action.option_strings)


def _values() -> typing.Iterator[tuple[list[str], list[str]]]:
    """The options of a run that have few values, and the values."""
    from rsir.generation import acquisition, fidelity  # loads torch
    from rsir.models.registry import BACKBONES

    registries: dict[str, Registry[Any]] = {
        "model.name": BACKBONES,
        "fidelity.policy": fidelity.POLICIES,
        "acquisition.policy": acquisition.POLICIES,
    }
    for option in OPTIONS.values():
        if option.name in registries:
            found = registries[option.name].names()
        elif option.hint is bool:
            found = ["true", "false"]
        else:
            found = list(typing.get_args(option.hint)) if typing.get_origin(option.hint) is Literal else []
        if found:
            yield option.flags, found

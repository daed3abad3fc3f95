"""Completion of options in bash and zsh: a script to keep in a file, as making it takes a while, and to source."""

from __future__ import annotations

import typing
from typing import Literal

from rsir.cli.options import OPTIONS, parser
from rsir.datasets import DATASETS
from rsir.errors import ConfigError

__all__ = ["script"]

_SCRIPT = """\
_rsir() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    COMPREPLY=()
    case $before in
{values}
    esac
    case $word in -*) COMPREPLY=($(compgen -W "{flags}" -- "$word")); return;; esac
    case "$COMP_CWORD $before" in
    "1 "*) COMPREPLY=($(compgen -W "inspect datasets" -- "$word"));;
    "2 datasets") COMPREPLY=($(compgen -W "list fetch" -- "$word"));;
    "3 fetch") COMPREPLY=($(compgen -W "{datasets}" -- "$word"));;
    esac
}}
complete -o default -o bashdefault -F _rsir rsir
"""


def script(shell: str) -> str:
    """What a shell is to evaluate; it completes options, the values of those that have few, else files."""
    if shell not in ("bash", "zsh"):
        raise ConfigError(f"--completion: expected bash or zsh, got {shell!r}")
    from rsir.models import names  # loads torch

    choices = {"--completion": ["bash", "zsh"]}
    for option in OPTIONS.values():
        if option.name == "model.name":
            found = list(names())
        elif option.hint is bool:
            found = ["true", "false"]
        else:
            found = list(typing.get_args(option.hint)) if typing.get_origin(option.hint) is Literal else []
        if found:
            choices["|".join(option.flags)] = found
    values = "\n".join(
        f'    {flags}) COMPREPLY=($(compgen -W "{" ".join(found)}" -- "$word")); return;;'
        for flags, found in choices.items()
    )
    flags = " ".join(sorted(parser()._option_string_actions))
    first = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n" if shell == "zsh" else ""
    return first + _SCRIPT.format(values=values, flags=flags, datasets=" ".join(DATASETS))

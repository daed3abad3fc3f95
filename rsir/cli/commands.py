"""Every command and what it is for; each is the module of its name in :mod:`rsir.cli`."""

from __future__ import annotations

__all__ = ["COMMANDS", "listed"]

COMMANDS = {
    "run": "train, generate, verify and repeat (the command where none is named)",
    "inspect": "print a run's rounds, settings and data, and check its files",
    "recommend": "write the best items for every user to a file, or print them for some",
    "similar": "print the items most like some",
    "refit": "train the best round's recipe on all events, to serve with",
    "update": "go on from a run with new events, users and items",
    "serve": "answer over HTTP what a run recommends",
    "export": "write a round's training data, or the best model, for use elsewhere",
    "report": "write the page of a run, one page that compares several, or a plot",
    "studies": "repeat the experiments behind the claims, and make tables of them",
    "datasets": "list and fetch public data sets",
    "kernels": "tune or inspect the Triton kernels",
    "completion": "print a script that completes commands and options in bash or zsh",
}
"""Each is a module in :mod:`rsir.cli` with two functions: ``parser()`` and ``main(arguments)``."""


def listed() -> str:
    """The commands as lines of a help text."""
    return "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())

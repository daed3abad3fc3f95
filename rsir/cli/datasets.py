"""Public data sets: ``rsir datasets list`` and ``rsir datasets fetch NAME``."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from rsir.cli.bars import Bars
from rsir.cli.parsing import Parser
from rsir.datasets import DATASETS, fetch
from rsir.runtime.progress import silent

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("datasets", "List public data sets, or fetch one from its own place.")
    make: Any = _action  # argparse calls it, and its stub asks for a class
    actions = made.add_subparsers(dest="action", required=True, metavar="{list,fetch}", parser_class=make)
    actions.add_parser("list", help="names, sizes, what they hold")
    fetching = actions.add_parser("fetch", help="fetch one, verify its SHA-256, make a file for --data of it")
    fetching.add_argument("name", metavar="NAME", help="one of: " + ", ".join(DATASETS))
    fetching.add_argument("--out", default="data", metavar="DIR", help="folder for the file [data]")
    fetching.add_argument("--url", metavar="URL", help="another address of the same bytes (https, http, file)")
    return made


def _action(prog: str, **options: Any) -> Parser:
    return Parser(prog.removeprefix("rsir "), "", **options)


def main(arguments: list[str]) -> int:
    """List the data sets, or fetch one, after its terms.

    Returns
    -------
    int
        Exit status: 0 done, 130 interrupted by Ctrl-C.
    """
    options = parser().parse_args(arguments)
    if options.action == "list":
        for name, dataset in DATASETS.items():
            print(f"{name:14} {dataset.size / 1e6:8.1f} MB  {dataset.text}")
        return 0
    bars = Bars() if sys.stderr.isatty() else None
    try:
        if options.name in DATASETS:
            print(f"{DATASETS[options.name].terms}\n", file=sys.stderr, flush=True)
        path = fetch(options.name, options.out, options.url, silent if bars is None else bars)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command continues where it ended.", file=sys.stderr)
        return 130
    finally:
        if bars is not None:
            bars.close()
    print(f"{path}\nrsir --data {shlex.quote(str(path))}")
    return 0

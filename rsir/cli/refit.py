"""``rsir refit RUN``: the best round's recipe trained on all events, to serve with."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rsir.cli.bars import Bars
from rsir.cli.parsing import Parser
from rsir.errors import ConfigError, RunError
from rsir.files import local
from rsir.runtime.environment import check_device
from rsir.runtime.progress import silent
from rsir.runtime.runtime import Runtime

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser(
        "refit",
        "Train what recommends after the best round again, on all events, those of validation and test too, for the "
        "steps that validation chose. There is nothing left to measure it by: it has no metrics of its own.",
    )
    made.add_argument("run", metavar="RUN", help="folder of the run")
    made.add_argument("--out", metavar="DIR", help="new folder for the refit [RUN-refit]")
    made.add_argument("--gpu", action="store_true", help="compute on a CUDA device")
    return made


def main(arguments: list[str]) -> int:
    """Run the command; 0 if the folder was written."""
    options = parser().parse_args(arguments)
    from rsir.runs.results import load
    from rsir.runs.rounds import best_steps

    device = "cuda" if options.gpu else "cpu"
    check_device(device, "--gpu")
    folder = local(options.run)
    out = folder.with_name(f"{folder.absolute().name}-refit") if options.out is None else local(options.out)
    if out.absolute() == folder.absolute():
        raise ConfigError(f"--out: expected another folder than the run's, got {out}")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise RunError(f"{out}: expected a new or empty folder for the refit; choose another --out")
    run = load(folder, device=device)
    bars = Bars() if sys.stderr.isatty() else None
    try:
        made = run.refit(out, runtime=Runtime(device, progress=silent if bars is None else bars))
    finally:
        if bars is not None:
            bars.close()
    taken = (best_steps(run.rounds[number], run.rounds[0], run.config.training) for number in _members(out))
    steps = ", ".join(f"{main:,} + {last:,}" if last else f"{main:,}" for main, last in taken)
    print(f"{out}: round {run.best} on all {made.data.num_interactions:,} events, {steps} steps")
    print("It has no metrics of its own: those of the run are the best guess at how well it ranks, from fewer events")
    print(f"Serve it:  rsir recommend {shlex.quote(str(out))} --out FILE.parquet")
    return 0


def _members(out: Path) -> list[int]:
    from rsir.files import read_json
    from rsir.runs.layout import REFIT

    members: list[int] = read_json(out / REFIT)["members"]
    return members

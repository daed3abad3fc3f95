"""``rsir update RUN --data FILE``: a run goes on with new events, users and items."""

from __future__ import annotations

import re
import shlex
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir.cli.bars import Bars
from rsir.cli.notes import notes
from rsir.cli.options import OPTIONS
from rsir.cli.parsing import Parser, run_place, unknown_option
from rsir.cli.show import line, rounds_table, verdict
from rsir.cli.signals import Stop
from rsir.errors import ConfigError, Interrupted, RunError
from rsir.files import local
from rsir.objects.address import Address, place
from rsir.runs.layout import check_folder
from rsir.runtime.environment import check_device
from rsir.runtime.interrupts import check
from rsir.runtime.progress import silent
from rsir.runtime.runtime import Runtime

if TYPE_CHECKING:
    from rsir.data.io.additions import Additions
    from rsir.runs.results import Run
    from rsir.runs.rounds import RoundResult

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser(
        "update",
        "Go on from a run with new events, users and items, in a new folder; the run stays as it is. Every network "
        "starts from the run's of the same round, new items from those that they stand beside, and the rounds are "
        "trained, generated and measured as by rsir run, in a part of its time.",
    )
    made.add_argument("run", metavar="RUN", type=run_place, help="folder or address of the run")
    made.add_argument(
        "--data",
        metavar="FILE",
        required=True,
        help="the new events, in any format that a run reads; those that the run has already are left out",
    )
    made.add_argument("--out", metavar="DIR", help="folder for the new run [RUN-update-1, -2, ...]")
    made.add_argument(
        "--resume", action="store_true", help="resume the update in --out, with the same data and options"
    )
    for role in ("user", "item", "time"):
        made.add_argument(
            f"--{role}", metavar="COLUMN", help=f"column of the {role}s in FILE [as in the run, or found]"
        )
    made.add_argument("--rounds", metavar="N", help="rounds after the base [as many as the run's]")
    made.add_argument(
        "--set",
        metavar="NAME=VALUE",
        nargs="+",
        default=[],
        help="other settings of rounds, training and generation, as training.patience=5 [the run's; a patience of at "
        "most 3]",
    )
    made.add_argument("--gpu", action="store_true", help="compute on a CUDA device")
    return made


def main(arguments: list[str]) -> int:
    """Run the command; 0 if the new run is finished."""
    options = parser().parse_args(arguments)
    settings = _settings(options)
    device = "cuda" if options.gpu else "cpu"
    check_device(device, "--gpu")
    out = _folder(options)
    if options.resume and options.out is None:
        raise ConfigError("--resume: needs --out DIR, the folder of the update to resume")
    check_folder(out, resume=options.resume)
    from rsir.runs.baselines import said_of_the_search
    from rsir.runs.results import load

    run = load(options.run, device=device)
    bars = Bars() if sys.stderr.isatty() else None
    stop = Stop()
    try:
        with stop:
            check()
            made = _update(run, options, settings, out, Runtime(device, progress=bars or silent, stop=stop), bars)
    except (Interrupted, KeyboardInterrupt):
        resumed = _resuming(arguments, out, options)
        begun = False
        with suppress(RunError):
            check_folder(out, resume=True)
            begun = True
        text = f"Interrupted. Resume with: {resumed}" if begun else "Interrupted before it began; nothing was written."
        print(f"\n{text}", file=sys.stderr)
        return 128 + stop.number
    finally:
        if bars is not None:
            bars.close()
    print(f"\n{rounds_table(made.rounds, made.best, made.baselines)}\n")
    print(verdict(made.rounds, made.best, made.config.rounds, guard=made.config.guard))
    if searched := said_of_the_search(made.rounds, made.baselines, made.config.itemknn):
        print(f"Count:     {searched}")
    print(f"The run:   {out}, which goes on from {options.run}")
    print(f"Serve it:  rsir recommend {shlex.quote(str(out))} --out FILE.parquet")
    return 0


def _update(
    run: Run, options: Namespace, settings: dict[str, Any], out: Path | Address, runtime: Runtime, bars: Bars | None
) -> Run:
    from rsir.recursion.update import update

    rounds: list[RoundResult] = []

    def told(result: RoundResult) -> None:
        rounds.append(result)
        if bars is not None:
            bars.close()
        print(line(result, rounds[0]), file=sys.stderr, flush=True)

    def announce(added: Additions) -> None:
        print(f"rsir: {said(added)}", file=sys.stderr, flush=True)

    columns = {role: getattr(options, role) for role in ("user", "item", "time") if getattr(options, role) is not None}
    with notes():
        return update(
            run,
            options.data,
            out,
            resume=options.resume,
            settings=settings,
            columns=columns,
            runtime=runtime,
            on_added=announce,
            on_round=told,
        )


def said(added: Additions) -> str:
    """What was added, in a line."""
    left = [
        f"{count:,} left out ({why})"
        for count, why in (
            (added.repeated, "there already"),
            (added.filtered, "of new users or items with fewer events than k_core"),
        )
        if count
    ]
    return "; ".join([f"{added.events:,} new events, {added.users:,} new users, {added.items:,} new items", *left])


def _settings(options: Namespace) -> dict[str, Any]:
    texts = {} if options.rounds is None else {"rounds": options.rounds}
    for given in options.set:
        name, equals, value = given.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected NAME=VALUE, got {given!r}")
        if name not in OPTIONS:
            raise ConfigError(f"--set: {unknown_option(name, list(OPTIONS), 'rsir --help-all')}")
        texts[name] = value
    return {name: OPTIONS[name].value(text) for name, text in texts.items()}


def _folder(options: Namespace) -> Path | Address:
    """Where the new run goes: as given, or the run's folder with the next number."""
    if options.out is not None:
        return place(options.out)
    if isinstance(options.run, Address):
        raise ConfigError("--out: expected a folder or an address for the update of a run at an address")
    folder = local(options.run).absolute()
    stem = re.sub(r"-update-\d+$", "", folder.name)
    taken = (re.fullmatch(re.escape(stem) + r"-update-(\d+)", path.name) for path in folder.parent.glob(f"{stem}-*"))
    number = max((int(match[1]) for match in taken if match), default=0) + 1
    return local(options.run).with_name(f"{stem}-update-{number}")


def _resuming(arguments: list[str], out: Path | Address, options: Namespace) -> str:
    words = [*arguments, *([] if options.out is not None else ["--out", str(out)])]
    words += [] if options.resume else ["--resume"]
    return f"rsir update {shlex.join(words)}"

"""``rsir run``: let a recommender improve itself."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from argparse import Namespace
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rsir import __version__, files
from rsir.cli.bars import Bars
from rsir.cli.main import REASON
from rsir.cli.notes import notes
from rsir.cli.options import configuration, dump, parser, split_arguments
from rsir.cli.plugins import as_options
from rsir.cli.show import cut_short, line, rounds_table, verdict
from rsir.cli.signals import Stop
from rsir.config import RecursionConfig, from_dict, to_dict
from rsir.errors import ConfigError, DataError, Interrupted, RunError, WorldError
from rsir.objects.address import Address, place
from rsir.runs.directory import config_of
from rsir.runs.layout import check_folder
from rsir.runs.rounds import voters
from rsir.runtime.environment import check_device
from rsir.runtime.interrupts import check
from rsir.runtime.launch import STARTED_AS, local_rank, restarts_allowed
from rsir.runtime.memory import first_line, format_bytes, memory_limit, out_of_memory, parse, peak
from rsir.runtime.progress import silent
from rsir.runtime.runtime import Runtime
from rsir.runtime.world import ALONE, World

if TYPE_CHECKING:
    from rsir.runs.results import Run
    from rsir.runs.rounds import RoundResult

__all__ = ["main", "parser"]

RUNS = Path("runs")


def main(arguments: list[str], world: World = ALONE) -> int:
    """Run the command; the exit status, as :func:`rsir.cli.main.main` explains it."""
    try:
        if world.is_main:
            return _command(arguments, world)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            return _command(arguments, world)
    except WorldError as error:
        raise WorldError(f"{error}; torchrun names it; --resume goes on from what was saved") from error


def _command(arguments: list[str], world: World) -> int:
    options, given = split_arguments(arguments)
    if options.version:
        print(f"rsir {__version__}")
        return 0
    if options.engine == "ray" and not options.print_config:
        return _on_ray(arguments, options)
    for name in ("workers", "address"):
        if options.engine == "here" and getattr(options, name) is not None:
            raise ConfigError(f"--{name}: goes with --engine ray")
    if restarts_allowed() and options.out is None:
        raise ConfigError("--out: torchrun --max-restarts needs it, for a restart to find the run; give --out DIR")
    if world.restarted and options.out is not None:
        options.resume = world.broadcast_object(lambda: _begun(place(options.out)))
    base = RecursionConfig()
    if options.resume:
        out = _resumed(options)
        base = from_dict(RecursionConfig, world.broadcast_object(lambda: to_dict(config_of(out))))
    config = configuration(base, options.config, given)
    if options.print_config:
        print(dump(config), end="")
        return 0
    if config.data.path is not None:
        place(config.data.path, DataError)  # before a folder is made
    out, claimed = _folder(config, options, world)
    stop = Stop(says=world.is_main)
    try:
        with stop:
            _run(config, options, out, stop, world)
    except (Interrupted, KeyboardInterrupt):
        if world.is_main and world.first_to(REASON):
            print(f"\n{_interrupted(out, world)}", file=sys.stderr)
        return 128 + stop.number
    finally:
        for folder in claimed:  # if still empty
            with suppress(OSError):
                folder.rmdir()
    world.close()
    return 0


def _on_ray(arguments: list[str], options: Namespace) -> int:
    """The same command in processes of a Ray cluster."""
    from rsir.cli.engine import run

    if options.out is None:
        raise ConfigError(
            "--out: --engine ray needs it, for its processes to share the run; give --out DIR or an address"
        )
    left, rest = shlex.split(as_options()), iter(arguments)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name not in ("--engine", "--workers", "--address"):
            left.append(word)
        elif not equals:
            next(rest, None)
    if not options.resume:
        check_folder(place(options.out), resume=False)
    return run(
        left, address=options.address, workers=2 if options.workers is None else options.workers, gpu=options.gpu
    )


def _run(config: RecursionConfig, options: Namespace, out: Path | Address, stop: Stop, world: World) -> None:
    if world.is_main:
        check_folder(out, resume=options.resume)
    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"--threads: expected at least 1, got {options.threads}")
    limit = None if options.memory is None else parse(options.memory)
    if options.profile:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when torch is loaded: its profiler says nothing then
    from rsir.integrations.trackers import Tracking
    from rsir.recursion.checks import check_names
    from rsir.recursion.loop import recurse

    check()
    check_names(config)
    device = _device(options.gpu, world)
    if options.threads is not None:
        _limit_threads(options.threads)
    bars = Bars() if sys.stderr.isatty() and world.is_main else None
    rounds: list[RoundResult] = []
    tracking = Tracking(options.track.split(",") if options.track and world.is_main else [], _beside(out), config)

    def report(result: RoundResult) -> None:
        rounds.append(result)
        if bars is not None:
            bars.close()
        print(line(result, rounds[0]), file=sys.stderr, flush=True)
        tracking(result)

    try:
        with notes(shown=world.is_main, held=True) as release, memory_limit(limit, _existing(out)):

            def announce(read: str) -> None:
                print(f"rsir: {read}", file=sys.stderr, flush=True)
                release()

            run = recurse(
                config,
                out=out,
                resume=options.resume,
                runtime=Runtime(
                    device, options.threads, silent if bars is None else bars, stop, world, options.profile
                ),
                on_data=announce,
                on_round=report,
            )
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        more = "raise --memory" if limit is not None else "free some"
        raise RunError(f"out of memory ({first_line(error)}); {more} and resume with --resume") from error
    finally:
        tracking.close()
        if bars is not None:
            bars.close()
    _summarise(run, out, world)
    if limit is not None:
        print(f"Memory:    {format_bytes(peak())} at most at once, of {format_bytes(limit)} allowed")


def _existing(folder: Path | Address) -> Path:
    """A folder, or the nearest above it that is there; of an address the one for temporary files."""
    if isinstance(folder, Address):
        return Path(tempfile.gettempdir())
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def _beside(out: Path | Address) -> Path:
    """Where trackers keep their files: in the run's folder; of a run at an address, in a folder of its name here."""
    return out if isinstance(out, Path) else Path(out.name)


def _summarise(run: Run, out: Path | Address, world: World) -> None:
    from rsir.runs.baselines import remarks, said_of_the_search

    print()
    print(rounds_table(run.rounds, run.best, run.baselines))
    print()
    print(verdict(run.rounds, run.best, run.config.rounds, guard=run.config.guard))
    if searched := said_of_the_search(run.rounds, run.baselines, run.config.itemknn):
        print(f"Count:     {searched}")
    for sentence in remarks(run.rounds, run.baselines):
        print(f"Note:      {sentence}")
    print(cut_short(run.rounds, run.config.training), end="")
    print(_loading(run, out))
    print(f"The run:   {out} (report.html shows it in a browser)")
    if run.path is not None and (run.path / "profile").is_dir():
        print(f"Traces:    {out / 'profile'} (chrome://tracing and ui.perfetto.dev show them)")
    if len(run.rounds) > run.config.rounds:
        print(f"Go on:     {_resuming(out, world)} --rounds {run.config.rounds + 2}")


def _loading(run: Run, out: Path | Address) -> str:
    """How to load what was measured."""
    members, newest = voters(run.config.retention, run.best), out / f"round-{run.best:02d}"
    what = f"the network in {newest}"
    if len(members) > 1:
        rounds = f"{members[0]} to {members[-1]}"
        what = f"the {len(members)} networks of rounds {rounds} together; {newest} holds the newest alone"
    what += ", beside the item-kNN" if run.rounds[run.best].vote else ""
    load = f"rsir.load({str(out)!r}) in Python, or rsir recommend {shlex.quote(str(out))} --out FILE.parquet"
    return f"Load it:   {load}\n           {what}"


def _begun(out: Path | Address) -> bool:
    try:
        check_folder(out, resume=True)
    except RunError:
        return False
    return True


def _interrupted(out: Path | Address, world: World) -> str:
    if not _begun(out):
        return "Interrupted before the run began; nothing was written."
    return f"Interrupted. Resume with: {_resuming(out, world)}"


def _resuming(out: Path | Address, world: World) -> str:
    """The command that resumes a run, with as many processes."""
    command = "rsir" if world.size == 1 else f"torchrun --nproc-per-node {world.size} -m rsir.recurse"
    command = os.environ.get(STARTED_AS, command)
    return f"{command} --out {shlex.quote(str(out))} --resume{as_options()}"


def _resumed(options: Namespace) -> Path | Address:
    if options.out is None:
        runs = sorted(RUNS.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
        newest = f"; the newest run here is --out {runs[-1].parent}" if runs else ""
        raise ConfigError(f"--resume: needs --out DIR, the folder of the run to resume{newest}")
    return place(options.out)


def _folder(config: RecursionConfig, options: Namespace, world: World) -> tuple[Path | Address, list[Path]]:
    """The run's folder, and the folders made to claim it: of two runs begun at once only one can make a folder."""
    claimed: list[Path] = []

    def claim() -> str:
        claimed.extend([] if RUNS.exists() else [RUNS])
        try:
            files.make_folder(RUNS)
            while True:
                folder = _free_folder(config)
                with suppress(FileExistsError):
                    folder.mkdir()
                    files.sync(RUNS)
                    claimed.insert(0, folder)
                    return str(folder)
        except OSError as cause:
            raise files.refused(RUNS, cause) from cause

    return place(options.out or world.broadcast_object(claim)), claimed


def _free_folder(config: RecursionConfig) -> Path:
    """runs/NAME-NNN, NAME after the data, NNN one above the highest there is."""
    stem = "simulated" if config.data.path is None else Path(config.data.path).stem
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "data"
    taken = [re.fullmatch(re.escape(name) + r"-(\d{3,})", path.name) for path in RUNS.glob(f"{name}-*")]
    return RUNS / f"{name}-{max((int(match[1]) + 1 for match in taken if match), default=0):03d}"


def _device(gpu: bool, world: World) -> str:
    if not gpu:
        return "cpu"
    import torch

    check_device("cuda", "--gpu")
    if world.size == 1:
        return "cuda"
    if local_rank() >= torch.cuda.device_count():
        raise ConfigError(
            f"--gpu: expected a CUDA device for each process of a machine, got {torch.cuda.device_count()} for process "
            f"{local_rank()}; lower torchrun's --nproc-per-node"
        )
    return f"cuda:{local_rank()}"


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)

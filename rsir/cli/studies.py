"""``rsir studies NAME ...`` runs a study; ``rsir studies results DIR`` makes the page of what studies recorded."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from rsir.cli.options import configuration, split_arguments
from rsir.cli.parsing import Parser
from rsir.config import ModelConfig, RecursionConfig, flat
from rsir.errors import ConfigError
from rsir.runtime.environment import check_device
from rsir.studies.recipes import CHOSEN

__all__ = ["STUDIES", "main", "parser"]

STUDIES = {
    "default": "what each round of a run gains as it comes, beside the count, popularity and as many bases",
    "main": "what rounds gain, beside more data, the paper's settings, ensembles, the item-kNN's vote",
    "rounds": "many rounds, with a fidelity check that gets stricter, with one that does not, and without",
    "sensitivity": "one round under other values of each option",
    "weak-to-strong": "generators of other widths and backbones than the successor's",
    "cost": "longer, wider and otherwise tuned bases, beside the recursion",
    "data": "density, regularity, novelty and popularity of the training set by round",
    "landscape": "sharpness of the loss, base against successor",
    "noise": "random interactions put into the training histories",
}
_ROUNDS = {"default": 3, "main": 3, "rounds": 8, "data": 3, "cost": 1, "noise": 1}  # of the others, every arm has one
_OWN = {
    "data.path": "--data FILE ...",
    "model.name": "--models NAME ...",
    "seed": "--seeds N ...",
    "rounds": "--rounds",
}
_BY_ARM = {*CHOSEN, "stop_after", "guard", "guard_noise", "itemknn.vote"}
_HOLD = "--data.*, --simulation.*, --model.*, --training.* and --item_table"
_NOT_FOR_STUDIES = ("resume", "profile", "memory", "track", "print_config", "version")


def parser() -> Parser:
    """The parser of ``rsir studies NAME``."""
    studies = "\n".join(f"  {name:<15} {what}" for name, what in STUDIES.items())
    made = Parser(
        "studies",
        "Run a study of the recursion. What was finished before is taken from DIR and not computed again.\n\n"
        f"studies:\n{studies}\n\n  rsir studies results DIR   the page with tables and plots of what studies recorded",
        usage="rsir studies NAME [--data FILE ...] [--models NAME ...] [--seeds N ...] [--out DIR] [--NAME VALUE ...]",
        epilog=f"Of the options of rsir run (rsir --help-all), {_HOLD}\nhold for every arm, such as "
        "--training.patience 10, or --config FILE with them. Each arm sets what comes\nafter the base. --gpu computes "
        "on a CUDA device.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("study", choices=STUDIES, metavar="NAME", help="the study to run")
    made.add_argument("--data", nargs="+", type=Path, metavar="FILE", help="data [the embedded simulation]")
    model = ModelConfig().name
    made.add_argument("--models", nargs="+", default=[model], metavar="NAME", help=f"backbones [{model}]")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="seeds [0 1 2]")
    several = ", ".join(f"{name} {count}" for name, count in _ROUNDS.items())
    made.add_argument("--rounds", type=int, metavar="N", help=f"rounds of the arms that have several [{several}]")
    made.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="only these arms of the study")
    made.add_argument("--out", type=Path, default=Path("studies"), metavar="DIR", help="folder of results [studies]")
    made.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads [1]")
    return made


def results_parser() -> Parser:
    """The parser of ``rsir studies results``."""
    made = Parser("studies results", "Make a page with tables and plots of what studies recorded.")
    made.add_argument(
        "lines",
        type=Path,
        metavar="DIR",
        help="folder with the studies' .jsonl files; notes.md there begins the page, NAME.md the part of that study",
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="the page; its pictures lie beside it [DIR/results.md]")
    return made


def main(arguments: list[str]) -> int:
    """Run a study, or make the page; what a study's file of lines holds already is not computed again."""
    if arguments[:1] == ["results"]:
        given = results_parser().parse_args(arguments[1:])
        from rsir.studies.results import write

        print(write(given.lines, given.lines / "results.md" if given.out is None else given.out))
        return 0
    options, rest = parser().parse_known_args(arguments)
    run_options, settings = split_arguments(rest)
    _refuse_what_does_not_hold(options, run_options, settings)
    config = configuration(RecursionConfig(), run_options.config, settings)
    return _run(options, config, run_options.gpu, rest)


def _refuse_what_does_not_hold(
    options: argparse.Namespace, run_options: argparse.Namespace, given: dict[str, str]
) -> None:
    """ConfigError for an option that the study would override or ignore.

    A file of settings may name all of them, as ``rsir --print-config`` writes it, with the defaults for these.
    """
    for name in _NOT_FOR_STUDIES:
        if getattr(run_options, name):
            why = ": it always continues where it ended" if name == "resume" else ""
            raise ConfigError(f"--{name.replace('_', '-')}: a study does not take this option of rsir{why}; omit it")
    if options.rounds is not None and options.study not in _ROUNDS:
        has = f"{options.study} has one round; {', '.join(_ROUNDS)} take it"
        raise ConfigError(f"--rounds: expected none, as {has}, got {options.rounds}")
    default = flat(RecursionConfig())
    in_file = flat(configuration(RecursionConfig(), run_options.config, {}))
    for name in default:
        if name not in given and in_file[name] == default[name]:
            continue
        where = f"--{name}" if name in given else f"{run_options.config}: {name}"
        if name in _OWN:
            raise ConfigError(f"{where}: a study takes {_OWN[name]} in its place")
        if name in _BY_ARM or name.partition(".")[0] in _BY_ARM:
            raise ConfigError(f"{where}: a study sets it for each arm; omit it (what holds for every arm: {_HOLD})")


def _run(options: argparse.Namespace, config: RecursionConfig, gpu: bool, rest: list[str]) -> int:
    if options.threads < 1:
        raise ConfigError(f"--threads: expected at least 1, got {options.threads}")
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))  # read when torch is loaded
    import torch

    from rsir.data.load import load_data
    from rsir.studies.comparisons import compare
    from rsir.studies.lab import Lab, recipe
    from rsir.studies.lines import Lines

    torch.set_num_threads(options.threads)
    study = import_module(f"rsir.studies.{options.study.replace('-', '_')}")
    _check(options, config, study.arms)
    device = "cuda" if gpu else "cpu"
    check_device(device, "--gpu")
    rounds = _ROUNDS.get(options.study, 1) if options.rounds is None else options.rounds
    config = replace(config, rounds=rounds)

    def labs(path: Path | None, model: str) -> Iterator[Lab]:
        name = "simulated" if path is None else path.stem
        for seed in options.seeds:
            own = replace(_with_data(config, path), seed=seed).for_backbone(model)
            work, arms, digest = options.out / "work", tuple(options.arms), recipe(own, data[path])
            yield Lab(name, data[path], own, lines, work, _say, arms, device, digest)

    lines = Lines(options.out / f"{options.study}.jsonl")
    paths = options.data or [None]
    data = {path: load_data(_with_data(config, path)) for path in paths}
    for path in paths:  # all of them before anything is trained
        for model in options.models:
            for lab in labs(path, model):
                lab.check()
    for path in paths:
        for model in options.models:
            for lab in labs(path, model):
                study.run(lab, rounds)
            compare(lines)
            command = _command_of(options, path, model, rest)
            lines.put({"kind": "command", "data": lab.name, "backbone": model, "arm": command})
    print(f"{lines.path}: {sum(1 for _ in lines)} lines")
    return 0


def _check(options: argparse.Namespace, config: RecursionConfig, arms: Callable[[RecursionConfig], list[str]]) -> None:
    """ConfigError for what can be known to be wrong before data are read."""
    from rsir.models import names

    stems = [path.stem for path in options.data or ()]
    for place, stem in enumerate(stems):
        if stem in stems[:place]:
            both = f"{options.data[stems.index(stem)]} and {options.data[place]}"
            raise ConfigError(f"--data: lines go by the names of files, and {both} are both {stem!r}; rename one")
    for model in options.models:
        if model not in names():
            raise ConfigError(f"--models: expected some of {', '.join(names())}, got {model!r}")
    if options.study == "noise" and config.data.split != "leave-one-out":
        raise ConfigError(
            f"--data.split: noise leaves the last two events of a user as they are, the targets of leave-one-out; "
            f"expected leave-one-out, got {config.data.split!r}"
        )
    known = {arm for model in options.models for arm in arms(config.for_backbone(model))}
    if unknown := sorted(set(options.arms) - known):
        some = f"expected some of {', '.join(map(repr, sorted(known)))}" if known else "this study has none to choose"
        raise ConfigError(f"--arms: {some}, got {', '.join(map(repr, unknown))}")


def _with_data(config: RecursionConfig, path: Path | None) -> RecursionConfig:
    return replace(config, data=replace(config.data, path=None if path is None else str(path)))


def _command_of(options: argparse.Namespace, path: Path | None, model: str, rest: list[str]) -> str:
    """What computes the lines of one data set and backbone, wherever the data lie."""
    parts = ["rsir studies", options.study, *([] if path is None else ["--data", path.name])]
    parts += ["--models", model, "--seeds", *map(str, options.seeds)]
    parts += ["--rounds", str(options.rounds)] if options.rounds is not None else []
    parts += ["--arms", *map(shlex.quote, options.arms)] if options.arms else []
    return " ".join([*parts, *map(shlex.quote, rest)])


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)

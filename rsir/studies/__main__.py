"""``python -m rsir.studies NAME --data FILE ... --seeds 0 1 2 --out DIR [any option of rsir]``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from rsir.cli.options import configuration, split_arguments
from rsir.config import ConfigError, RecursionConfig

STUDIES = {
    "main": "what rounds gain, beside reordering, insertion, the paper's settings and ensembles of bases",
    "rounds": "many rounds, with a fidelity check that gets stricter, with one that does not, and without",
    "sensitivity": "one round under other values of each option",
    "weak-to-strong": "generators of other widths and backbones than the successor's",
    "cost": "longer, wider and otherwise tuned bases, beside the recursion",
    "data": "density, regularity, novelty and popularity of the training set by round",
    "landscape": "sharpness of the loss, base against successor",
    "noise": "random interactions put into the training histories",
}
_ROUNDS = {"main": 3, "rounds": 8, "data": 3}


def main(arguments: list[str] | None = None) -> int:
    """Run a study; what its file of lines holds already is not computed again."""
    parser = argparse.ArgumentParser(
        prog="python -m rsir.studies",
        description="Run a study of the recursion. What was finished before is taken from DIR and not computed again.",
        epilog="Studies: " + "; ".join(f"{name}: {what}" for name, what in STUDIES.items()) + ". Any further option is "
        "one of rsir (python -m rsir.recurse --help-all) and holds for every arm, such as --training.patience 10.",
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", nargs="+", type=Path, metavar="FILE", help="default: the embedded simulation")
    parser.add_argument("--models", nargs="+", default=["sasrec"], metavar="NAME", help="backbones (sasrec)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="seeds (0 1 2)")
    parser.add_argument("--rounds", type=int, help="rounds of the arms that have several (main 3, rounds 8)")
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="only these of the study's")
    parser.add_argument("--out", type=Path, default=Path("studies"), metavar="DIR", help="results (studies)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    options, rest = parser.parse_known_args(arguments)
    try:
        run_options, given = split_arguments(rest)
        config = configuration(RecursionConfig(), run_options.config, given)
        return _run(options, config, rest)
    except ConfigError as error:
        print(f"rsir.studies: error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, config: RecursionConfig, rest: list[str]) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))  # read when torch is loaded
    import torch

    from rsir.data.loading import load_data

    from .lab import Lab, Lines, compare

    torch.set_num_threads(options.threads)
    study: Callable[[Lab, int], None] = import_module(f"rsir.studies.{options.study.replace('-', '_')}").run
    rounds = options.rounds or _ROUNDS.get(options.study, 1)
    asked: set[str] = set()
    lines = Lines(options.out / f"{options.study}.jsonl")
    for path in options.data or [None]:
        for model in options.models:
            section = replace(config.data, path=None if path is None else str(path))
            settings = replace(config, data=section, model=config.model.for_backbone(model))
            data = load_data(settings)
            name = "simulated" if path is None else path.stem
            for seed in options.seeds:
                own = replace(settings, seed=seed)
                study(Lab(name, data, own, lines, options.out / "work", _say, tuple(options.arms), asked), rounds)
                if unknown := sorted(set(options.arms) - asked):
                    arms = f"expected some of {', '.join(sorted(asked))}" if asked else "this study has none to choose"
                    raise ConfigError(f"--arms: {arms}, got {', '.join(map(repr, unknown))}")
            compare(lines)
            lines.put({"kind": "command", "data": name, "backbone": model, "arm": _command(options, path, model, rest)})
    print(f"{lines.path}: {sum(1 for _ in lines)} lines")
    return 0


def _command(options: argparse.Namespace, path: Path | None, model: str, rest: list[str]) -> str:
    """What computes the lines of one data set and backbone, wherever the data lie."""
    parts = ["python -m rsir.studies", options.study, *([] if path is None else ["--data", path.name])]
    parts += ["--models", model] if model != "sasrec" else []
    parts += ["--seeds", *map(str, options.seeds)]
    parts += ["--rounds", str(options.rounds)] if options.rounds else []
    parts += ["--arms", *map(shlex.quote, options.arms)] if options.arms else []
    return " ".join([*parts, *map(shlex.quote, rest)])


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

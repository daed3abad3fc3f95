"""Where a study trains and measures: everything trained once, one JSON line a training, all of it resumable."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rsir import files
from rsir.config import RecursionConfig, to_dict
from rsir.data.load import split
from rsir.data.sequences import Sequences
from rsir.data.splits import Split
from rsir.errors import RunError
from rsir.evaluation import Evaluation, evaluate, paired_test
from rsir.metrics import CRITERION, HEADLINE, title
from rsir.models import Ensemble, ItemKnn, checkpoint
from rsir.models.itemknn import network_of, with_vote
from rsir.recursion.loop import recurse
from rsir.runs.directory import MANIFEST, RunDirectory
from rsir.runs.manifest import settled
from rsir.runs.results import Run
from rsir.runs.rounds import RoundResult, voters
from rsir.runtime.runtime import Runtime
from rsir.training.fit import fit
from rsir.training.voting import vote_weight

__all__ = ["COUNTED", "METRICS", "WITH_COUNT", "Lab", "Lines", "compare", "recipe", "spent"]

METRICS = tuple(metric for part, metric in HEADLINE if part == "test")
"""The test metrics that studies compare."""

WITH_COUNT = " + count"
"""What the name of an arm ends with whose networks the item-kNN votes beside."""
COUNTED = "comparison with the count"
"""Kind of the lines that compare arms with the item-kNN's vote with the base and that vote."""


class Lines:
    """A study's results, one JSON object a line; what is there already is not computed again.

    Parameters
    ----------
    path : Path
        Made with the first line.

    Raises
    ------
    RunError
        A line cannot be read.
    """

    _KEY = ("kind", "data", "backbone", "arm", "seed", "round")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = {self._key(line): line for line in _read(path)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._lines.values())

    def has(self, **key: Any) -> bool:
        """Whether there is a line with these values."""
        return any(all(line.get(name) == value for name, value in key.items()) for line in self)

    def put(self, line: dict[str, Any]) -> None:
        """Add a line, or replace the one of the same arm, seed and round."""
        self._lines[self._key(line)] = line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(files.plain(each), allow_nan=False) + "\n" for each in self)
        files.replace(self.path, text.encode())

    def _key(self, line: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line.get(name) for name in self._KEY)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as cause:
        raise RunError(f"{path}: cannot be read: {cause.strerror}") from cause
    for number, content in enumerate(text.splitlines(), 1):
        try:
            line = json.loads(content)
        except (ValueError, RecursionError) as cause:
            raise RunError(f"{path}, line {number}: is not JSON ({cause}); fix or remove the line") from cause
        if not isinstance(line, dict) or "kind" not in line:
            raise RunError(f"{path}, line {number}: expected a JSON object with a kind, as studies write it; remove it")
        yield line


@dataclass(frozen=True)
class Lab:
    """One data set, backbone and seed of a study. Networks recommend alone; the item-kNN's vote is an arm of its own.

    Attributes
    ----------
    name : str
        Name of the data.
    data : Sequences
    config : RecursionConfig
        The default recipe with the backbone and the seed; arms are changes of it.
    lines : Lines
    work : Path
        Runs and models; a later study finds there what it shares with this one.
    say : callable
        Called with a sentence about each thing that is computed.
    arms : tuple of str
        Those to compute beside the base; none means all.
    device : str
        Where models are trained, generate and are evaluated.
    recipe : str
        Name of a :func:`recipe`; noted in the lines.
    counting : bool
        Whether every arm is recorded with the item-kNN's vote, too, as an arm of its own.
    """

    name: str
    data: Sequences
    config: RecursionConfig
    lines: Lines
    work: Path
    say: Callable[[str], None]
    arms: tuple[str, ...] = ()
    device: str = "cpu"
    recipe: str = ""
    counting: bool = False

    @cached_property
    def parts(self) -> Split:
        """The data, split."""
        return split(self.data, self.config.data, self.config.seed)

    @cached_property
    def knn(self) -> ItemKnn:
        """The count of the training part."""
        return ItemKnn.fit(self.parts.train, self.config.itemknn)

    def check(self) -> None:
        """RunError if there are lines of other settings or data, which new ones would replace or be averaged with."""
        place = {"kind": "training", "data": self.name, "backbone": self.config.model.name}
        base = {"arm": "base", "seed": self.config.seed}
        for line in self.lines:
            if not place.items() <= line.items():
                continue
            if "recipe" in line:
                same = line["recipe"] == self.recipe
            else:  # lines of before there was a recipe: the seed's base tells
                same = not base.items() <= line.items() or line["settings"] == self._digest("base", self.config)
            if not same:
                raise RunError(
                    f"{self.lines.path}: has lines of {self.name}, {self.config.model.name} with other options, of "
                    "another file of that name or by another version of rsir; give what they were made with (the page "
                    "of rsir studies results shows the command), or another --out"
                )

    def base(self, config: RecursionConfig | None = None) -> Run:
        """The run of round 0 alone: the base that a configuration's rounds start from."""
        return self._run("base", replace(config or self.config, rounds=0), None)

    def wants(self, arm: str) -> bool:
        """Whether an arm is to be computed."""
        return not self.arms or arm in self.arms

    def bases(self, count: int) -> list[Run]:
        """The bases of this seed and of those after it, which a study over several seeds has trained already."""
        first = self.config.seed
        labs = [replace(self, config=replace(self.config, seed=seed)) for seed in range(first, first + count)]
        return [lab.base() for lab in labs]

    def record_base(self) -> None:
        """The base's line."""
        self.record_round_0("base", self.config)

    def record_round_0(self, arm: str, config: RecursionConfig) -> None:
        """The line of another configuration's base, as an arm of this lab."""
        run = self.base(config)
        self.record(arm, 0, network_of(run.model), config, **spent(run.rounds, config))

    def recursion(self, arm: str, config: RecursionConfig, *, retained: bool = False) -> Run:
        """Run rounds and record each. All of them are run: neither ``stop_after`` nor ``guard`` ends them early.

        Parameters
        ----------
        arm : str
        config : RecursionConfig
            A run that differs in nothing but the number of rounds, of whichever arm or study, is resumed.
        retained : bool
            Record what retention makes of each round, too: arms of their own, for its pair with its predecessor and for
            the models of all rounds so far.
        """
        run = self._run(arm, config, self.base(config))
        folder = run.path
        assert folder is not None
        for result in run.rounds[1 : config.rounds + 1]:
            k = result.round
            counts = {name: getattr(result, name) for name in ("acquired", "generated", "mean_length", "novel_share")}
            counts |= spent(run.rounds[: k + 1], config)
            for policy in ("none", "pair", "all") if retained else ("none",):
                name = arm if policy == "none" else f"{arm}, {policy}"
                if not all(self.lines.has(**self._cell(one, k, config)) for one in self._with_count(name)):
                    models = [self.model(run, number) for number in voters(policy, k)]
                    self.record(name, k, models[0] if len(models) == 1 else Ensemble(models), config, **counts)
        return run

    def model(self, run: Run, round_: int) -> Any:
        """The network of a round of a run."""
        assert run.path is not None
        return checkpoint.load(run.path / f"round-{round_:02d}").to(self.device)

    def lineages(self, arm: str, config: RecursionConfig, count: int) -> list[Any]:
        """The networks of one-round runs of this seed and those after it: of each the base and its successor."""
        found = []
        for seed in range(self.config.seed, self.config.seed + count):
            lab = replace(self, config=replace(self.config, seed=seed))
            own = replace(config, seed=seed, rounds=1)
            run = lab._run(arm, own, lab.base(own))
            found += [self.model(run, number) for number in (0, 1)]
        return found

    def training(self, arm: str, train: Callable[[], Sequences]) -> None:
        """Train on other sequences than a recursion's; recorded as round 1 of the arm."""
        config = self.config
        if self.lines.has(**self._cell(arm, 1, config)):
            return
        self.say(f"{self._where()} {arm}: training")
        sequences = train()
        validation, runtime = self.parts.validation, Runtime(device=self.device)
        trained = fit(config.model, config.training, sequences, validation, seed=config.seed, runtime=runtime)
        counts = {"steps": trained.steps, "seconds": trained.seconds, "acquired": int((~sequences.is_real).sum())}
        self.record(arm, 1, trained.model, config, **counts)

    def _with_count(self, arm: str) -> list[str]:
        """The arm, and the same with the item-kNN's vote where the lab counts."""
        return [arm, arm + WITH_COUNT] if self.counting else [arm]

    def record_count(self) -> None:
        """The line of the item-kNN alone."""
        self._record("count", 0, self.knn, self.config)

    def record(self, arm: str, round_: int, model: Any, config: RecursionConfig, **extra: Any) -> None:
        """Evaluate networks and write their line, unless there is one of the same settings; and that of the same with
        the item-kNN's vote, where the lab counts."""
        self._record(arm, round_, model, config, **extra)
        if self.counting and not self.lines.has(**self._cell(arm + WITH_COUNT, round_, config)):
            weight = vote_weight(model, self.knn, self.parts.validation)
            self._record(arm + WITH_COUNT, round_, with_vote(model, self.knn, weight), config, **extra, vote=weight)

    def _record(self, arm: str, round_: int, model: Any, config: RecursionConfig, **extra: Any) -> None:
        cell = self._cell(arm, round_, config)
        if self.lines.has(**cell):
            return
        parts = self.parts
        validation, test = (evaluate(model, tasks) for tasks in (parts.validation, parts.test))
        place = {"data": self.name, "backbone": self.config.model.name}
        for part, found in (("test", test), ("validation", validation)):
            ranks = _ranks_file(self.lines, place, arm, round_, self.config.seed, part)
            ranks.parent.mkdir(parents=True, exist_ok=True)
            np.save(ranks, found.ranks.astype(np.int16), allow_pickle=False)
        noted = {"recipe": self.recipe} if self.recipe else {}
        self.lines.put({**cell, **noted, "validation": validation.metrics, "test": test.metrics, **extra})
        gain = ", ".join(f"{name} {test.metrics[name]:.4f}" for name in METRICS)
        self.say(
            f"{self._where()} {arm}, round {round_}: {title(CRITERION, 'validation')} "
            f"{validation.metrics[CRITERION]:.4f}; {gain}"
        )

    def note(self, arm: str, round_: int, config: RecursionConfig, **values: float) -> None:
        """Write a line of other measurements of a training."""
        self.lines.put({**self._cell(arm, round_, config), "kind": "measurement", **values})

    def has_note(self, arm: str, round_: int, config: RecursionConfig) -> bool:
        """Whether :meth:`note` was called for it."""
        return self.lines.has(**{**self._cell(arm, round_, config), "kind": "measurement"})

    def _run(self, arm: str, config: RecursionConfig, base: Run | None) -> Run:
        kind = "base" if base is None else "recursion"
        digest = self._digest(arm, config)
        folder = self.work / "runs" / _file_name(self.name, config.model.name, kind, config.seed, digest)
        resume = (folder / MANIFEST).exists()
        if resume:
            begun = RunDirectory.open(folder).config
            # of the base, only what a base depends on has to be the same
            config = begun if base is None else replace(config, rounds=max(config.rounds, begun.rounds))
        config = replace(config, stop_after=config.rounds + 1, guard=False, itemknn=replace(config.itemknn, vote="off"))
        if not resume:
            self.say(f"{self._where()} {arm}: {config.rounds} rounds" if base else f"{self._where()} {arm}: training")
        runtime = Runtime(device=self.device)
        return recurse(config, data=self.data, out=folder, resume=resume, base=base, runtime=runtime)

    def _cell(self, arm: str, round_: int, config: RecursionConfig) -> dict[str, Any]:
        place = {"data": self.name, "backbone": self.config.model.name}
        cell = {"kind": "training", **place, "arm": arm, "seed": self.config.seed, "round": round_}
        return {**cell, "settings": self._digest(arm, config)}

    def _where(self) -> str:
        return f"{self.name} {self.config.model.name} seed {self.config.seed}"

    def _digest(self, arm: str, config: RecursionConfig) -> str:
        """Of everything that the models of an arm depend on."""
        settings = settled(to_dict(config))
        if arm == "base":
            parts = ("seed", "data", "model", "training")
            settings = {name: value for name, value in settings.items() if name.partition(".")[0] in parts}
        return _digest_of(settings, self.data)


def recipe(config: RecursionConfig, data: Sequences) -> str:
    """Digest of what the seeds and arms of a study have in common: all settings but the seed, and the data."""
    settings = settled(to_dict(config))
    del settings["seed"]
    return _digest_of(settings, data)


def _digest_of(settings: dict[str, Any], data: Sequences) -> str:
    text = json.dumps([settings, data.fingerprint()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def compare(lines: Lines) -> None:
    """Write how every arm and round compares with the base, over all seeds that both were trained with; and how those
    with the item-kNN's vote compare with the base and that vote, on validation, too.

    Gains of a user are averaged over seeds first; the test is paired over users.
    """
    _compare(lines, "comparison", "base", [("test", metric) for metric in METRICS], "")
    _compare(lines, COUNTED, "base" + WITH_COUNT, HEADLINE, WITH_COUNT)


def _compare(lines: Lines, kind: str, against: str, metrics: Sequence[tuple[str, str]], ending: str) -> None:
    """Lines of comparisons of arms whose names have an ending."""
    trained = [line for line in lines if line["kind"] == "training"]
    for data, backbone in dict.fromkeys((line["data"], line["backbone"]) for line in trained):
        place = {"data": data, "backbone": backbone}
        seeds: dict[tuple[str, int], list[int]] = {}
        for line in trained:
            if place.items() <= line.items():
                seeds.setdefault((line["arm"], line["round"]), []).append(line["seed"])
        for arm, round_ in seeds:
            both = sorted(set(seeds[arm, round_]) & set(seeds.get((against, 0), [])))
            if arm == against or not both or not arm.endswith(ending):
                continue
            tests = {}
            for part, metric in metrics:
                before, after = (
                    np.mean([_ranks(lines, place, *one, seed, part).gains(metric) for seed in both], axis=0)
                    for one in ((against, 0), (arm, round_))
                )
                name = metric if part == "test" else f"{part}/{metric}"
                tests[name] = vars(paired_test(before, after))
            comparison = {"kind": kind, **place, "arm": arm, "round": round_, "against": against}
            lines.put({**comparison, "seeds": both, **tests})


def _ranks(lines: Lines, place: dict[str, str], arm: str, round_: int, seed: int, part: str) -> Evaluation:
    file = _ranks_file(lines, place, arm, round_, seed, part)
    fix = "copy the ranks of every machine into one folder, or run this seed again in another --out"
    try:
        return Evaluation({}, np.load(file, allow_pickle=False).astype(np.int64))
    except FileNotFoundError as cause:
        raise RunError(f"{file}: is missing; {lines.path} has its training, whose p-values need it; {fix}") from cause
    except (OSError, ValueError, EOFError) as cause:
        raise RunError(f"{file}: cannot be read ({cause}); {fix}") from cause


def _ranks_file(lines: Lines, place: dict[str, str], arm: str, round_: int, seed: int, part: str) -> Path:
    """Where the ranks of a training are kept, beside its study's lines."""
    folder = lines.path.parent / "ranks" / lines.path.stem
    name = _file_name(place["data"], place["backbone"], arm, round_, seed, *(() if part == "test" else (part,)))
    return folder / f"{name}.npy"


def _file_name(*parts: object) -> str:
    return re.sub(r"[^\w.+-]+", "-", "-".join(map(str, parts)))


def spent(rounds: Sequence[RoundResult], config: RecursionConfig) -> dict[str, float]:
    """What a model took: steps of its own training, and seconds and operations of all rounds up to it."""
    seconds = float(sum(sum(result.seconds.values()) for result in rounds))
    cost = {"steps": rounds[-1].steps, "seconds": seconds}
    if config.model.name == "sasrec" and config.training.negatives:
        cost["operations"] = _operations(config, sum(result.tokens for result in rounds))
    return cost


def _operations(config: RecursionConfig, tokens: int) -> float:
    """Floating point operations of SASRec's projections and of its loss over that many tokens.

    Forward and backward, which takes twice as many. Attention itself, look-ups and the optimizer are left out: at these
    widths and history lengths they are a few per cent.
    """
    model = config.model
    projections = model.layers * (4 * model.dim**2 + 2 * model.dim * model.feedforward)
    return 3.0 * 2.0 * tokens * (projections + model.dim * config.training.negatives)

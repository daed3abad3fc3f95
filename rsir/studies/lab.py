"""Where a study trains and measures: everything trained once, one JSON line a training, all of it resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rsir.config import RecursionConfig, to_dict
from rsir.data.load import split
from rsir.data.sequences import Sequences, item_popularity
from rsir.data.splits import Split
from rsir.errors import RunError
from rsir.evaluation import evaluate
from rsir.metrics import CRITERION, title
from rsir.models import Ensemble, ItemKnn, Popularity, checkpoint
from rsir.models.itemknn import network_of, with_vote
from rsir.recursion.loop import recurse
from rsir.runs.directory import RunDirectory
from rsir.runs.layout import MANIFEST
from rsir.runs.manifest import settled
from rsir.runs.results import Run
from rsir.runs.rounds import RoundResult, voters
from rsir.runtime.runtime import Runtime
from rsir.studies.lines import BASES, METRICS, WITH_COUNT, Lines, file_name, ranks_file
from rsir.training.counting import searched
from rsir.training.fit import fit
from rsir.training.voting import best_vote, vote_weight

__all__ = ["RETAINED", "Lab", "recipe", "spent"]

RETAINED = ("none", "pair", "all")
"""What :meth:`Lab.recursion` can record of a round: its network alone, the pair with its predecessor, all so far."""


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
        """The count of the training part, its parameters searched where none are given."""
        config, parts = self.config.itemknn, self.parts
        return ItemKnn.fit(parts.train, searched(config, parts.train, parts.validation) if config.searches else config)

    @cached_property
    def voter(self) -> ItemKnn:
        """The count that votes: with the fixed parameters or those that were found, which the base chooses."""
        fixed = self.config.itemknn.filled()
        if self.knn.config == fixed:
            return self.knn
        counts = [ItemKnn.fit(self.parts.train, fixed), self.knn]
        return best_vote(network_of(self.base().model), counts, self.parts.validation)[0]

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

    def recursion(self, arm: str, config: RecursionConfig, *, policies: Sequence[str] = ("none",)) -> Run:
        """Run rounds and record each. All of them are run: neither ``stop_after`` nor ``guard`` ends them early.

        Parameters
        ----------
        arm : str
        config : RecursionConfig
            A run that differs in nothing but the number of rounds, of whichever arm or study, is resumed.
        policies : sequence of str
            Some of :data:`RETAINED`; each is an arm of its own.
        """
        run = self._run(arm, config, self.base(config))
        folder = run.path
        assert folder is not None
        for result in run.rounds[1 : config.rounds + 1]:
            k = result.round
            counts = {name: getattr(result, name) for name in ("acquired", "generated", "mean_length", "novel_share")}
            counts |= spent(run.rounds[: k + 1], config)
            for policy in policies:
                name = arm if policy == "none" else f"{arm}, {policy}"
                if not all(self.lines.has(**self._cell(one, k, config)) for one in self._with_count(name)):
                    models = [self.model(run, number) for number in voters(policy, k)]
                    self.record(name, k, models[0] if len(models) == 1 else Ensemble(models), config, **counts)
        return run

    def model(self, run: Run, round_: int) -> Any:
        """The network of a round of a run."""
        assert run.path is not None
        return checkpoint.load(run.path / f"round-{round_:02d}").to(self.device)

    def lineages(self, arm: str, config: RecursionConfig, count: int, rounds: Sequence[int] = (0, 1)) -> list[Any]:
        """Networks of one-round runs of this seed and those after it: of each the base and its successor, or one."""
        found = []
        for seed in range(self.config.seed, self.config.seed + count):
            lab = replace(self, config=replace(self.config, seed=seed))
            own = replace(config, seed=seed, rounds=1)
            run = lab._run(arm, own, lab.base(own))
            found += [self.model(run, number) for number in rounds]
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
        self._record("count", 0, self.knn, self.config, parameters=self.knn.config.parameters())

    def record_popularity(self) -> None:
        """The line of the most popular items."""
        self._record("popularity", 0, Popularity(item_popularity(self.parts.train)), self.config)

    def record_bases(self, count: int) -> None:
        """The line of the bases of this seed and of those after it together, with what all of them took."""
        bases = self.bases(count)
        each = [spent(run.rounds, self.config) for run in bases]
        together = {name: sum(cost[name] for cost in each) for name in each[0]}
        self.record(BASES[count], 0, Ensemble([network_of(run.model) for run in bases]), self.config, **together)

    def record(self, arm: str, round_: int, model: Any, config: RecursionConfig, **extra: Any) -> None:
        """Evaluate networks and write their line, unless there is one of the same settings; and that of the same with
        the item-kNN's vote, where the lab counts."""
        self._record(arm, round_, model, config, **extra)
        if self.counting and not self.lines.has(**self._cell(arm + WITH_COUNT, round_, config)):
            weight = vote_weight(model, self.voter, self.parts.validation)
            said = {"vote": weight, "voter": "found" if self.voter is self.knn else "fixed"}
            self._record(arm + WITH_COUNT, round_, with_vote(model, self.voter, weight), config, **extra, **said)

    def _record(self, arm: str, round_: int, model: Any, config: RecursionConfig, **extra: Any) -> None:
        cell = self._cell(arm, round_, config)
        if self.lines.has(**cell):
            return
        parts = self.parts
        validation, test = (evaluate(model, tasks) for tasks in (parts.validation, parts.test))
        place = {"data": self.name, "backbone": self.config.model.name}
        for part, found in (("test", test), ("validation", validation)):
            ranks = ranks_file(self.lines, place, arm, round_, self.config.seed, part)
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
        folder = self.work / "runs" / file_name(self.name, config.model.name, kind, config.seed, digest)
        resume = (folder / MANIFEST).exists()
        if resume:
            begun = RunDirectory.open(folder).config
            # of the base, only what a base depends on has to be the same
            config = begun if base is None else replace(config, rounds=max(config.rounds, begun.rounds))
        alone = replace(config.itemknn, vote="off", search="off")
        config = replace(config, stop_after=config.rounds + 1, guard=False, itemknn=alone)
        if not resume:
            self.say(f"{self._where()} {arm}: {config.rounds} rounds" if base else f"{self._where()} {arm}: training")
        runtime = Runtime(device=self.device)
        return recurse(config, data=self.data, out=folder, resume=resume, start=base, runtime=runtime)

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

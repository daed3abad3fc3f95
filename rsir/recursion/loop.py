"""The loop: train, generate, verify, acquire, train the successor on what was acquired, and again.

RSIR, arXiv 2602.15659, algorithm 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rsir.config import RecursionConfig, to_dict
from rsir.data.batches import SoftTargets
from rsir.data.io.events import Reading
from rsir.data.load import load_log, split
from rsir.data.sequences import Sequences
from rsir.data.splits import EvaluationSet, Split
from rsir.data.summary import summary
from rsir.errors import DataError, Interrupted
from rsir.evaluation import Evaluation, difference_beyond_seeds, evaluate, mean_interval
from rsir.files import local
from rsir.generation.acquisition import acquire, novel_share
from rsir.generation.fidelity import build
from rsir.generation.generate import generate
from rsir.models import Ensemble, checkpoint, pack_items
from rsir.recursion.checks import check_run
from rsir.report.page import write as write_report
from rsir.runs.directory import RunDirectory
from rsir.runs.lineage import voters
from rsir.runs.manifest import settled
from rsir.runs.opening import open_run
from rsir.runs.results import (
    DATA,
    METRICS,
    RoundResult,
    Run,
    best_round,
    is_over,
    load_model,
    load_recommender,
    read_data,
    read_round,
)
from rsir.runtime.interrupts import check, prepare_arrow
from rsir.runtime.profiling import FOLDER, Tracer
from rsir.runtime.progress import Progress, silent, timed
from rsir.runtime.resume import Checkpointer, never
from rsir.runtime.world import ALONE, World
from rsir.training.fit import CRITERION, fit, item_popularity
from rsir.training.soft_targets import soft_targets

__all__ = ["Interrupted", "recurse"]


def recurse(
    config: RecursionConfig,
    *,
    data: Sequences | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
    on_data: Callable[[str], None] | None = None,
    on_round: Callable[[RoundResult], None] | None = None,
    profile: bool = False,
    base: Run | None = None,
    stop: Callable[[], bool] = never,
    world: World = ALONE,
) -> Run:
    """Let a recommender improve itself.

    Parameters
    ----------
    config : RecursionConfig
    data : Sequences, optional
        Real sequences; default: what ``config.data`` names, or what a resumed run's folder holds where that file is
        not there.
    out : path, optional
        Folder for the run (:mod:`rsir.runs.directory`); without one nothing is written.
    resume : bool
        Go on with the run in ``out`` after its last finished round; the result is what it would have been
        without the interruption.
    device : str
        Of the backbone: "cpu" or "cuda".
    threads : int, optional
        CPU threads of the scoring ops; default: torch's number.
    progress : Progress
    on_data : callable, optional
        Called with a line on what was read (:func:`rsir.data.summary.summary`), before anything is computed.
    on_round : callable, optional
        Called with each finished round's result, also with those read back when resuming.
    profile : bool
        Trace a part of every round's training and generation (:mod:`rsir.runtime.profiling`) into ``out``/profile.
    base : Run, optional
        A run of no rounds but 0: its model is taken for round 0 and not trained again, for runs that differ only in
        what comes after. Data, split, backbone, training and seed must be the same.
    stop : callable, optional
        Asked after every step of training and decoding; once it is true, what has been computed is saved in ``out`` and
        Interrupted is raised.
    world : World, optional
        Processes that call this together (:mod:`rsir.runtime.world`), with the same data and settings; ``out`` is a
        folder that they share. The first one alone writes it, calls ``on_round``, and traces.

    Returns
    -------
    Run

    Raises
    ------
    DataError, ConfigError, BackboneError, RunError
        Input that cannot be used; nothing has been written then.
    TrainingError, GenerationError
        A training diverged, or memory ran out; the round is not marked finished.
    Interrupted
        ``stop`` asked for it.
    WorldError
        Another of several processes has ended.
    """
    if profile and out is None:
        raise ValueError("profile: traces are written into the run's folder, expected out, got None")
    prepare_arrow()
    reading = None
    if data is None:
        data, reading = _data_of(config, out if resume else None)
    check()
    parts = split(data, config.data, config.seed)
    if on_data is not None and world.is_main:
        on_data(summary(data, parts, reading))
    check_run(config, data, parts.train, base)
    check()
    directory = open_run(out, config, data, resume, world)
    tracer = Tracer(directory.path / FOLDER, progress) if profile and directory is not None and world.is_main else None
    try:
        if directory is not None and world.is_main and not (directory.path / DATA).exists():
            directory.write_sequences(DATA, data)
        loop = _Loop(config, parts, directory, device, threads, tracer or progress, base, stop, world)
        rounds: list[RoundResult] = []
        for round_ in range(config.rounds + 1):
            rounds.append(loop.round(round_))
            if directory is not None and world.is_main:
                lines = (json.dumps(result.metrics(), sort_keys=True, allow_nan=False) for result in rounds)
                directory.write_bytes(METRICS, "".join(line + "\n" for line in lines).encode())
                if round_ + 1 >= loop.finished:
                    write_report(directory, data, rounds)
            if on_round is not None and world.is_main:
                on_round(rounds[-1])
            if round_ + 1 >= loop.finished and is_over(config, rounds):  # never before what a run has already
                break
        best = best_round(rounds)
        path = None if directory is None else directory.path
        return Run(config, data, rounds, best, loop.best_model(best), path)
    finally:
        if tracer is not None:
            tracer.close()
        if directory is not None:
            directory.close()


def _data_of(config: RecursionConfig, resumed: str | Path | None) -> tuple[Sequences, Reading]:
    """What the configuration names, or what a resumed run's folder holds where its file is not there any more."""
    if resumed is not None and config.data.path is not None and not local(config.data.path, DataError).exists():
        directory = RunDirectory.open(resumed)
        if directory.config.data.path == config.data.path:  # else a new place was given, which is not there
            return read_data(directory), Reading(name=str(Path(resumed) / DATA), format="kept by the run")
    return load_log(config)


_COMPARED = [("validation", "ndcg@20"), ("test", "recall@10"), ("test", "ndcg@10")]
"""What is compared with round 0, user by user."""


class _Loop:
    """The state that one round hands to the next: the newest model and what was acquired so far."""

    def __init__(
        self,
        config: RecursionConfig,
        parts: Split,
        directory: RunDirectory | None,
        device: str,
        threads: int | None,
        progress: Progress,
        base: Run | None,
        stop: Callable[[], bool],
        world: World,
    ) -> None:
        self.config, self.parts, self.directory, self.base = config, parts, directory, base
        self.device, self.threads, self.progress, self.stop = device, threads, progress, stop
        self.world = world
        self.finished = 0 if directory is None else world.broadcast_object(directory.finished_rounds)
        self.popularity = item_popularity(parts.train)
        self.acquired: list[Sequences] = []
        self.model: Any = None
        self.older: list[Any] = []  # models that recommend beside the newest, oldest first
        self.kept_models: dict[int, Any] = {}  # best so far, where there is no folder to read it from
        self.results: list[RoundResult] = []
        self.best_gains: Any = None  # of the best round so far, task by task on validation
        self.base_gains: dict[str, np.ndarray] = {}  # of round 0, task by task, by part and metric

    def round(self, round_: int) -> RoundResult:
        if round_ < self.finished:
            result = self._read(round_)
        else:
            result = self._make(round_) if round_ > 0 or self.base is None else self._take_over(self.base)
            if self.directory is not None and self.world.is_main:
                self._write(result)
            self.world.barrier()  # the others read what was written
        self.results.append(result)
        if self.directory is None and best_round(self.results) == round_:
            self.kept_models = {round_: self._recommender()}
        return result

    def best_model(self, best: int) -> Any:
        if self.directory is None:
            return self.kept_models[best]
        return load_recommender(self.directory, best, self.device)

    def _recommender(self) -> Any:
        """What the newest round recommends with: its model, or the ensemble that retention makes of it."""
        return Ensemble([*self.older, self.model]) if self.older else self.model

    def _succeed(self, model: Any, round_: int) -> None:
        """Make a round's model the newest."""
        older = len(voters(self.config.retention, round_)) - 1
        self.older = [*self.older, self.model][-older:] if older else []
        self.model = model

    def _make(self, round_: int) -> RoundResult:
        config = self.config
        seconds: dict[str, float] = {}
        counts: dict[str, Any] = {"generated": 0, "verified": 0, "acquired": 0}
        counts |= dict.fromkeys(("novel_share", "mean_length", "leak"), float("nan"))
        partial = self._partial(round_)
        if round_ > 0:
            with timed(seconds, "generate"):
                counts = self._generate(round_, partial)
        train = self._training_set()
        with timed(seconds, "train"):
            trained = fit(
                config.model,
                config.training,
                train,
                self.parts.validation,
                seed=_training_seed(config.seed, round_),
                init=self._initial(round_),
                device=self.device,
                progress=self._progress_of(round_),
                partial=partial,
                soft=self._soft_targets(round_, train),
                world=self.world,
            )
        self._succeed(trained.model, round_)
        with timed(seconds, "evaluate"):
            recommender = self._recommender()
            validation = self._evaluate(recommender, self.parts.validation)
            test = self._evaluate(recommender, self.parts.test)
            paired = recommender is not self.model
            alone = self._evaluate(self.model, self.parts.validation).metrics if paired else {}
            against_best = self._compare(validation.gains(CRITERION))
            against_base = self._compare_with_base({"validation": validation, "test": test})
        result = RoundResult(
            round=round_,
            sequences=int((train.lengths > 0).sum()),
            **counts,
            validation=validation.metrics,
            test=test.metrics,
            alone=alone,
            against_best=against_best,
            against_base=against_base,
            history=trained.curves,
            steps=trained.steps,
            best_step=trained.best_step,
            tokens=trained.tokens,
            seconds=seconds,
            rates=self._rates(seconds, counts["generated"], trained.tokens_per_second),
        )
        return result

    def _partial(self, round_: int) -> Checkpointer:
        if self.directory is None:
            return Checkpointer(None, lambda *_, **__: None, self.stop)
        folder = self.directory.partial(round_) if self.world.is_main else self.directory.partial_path(round_)
        return Checkpointer(folder, self.directory.log, self.stop, self.world)

    def _take_over(self, base: Run) -> RoundResult:
        self.model = base.model
        return base.rounds[0]

    def _rates(self, seconds: dict[str, float], generated: int, tokens: float) -> dict[str, float]:
        users = len(self.parts.validation) + len(self.parts.test)
        rates = {"tokens/s": tokens, "users/s": users / seconds["evaluate"]}
        return rates | ({"trajectories/s": generated / seconds["generate"]} if "generate" in seconds else {})

    def _generate(self, round_: int, partial: Checkpointer) -> dict[str, Any]:
        """Let the newest recommender generate, verify and acquire; -> what to report of it."""
        config = self.config
        sources = self.parts.train if config.sources == "real" else self._training_set()
        generator = self._recommender()
        table = pack_items(generator, dtype=config.item_table)
        policy = build(config.fidelity, generator.item_embeddings().detach(), round_, table, self.world)
        found = generate(
            generator,
            sources,
            config.generation,
            policy,
            seed=config.seed,
            round_=round_,
            on_fail=config.fidelity.on_fail,
            table=table,
            threads=self.threads,
            progress=self._progress_of(round_),
            partial=partial,
            world=self.world,
        )
        new = acquire(
            found.trajectories, config.acquisition, generator, seed=config.seed, round_=round_, world=self.world
        )
        self._take(new)
        trusting = config.fidelity.verify == "trust" and getattr(policy, "index", None) is not None
        return {
            "generated": found.stats.decoded,
            "verified": len(found.trajectories),
            "acquired": len(new),
            "novel_share": novel_share(new, self.parts.train),
            "mean_length": float(new.lengths.mean()) if len(new) else float("nan"),
            "leak": found.stats.leak if trusting else float("nan"),
        }

    def _take(self, new: Sequences) -> None:
        self.acquired = [*self.acquired, new] if self.config.accumulate else [new]

    def _training_set(self) -> Sequences:
        return Sequences.concat(self.parts.train, *self.acquired)

    def _initial(self, round_: int) -> Any:
        """The model whose weights the successor starts from; None starts afresh."""
        return self.model if round_ > 0 and self.config.successor == "finetune" else None

    def _soft_targets(self, round_: int, train: Sequences) -> SoftTargets | None:
        """The generator's expectation at the positions that its successor trains on."""
        if round_ == 0 or self.config.distillation.share == 0:
            return None
        return soft_targets(
            self._recommender(), train, self.config.distillation, threads=self.threads, world=self.world
        )

    def _evaluate(self, model: Any, tasks: EvaluationSet) -> Evaluation:
        table = pack_items(model, dtype=self.config.item_table)
        return evaluate(model, tasks, popularity=self.popularity, table=table, threads=self.threads, world=self.world)

    def _compare(self, gains: np.ndarray) -> dict[str, float]:
        """The newest round's gains on validation with those of the best round before, which they replace if better."""
        if not self.results:
            self.best_gains = gains
            return {}
        best = best_round(self.results)
        if self.best_gains is None:  # read back, or taken over
            self.best_gains = self._evaluate(self.best_model(best), self.parts.validation).gains(CRITERION)
        difference, low, high = difference_beyond_seeds(self.best_gains, gains, self.config.guard_noise)
        if gains.mean() > self.best_gains.mean():
            self.best_gains = gains
        bounds = {"low": low, "high": high} if len(gains) > 1 else {}  # of one user's gain there is no interval
        return {"round": best, "difference": difference, **bounds}

    def _compare_with_base(self, evaluations: dict[str, Evaluation]) -> dict[str, list[float]]:
        """How much the newest round gains over round 0, user by user."""
        if not self.results:
            self.base_gains = _gains(evaluations)
            return {}
        if not self.base_gains:  # read back, or taken over
            model = self._base_model()
            of = {"validation": self.parts.validation, "test": self.parts.test}
            self.base_gains = _gains({part: self._evaluate(model, tasks) for part, tasks in of.items()})
        gains = _gains(evaluations)
        return {
            name: list(mean_interval(gains[name] - base)) for name, base in self.base_gains.items() if len(base) > 1
        }

    def _base_model(self) -> Any:
        if self.base is not None:
            return self.base.model
        assert self.directory is not None  # else round 0 was made in this process
        return load_recommender(self.directory, 0, self.device)

    def _progress_of(self, round_: int) -> Progress:
        def report(phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
            self.progress(f"round {round_} {phase}", done, total, unit, note)

        return report

    def _write(self, result: RoundResult) -> None:
        assert self.directory is not None
        name = self.directory.start_round(result.round)
        checkpoint_files = checkpoint.to_files(
            self.model,
            self.config.model,
            metrics=result.validation,
            data=self.directory.data,
            settings=settled(to_dict(self.config)),
        )
        for file, content in checkpoint_files.items():
            self.directory.write_bytes(f"{name}/{file}", content)
        if result.round > 0:
            self.directory.write_sequences(f"{name}/trajectories.parquet", self.acquired[-1])
        self.directory.write_json(f"{name}/metrics.json", result.metrics())
        self.directory.write_json(f"{name}/timings.json", {"seconds": result.seconds, "rates": result.rates})
        self.directory.finish_round(result.round)

    def _read(self, round_: int) -> RoundResult:
        assert self.directory is not None
        folder = self.directory.round_path(round_)
        if round_ > 0:
            self._take(Sequences.load(folder / "trajectories.parquet"))
        if round_ in voters(self.config.retention, self.finished - 1):
            self._succeed(self._load_model(round_), round_)
        return read_round(self.directory, round_)

    def _load_model(self, round_: int) -> Any:
        assert self.directory is not None
        return load_model(self.directory, round_, self.device)


def _gains(evaluations: dict[str, Evaluation]) -> dict[str, np.ndarray]:
    return {f"{part}/{metric}": evaluations[part].gains(metric) for part, metric in _COMPARED}


def _training_seed(seed: int, round_: int) -> int:
    """Every round trains with randomness of its own."""
    return int(np.random.SeedSequence([seed, round_]).generate_state(1, np.uint64)[0]) >> 1

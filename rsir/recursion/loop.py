"""The loop: train, generate, verify, acquire, train the successor on what was acquired, and again.

RSIR, arXiv 2602.15659, algorithm 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rsir.config import RecursionConfig
from rsir.data.batches import SoftTargets
from rsir.data.io.items import ITEMS, ItemVectors, with_items
from rsir.data.load import split
from rsir.data.sequences import Sequences, item_popularity
from rsir.data.splits import Split
from rsir.data.summary import summary
from rsir.errors import ConfigError, Interrupted, RunError
from rsir.evaluation import Evaluation, by_thirds, evaluate
from rsir.files import plain
from rsir.generation.acquisition import novel_share
from rsir.generation.enrich import Enricher
from rsir.generation.times import with_times
from rsir.models import ItemKnn, pack_items
from rsir.models.itemknn import Unseen, WithItemKnn, network_of, with_vote
from rsir.models.times import decided
from rsir.objects.address import Address
from rsir.recursion.baselines import baselines, counted
from rsir.recursion.checks import check_run
from rsir.recursion.comparison import Comparison
from rsir.recursion.counts import Counts
from rsir.recursion.start import Start, data_of, items_of, known_parameters
from rsir.report.page import REPORT, Report
from rsir.runs.layout import BASELINES, METRICS, UPDATE
from rsir.runs.lineage import Lineage
from rsir.runs.opening import open_run
from rsir.runs.results import Run
from rsir.runs.rounds import RoundResult, best_round, is_over
from rsir.runs.store import RunStore
from rsir.runtime.interrupts import check, prepare_arrow
from rsir.runtime.progress import timed
from rsir.runtime.resume import Checkpoints
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.runtime.torch_state import plain_torch
from rsir.training.fit import fit, training_seed
from rsir.training.projection import fold
from rsir.training.soft_targets import counted_targets, soft_targets

__all__ = ["Interrupted", "recurse"]


@plain_torch()
def recurse(
    config: RecursionConfig,
    *,
    data: Sequences | None = None,
    out: str | Path | Address | None = None,
    resume: bool = False,
    runtime: Runtime = RUNTIME,
    on_data: Callable[[str], None] | None = None,
    on_round: Callable[[RoundResult], None] | None = None,
    start: Run | Start | None = None,
) -> Run:
    """Let a recommender improve itself.

    Parameters
    ----------
    config : RecursionConfig
    data : Sequences, optional
        Real sequences; default: what ``config.data`` names, or what a resumed run's folder holds where that file is
        not there.
    out : path, optional
        Folder for the run (:mod:`rsir.runs.directory`), or an address such as ``s3://bucket/run``
        (:mod:`rsir.runs.remote`); without one nothing is written.
    resume : bool
        Resume the run in ``out`` after its last finished round; the result is what it would have been
        without the interruption.
    runtime : Runtime, optional
        Device, threads, progress, who asks to stop, and the processes that call this together, with the same data and
        settings; these share ``out``. The first one alone writes it, calls ``on_data`` and ``on_round``, and traces.
    on_data : callable, optional
        Called with a line on what was read (:func:`rsir.data.summary.summary`), before anything is computed.
    on_round : callable, optional
        Called with each finished round's result, also with those read back when resuming.
    start : Run or Start, optional
        A run of no rounds but 0: its model is taken for round 0 and not trained again, for runs that differ only in
        what comes after; data, split, backbone, training and seed must be the same. Or, where the run goes on from
        another with new events, what is kept of that one (:mod:`rsir.recursion.update`).

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
        ``runtime.stop`` asked for it; what has been computed is saved in ``out``.
    WorldError
        Another of several processes has ended.
    """
    if runtime.profile and out is None:
        raise ConfigError("profile: traces are written into the run's folder, expected out, got None")
    world = runtime.world
    base, start = (start, None) if isinstance(start, Run) else (None, start)
    prepare_arrow()
    reading = None
    if data is None:
        data, reading = data_of(config, out if resume else None)
    items = None
    if config.data.items is not None:
        data, items = with_items(data, *items_of(config, start, out if resume else None))
    config = replace(config, model=decided(config.model, data))
    check()
    parts = split(data, config.data, config.seed, timed=config.model.times == "on")
    if on_data is not None:
        world.on_main(on_data)(summary(data, parts, reading))
    check_run(config, data, parts.train, base)
    check()
    store = open_run(out, config, data, resume, world, runtime.device)
    try:
        traced = replace(runtime, progress=store.traced(runtime.progress)) if runtime.profile else runtime
        knn = counted(parts, config.itemknn, runtime, items=items, known=known_parameters(store, base))
        _begin(store, start)
        loop = _Loop(config, parts, store, base, start, knn, items, traced)
        if items is not None:
            store.write(ITEMS, lambda: items.encode(data))
        beside = baselines(parts, loop.popularity, knn, runtime)
        store.write(BASELINES, lambda: _json(beside))
        report = Report(config, data, parts.train, beside, None if items is None else items.titles)
        tell = world.on_main(on_round)
        rounds, name = loop.results, "" if store.path is None else store.path.resolve().name
        for round_ in range(config.rounds + 1):
            result = loop.round(round_)
            report.add(result, loop.acquired[-1] if round_ > 0 else None)
            store.write(METRICS, lambda: _lines(rounds))
            ended = round_ + 1 >= store.finished  # never before what a run has already
            if ended:
                store.write(REPORT, lambda: report.page(name, store.environment()).encode())
            tell(result)
            if ended and is_over(config, rounds):
                break
        best = best_round(rounds)
        lineage = () if start is None else tuple(start.said["lineage"])
        return Run(config, data, rounds, best, loop.recommender(best), store.path, beside, lineage=lineage)
    finally:
        store.close()


def _begin(store: RunStore, start: Start | None) -> None:
    """Note what a run goes on from; refuse to resume one as if it had begun from nothing."""
    if start is not None:
        store.write(UPDATE, lambda: _json(start.said))
    elif store.path is not None and (store.path / UPDATE).exists():
        raise RunError(f"{store.path}: goes on from another run; resume it by rsir update RUN --data FILE --resume")


def _json(values: Any) -> bytes:
    return (json.dumps(plain(values), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _lines(rounds: list[RoundResult]) -> bytes:
    """The content of metrics.jsonl."""
    lines = (json.dumps(result.metrics(), sort_keys=True, allow_nan=False) for result in rounds)
    return "".join(line + "\n" for line in lines).encode()


class _Loop:
    """The state that one round hands to the next: the models and what was acquired so far."""

    def __init__(
        self,
        config: RecursionConfig,
        parts: Split,
        store: RunStore,
        base: Run | None,
        start: Start | None,
        knn: ItemKnn | None,
        items: ItemVectors | None,
        runtime: Runtime,
    ) -> None:
        self.config, self.parts, self.store, self.base, self.knn = config, parts, store, base, knn
        self.start, self.items, self.runtime = start, items, runtime
        self.popularity = item_popularity(parts.train)
        self.lineage = Lineage(store, config.retention, runtime.device)
        self.comparison = Comparison(self._evaluate_round, self._evaluate_network, config.guard_noise)
        self.acquired: list[Sequences] = []
        self.results: list[RoundResult] = []
        self.counts = Counts(config, parts, knn, items, self.results, runtime)
        if store.finished:
            self.lineage.read_back(store.finished - 1)

    def round(self, round_: int) -> RoundResult:
        if round_ < self.store.finished:
            result = self._read(round_)
        else:
            result = self._make(round_) if round_ > 0 or self.base is None else self._take_over(self.base)
            self.store.write_round(result, self.lineage.newest, self.acquired[-1] if round_ > 0 else None)
        self.results.append(result)
        return result

    def _make(self, round_: int) -> RoundResult:
        config = self.config
        seconds: dict[str, float] = {}
        counts: dict[str, Any] = {"generated": 0, "verified": 0, "acquired": 0}
        counts |= dict.fromkeys(("novel_share", "mean_length", "leak"), float("nan"))
        checkpointer, runtime = self.store.checkpointer(round_), self.runtime.within(f"round {round_}")
        if round_ > 0:
            with timed(seconds, "generate"):
                counts = self._generate(round_, checkpointer, runtime)
        train = self._training_set()
        with timed(seconds, "train"):
            trained = fit(
                config.model,
                config.training,
                train,
                self.parts.validation,
                seed=training_seed(config.seed, round_),
                init=self._initial(round_),
                checkpointer=checkpointer,
                soft=self._soft_targets(round_, train),
                runtime=runtime,
            )
        fold(trained.model, self.items, self.parts.train, config.training.item_trust)
        self.lineage.append(round_, trained.model)
        with timed(seconds, "evaluate"):
            networks = self.lineage.recommender()
            voter, vote = self.counts.choose(networks)
            recommender = with_vote(networks, voter, vote)
            found = {part: self._evaluate(recommender, part) for part in ("validation", "test")}
            alone, itself = found, recommender is trained.model
            if not itself:
                alone = {part: self._evaluate(trained.model, part) for part in found}
            compared = self.comparison.add(self.results, found, alone)
        return RoundResult(
            round=round_,
            sequences=int((train.lengths > 0).sum()),
            **counts,
            validation=found["validation"].metrics,
            test=found["test"].metrics,
            alone={} if itself else alone["validation"].metrics,
            alone_test={} if itself else alone["test"].metrics,
            groups=self._groups(found["test"]),
            vote=vote,
            itemknn={} if voter is None else voter.config.parameters(),
            **compared,
            history=trained.curves,
            steps=trained.steps,
            best_step=trained.best_step,
            tokens=trained.tokens,
            seconds=seconds,
            rates=self._rates(seconds, counts["generated"], trained.tokens_per_second),
        )

    def _take_over(self, base: Run) -> RoundResult:
        self.lineage.append(0, network_of(base.model))
        return base.rounds[0]

    def _rates(self, seconds: dict[str, float], generated: int, tokens: float) -> dict[str, float]:
        users = len(self.parts.validation) + len(self.parts.test)
        rates = {"tokens/s": tokens, "users/s": users / seconds["evaluate"]}
        return rates | ({"trajectories/s": generated / seconds["generate"]} if "generate" in seconds else {})

    def _generate(self, round_: int, checkpointer: Checkpoints, runtime: Runtime) -> dict[str, Any]:
        """Let the newest recommender generate, verify and acquire; -> what to report of it."""
        config = self.config
        sources = self.parts.train if config.sources == "real" else self._training_set()
        settings = config.generation, config.fidelity, config.acquisition, config.item_table, config.seed
        enricher = Enricher(*settings, runtime, self._unseen()).bind(self._generator(), round_)
        found = enricher.generate(sources, checkpointer)
        new = enricher.acquire(found.trajectories)
        self._take(new)
        return {
            "generated": found.stats.decoded,
            "verified": len(found.trajectories),
            "acquired": len(new),
            "novel_share": novel_share(new, self.parts.train),
            "mean_length": float(new.lengths.mean()) if len(new) else float("nan"),
            "leak": enricher.leak(found.stats),
        }

    def _generator(self) -> Any:
        """What generates and verifies for the next round."""
        kind, networks = self.config.generation.generator, self.lineage.recommender()
        if kind == "networks":
            return networks
        if self.knn is None:
            raise ConfigError(
                f"generation.generator {kind}: expected an item-kNN, which the limit on memory has no room for"
            )
        if kind == "itemknn":
            return WithItemKnn.alone(self.knn)
        return self.counts.beside_generator(networks)

    def _unseen(self) -> Callable[[], Unseen] | None:
        """What makes the item-kNN without the user; None where there is no item-kNN."""
        return None if self.knn is None else partial(Unseen, self.knn, self.parts.train)

    def _take(self, new: Sequences) -> None:
        if self.config.model.times == "on" and new.times is None:  # of a generator that knows none
            new = with_times(new, self.parts.train)
        self.acquired = [*self.acquired, new] if self.config.accumulate else [new]

    def _training_set(self) -> Sequences:
        return Sequences.concat(self.parts.train, *self.acquired)

    def _initial(self, round_: int) -> Any:
        """The model, or the weights, that the training starts from; None starts afresh."""
        if self.start is not None:
            return self.start.weights(round_)
        return self.lineage.newest if round_ > 0 and self.config.successor == "finetune" else None

    def _soft_targets(self, round_: int, train: Sequences) -> SoftTargets | None:
        """The teacher's expectation at the positions that the round trains on."""
        config = self.config.distillation
        if config.share > 0 and config.teacher == "itemknn":
            return None if self.knn is None else counted_targets(self.knn, train, config, threads=self.runtime.threads)
        if round_ == 0 or config.share == 0:
            return None
        teacher = self.lineage.recommender()
        if config.teacher == "recommender":
            teacher = self.counts.beside(teacher, -1)
        return soft_targets(teacher, train, config, runtime=self.runtime)

    def _evaluate(self, model: Any, part: str) -> Evaluation:
        return evaluate(
            model,
            getattr(self.parts, part),
            popularity=self.popularity,
            table=pack_items(model, dtype=self.config.item_table),
            runtime=self.runtime,
        )

    def _groups(self, found: Evaluation) -> dict[str, list[dict[str, float]]]:
        """The metrics on test of users in groups."""
        tasks = self.parts.test
        lengths, popularity = tasks.histories.lengths, self.popularity[tasks.targets]
        return {"history length": by_thirds(found, lengths), "target popularity": by_thirds(found, popularity)}

    def _evaluate_round(self, round_: int, part: str) -> Evaluation:
        return self._evaluate(self.recommender(round_), part)

    def _evaluate_network(self, round_: int, part: str) -> Evaluation:
        return self._evaluate(self.store.load_model(round_, self.runtime.device), part)

    def recommender(self, round_: int) -> Any:
        """What a finished round recommends with, the item-kNN's vote included."""
        return self.counts.beside(self.lineage.recommender(round_), round_)

    def _read(self, round_: int) -> RoundResult:
        if round_ > 0:
            self._take(self.store.trajectories(round_))
        return self.store.read_round(round_)

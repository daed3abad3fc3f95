"""What a recursion comes to: its rounds, its best model; and finished runs back from their folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from rsir.config import RecursionConfig
from rsir.config.arguments import typed
from rsir.config.values import shown
from rsir.data.io.items import ItemVectors, read_titles
from rsir.data.load import split
from rsir.data.sequences import Sequences
from rsir.data.splits import Repeats
from rsir.data.warn import warn
from rsir.errors import DataError, RunError
from rsir.models import ItemKnn, pack_items
from rsir.models.itemknn import with_vote
from rsir.objects.copies import fetched
from rsir.ops import ItemTable
from rsir.runs import summary
from rsir.runs.ancestry import read_lineage
from rsir.runs.baselines import Baselines, parameters_of, read_baselines
from rsir.runs.directory import RunDirectory
from rsir.runs.inputs import read_counted_vectors, read_data
from rsir.runs.layout import MANIFEST, REFIT
from rsir.runs.lineage import Lineage
from rsir.runs.rounds import RoundResult, best_round
from rsir.runs.store import Follower
from rsir.runtime.environment import check_device
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.runtime.torch_state import plain_torch
from rsir.serving.output import Recommendations, left_out, recommendations
from rsir.serving.recommender import Recommender, Similarity

__all__ = ["Run", "enriched", "load"]


@dataclass(frozen=True, repr=False)
class Run:
    """A finished recursion: its rounds and the model of the best one.

    Attributes
    ----------
    config : RecursionConfig
    data : Sequences
        The real sequences, held-out events included.
    rounds : list of RoundResult
    best : int
        The round with the highest validation NDCG@20; among equals the earliest.
    model : Backbone
        That round's model; with retention, the ensemble that it is one of; with ``itemknn.vote``, the item-kNN beside
        it (:class:`rsir.models.WithItemKnn`).
    path : Path or None
        The run's folder.
    baselines : dict
        What the rounds stand beside: metrics of the item-kNN and of popularity, by name and part; empty for a run of an
        earlier version.
    refitted : bool
        Whether the model was trained on all events (:meth:`refit`): ``rounds`` are then those of the run it was made
        from, and their metrics are not this model's.
    lineage : tuple of dict
        The runs that it goes on from (:meth:`update`), the oldest first, a dict each: name of the "run", fingerprint of
        its "data", numbers of "users", "items" and "events", its "best" round.
    """

    config: RecursionConfig
    data: Sequences
    rounds: list[RoundResult]
    best: int
    model: Any
    path: Path | None
    baselines: Baselines = field(default_factory=dict)
    refitted: bool = False
    lineage: tuple[dict[str, Any], ...] = ()

    def __repr__(self) -> str:
        return summary.text(self)

    def _repr_html_(self) -> str:
        return summary.html(self)

    @classmethod
    def open(cls, path: str | Path, *, device: str = "cpu") -> Run:
        """A run back from its folder; see :func:`rsir.load`."""
        return load(path, device=device)

    @typed(DataError, unchecked=("k", "candidates", "exclude", "repeats", "round_"))
    def recommend(
        self,
        histories: Iterable[Sequence[Any]] | None = None,
        k: int = 10,
        *,
        users: Iterable[Any] | None = None,
        candidates: Iterable[Any] | None = None,
        exclude: Iterable[Any] | None = None,
        repeats: Repeats | None = None,
        round_: int | None = None,
    ) -> Recommendations:
        """The k items to recommend after each history, best first, with their scores.

        Parameters
        ----------
        histories : iterable of sequences of item labels, optional
            Oldest first, named as in the data the run was made from. Items that are not in the catalogue are skipped,
            counted, and said in a DataWarning; after a history of which nothing is known the most popular items are
            recommended, and ``by`` says so. Default: those of ``users``.
        k : int
        users : iterable of user labels, optional
            Users of the run's data, whose histories are taken from there, held-out events included. Default, without
            histories: all of them.
        candidates : iterable of item labels, optional
            Recommend these alone, such as what is in stock; unknown ones are skipped and counted in a DataWarning.
        exclude : iterable of item labels, optional
            Do not recommend these; unknown ones make no difference.
        repeats : {"excluded", "included"}, optional
            Whether items already in a history are recommended; default: the run's setting ``data.repeats``.
        round_ : int, optional
            The round that recommends; default: the best.

        Returns
        -------
        Recommendations
            A list of lists of item labels, shorter than k only where nothing else may be recommended; its ``scores``,
            ``by``, ``unknown_items`` and ``table()``, an Arrow table, say more.

        Raises
        ------
        DataError
            Both histories and users, a user that is not in the data, histories or candidates of which no item is in
            the catalogue, or another k or rule than there is.
        RunError
            There is no such round, or the run has no folder, where rounds but the best are read from.
        """
        if histories is not None and users is not None:
            raise DataError("expected histories or users, got both; users have those of the run's data")
        recommender = self.recommender(round_)
        named = histories is None
        found = recommender.histories_of(users) if histories is None else recommender.histories(histories)
        offer = recommender.offer(candidates, exclude)
        for sentence in left_out(found, offer):
            warn(f"recommend: {sentence}")
        return recommendations(recommender, found, k, offer=offer, repeats=repeats, named=named)

    def similar(
        self,
        item: Any,
        k: int = 10,
        *,
        by: Similarity = "vectors",
        candidates: Iterable[Any] | None = None,
        exclude: Iterable[Any] | None = None,
        round_: int | None = None,
    ) -> list[tuple[Any, float]]:
        """The items most like one, best first, each with its score.

        Parameters
        ----------
        item : item label
        k : int
        by : {"vectors", "count"}
            The cosine of the network's item vectors; or the item-kNN's share: what stands near the item in sequences
            (the one that votes, or else counted over the run's data).
        candidates, exclude, round_
            As for :meth:`recommend`.

        Raises
        ------
        DataError
            An item that is not in the catalogue, another k or another measure.
        """
        recommender = self.recommender(round_)
        ids = recommender.items.ids([item])
        if not ids[0]:
            example = recommender.items.labels[0].as_py()
            raise DataError(f"item {item!r} is not in the catalogue, which has {example!r} for one")
        offer = recommender.offer(candidates, exclude)
        items = self._item_vectors if by == "count" else None
        counting = self.config.itemknn.filled(parameters_of(self.baselines))
        found, scores = recommender.similar(int(ids[0]), k, by=by, offer=offer, config=counting, items=items)
        return list(zip(recommender.items.of(found).to_pylist(), scores.tolist(), strict=True))

    def refit(self, out: str | os.PathLike[str] | None = None, *, runtime: Runtime = RUNTIME) -> Run:
        """The best round's recipe trained on all events, validation and test ones too, to serve with.

        Every network that recommends is trained again, for the number of steps that validation chose, on what it was
        trained on and the events that were held out. There is nothing left to measure it by: it has no metrics of its
        own.

        Parameters
        ----------
        out : path, optional
            A new or empty folder, which :func:`rsir.load`, ``rsir recommend`` and ``rsir serve`` read. Without one
            nothing is written.
        runtime : Runtime, optional
            Device, threads, progress and who asks to stop.

        Returns
        -------
        Run

        Raises
        ------
        RunError
            The folder is not empty; or the run is a refit itself, or has no folder, where generated sequences are.
        TrainingError, Interrupted
            As for :func:`rsir.run`; nothing has been written then.
        """
        from rsir.runs.refit import refit  # which makes a Run

        return refit(self, out, runtime=runtime)

    def update(
        self,
        data: Any,
        out: str | os.PathLike[str] | None = None,
        *,
        resume: bool = False,
        runtime: Runtime = RUNTIME,
        **settings: Any,
    ) -> Run:
        """Go on with new events, users and items: a new run, whose networks start from this one's; this one stays.

        Round k of the new run is trained, on the events of both, from the network of round k here, or the newest. A
        new item starts near those that it stands beside in the new sequences. Validation and test are of the newest
        events, as for any run.

        Parameters
        ----------
        data : path, data frame or Sequences
            The new events, named as this run's: a file in any format of :func:`rsir.read`. Events that the run has
            already are left out.
        out : path, optional
            A new or empty folder. Without one nothing is written.
        resume : bool, default False
            Resume an update in `out` that was cut short, with the same data and settings.
        runtime : Runtime, optional
            Device, threads, progress and who asks to stop.
        **settings
            Changes of settings, as for :func:`rsir.run`; those of data and model stay. ``training.patience`` is at
            most 3 unless given.

        Raises
        ------
        DataError
            What is new cannot be used: no new event, no user and no item of the run, ids of another kind, events from
            before those known of their users. Nothing has been written then.
        RunError
            The folder is not empty; or this run is a refit, or has no folder.
        """
        from rsir.recursion.update import update  # the loop, which makes a Run

        return update(self, data, out, resume=resume, settings=settings, runtime=runtime)

    def recommender(self, round_: int | None = None) -> Recommender:
        """What a round recommends with, its items packed; made at the first call. Default: the best round."""
        round_ = self.best if round_ is None else round_
        check_round(self, round_)
        if round_ not in self._recommenders:
            own = round_ == self.best
            model = self.model if own else recommender_of(self, round_)
            table = self.item_table() if own else pack_items(model, dtype=self.config.item_table)
            repeats, titles = self.config.data.repeats, self.titles
            self._recommenders[round_] = Recommender(model, self.data, table=table, repeats=repeats, titles=titles)
        return self._recommenders[round_]

    def item_table(self) -> ItemTable:
        """The model's items as the run's setting ``item_table`` has them scored; packed at the first call."""
        return self._table

    @cached_property
    def titles(self) -> pa.Array | None:
        """(N,) the items' titles, null where one has none; None where the run has none, or no folder."""
        return None if self.path is None else read_titles(self.path, self.data.num_items)

    @cached_property
    def _item_vectors(self) -> ItemVectors | None:
        return read_counted_vectors(self.path, self.config, self.data)

    @cached_property
    def _table(self) -> ItemTable:
        return pack_items(self.model, dtype=self.config.item_table)

    @cached_property
    def _recommenders(self) -> dict[int, Recommender]:
        return {}


def check_round(run: Run, round_: int) -> None:
    """Refuse a round that a run does not have."""
    if isinstance(round_, bool) or not isinstance(round_, int) or not 0 <= round_ < len(run.rounds):
        where = "" if run.path is None else f"{run.path}: "
        raise RunError(f"{where}expected a round in 0..{len(run.rounds) - 1}, got {shown(round_)}")


def recommender_of(run: Run, round_: int) -> Any:
    """What a round recommends with, read from the run's folder."""
    if run.path is None:
        raise RunError(
            f"round {round_}: this run was made without a folder, so that models of its best round alone were kept; "
            "give it an out"
        )
    device = str(run.model.item_embeddings().device)
    return _recommender(RunDirectory.open(run.path), run.config, run.data, run.rounds[round_], device)


def _recommender(
    directory: RunDirectory, config: RecursionConfig, data: Sequences, result: RoundResult, device: str
) -> Any:
    networks = Lineage(Follower(directory), config.retention, device).recommender(result.round)
    if not result.vote:
        return networks
    items = read_counted_vectors(directory.path, config, data)
    counting = config.itemknn.filled(result.itemknn)
    knn = ItemKnn.fit(split(data, config.data, config.seed).train, counting, items=items)
    return with_vote(networks, knn, result.vote)


@typed()
@plain_torch()
def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Run:
    """A run, or a refit, back from its folder: its rounds, its best model, its data and labels.

    Parameters
    ----------
    path : path
        The folder, or an address such as ``s3://bucket/run``, of which a copy is made that lasts as long as the
        process. Nothing is written to it. A run that is not finished yet counts as far as it has got.
    device : str, default "cpu"
        Device of the model: "cpu" or "cuda".

    Returns
    -------
    Run

    Raises
    ------
    RunError
        No run is there, no round is finished, or a file is missing or damaged; names it and says how to fix it.
    CheckpointError
        The model was written by another version of rsir and cannot be read.
    ConfigError
        There is no such device.
    """
    check_device(device, f"device={device!r}")
    folder = fetched(path)
    if (folder / REFIT).exists():
        from rsir.runs.refit import read_refit

        return read_refit(folder, device)
    if not (folder / MANIFEST).exists():
        raise RunError(f"{path}: holds no run: there is no {MANIFEST} in it")
    directory = RunDirectory.open(folder)
    store = Follower(directory)
    if not store.finished:
        raise RunError(f"{directory.path}: no round is finished yet; resume with --resume")
    rounds = [store.read_round(number) for number in range(store.finished)]
    best = best_round(rounds)
    data, config = read_data(directory), directory.config
    model = _recommender(directory, config, data, rounds[best], device)
    return Run(
        config, data, rounds, best, model, directory.path, read_baselines(directory), lineage=read_lineage(directory)
    )


@typed()
def enriched(run: Run, round_: int | None = None, *, held_out: bool = False) -> Sequences:
    """What a round was trained on: the real sequences and the generated ones it acquired, with source and round.

    Parameters
    ----------
    run : Run
        One with a folder.
    round_ : int, optional
        Default: the best round.
    held_out : bool, default False
        Take the real sequences whole, with the events that were held out for validation and test, for a model that
        is to be used and not to be measured.

    Raises
    ------
    RunError
        The run has no folder or not that round, or a file is missing.
    """
    if run.path is None:
        raise RunError("this run was made without a folder, so its generated sequences were not kept; give it an out")
    round_ = run.best if round_ is None else round_
    check_round(run, round_)
    real = run.data if held_out else split(run.data, run.config.data, run.config.seed).train
    first = 1 if run.config.accumulate else max(round_, 1)
    folder = RunDirectory.open(run.path)
    parts = [folder.round_path(number) / "trajectories.parquet" for number in range(first, round_ + 1)]
    return Sequences.concat(real, *map(Sequences.load, parts))

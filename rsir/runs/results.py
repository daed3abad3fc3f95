"""What a recursion comes to: its rounds, its best model; and finished runs back from their folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir.config import RecursionConfig
from rsir.data.load import split
from rsir.data.ragged import Ragged, offsets_of
from rsir.data.sequences import Sequences
from rsir.data.splits import Repeats
from rsir.errors import DataError, RunError
from rsir.evaluation import recommend
from rsir.models import ItemKnn, pack_items
from rsir.models.itemknn import with_vote
from rsir.ops import ItemTable
from rsir.runs import summary
from rsir.runs.baselines import Baselines, read_baselines
from rsir.runs.directory import MANIFEST, RunDirectory
from rsir.runs.inputs import read_data
from rsir.runs.lineage import Lineage
from rsir.runs.rounds import RoundResult, best_round
from rsir.runs.store import Follower
from rsir.runtime.environment import check_device
from rsir.runtime.torch_state import plain_torch

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
    """

    config: RecursionConfig
    data: Sequences
    rounds: list[RoundResult]
    best: int
    model: Any
    path: Path | None
    baselines: Baselines = field(default_factory=dict)

    def __repr__(self) -> str:
        return summary.text(self)

    def _repr_html_(self) -> str:
        return summary.html(self)

    @classmethod
    def open(cls, path: str | Path, *, device: str = "cpu") -> Run:
        """A run back from its folder; see :func:`rsir.load`."""
        return load(path, device=device)

    def recommend(
        self, histories: Iterable[Sequence[Any]], k: int = 10, *, repeats: Repeats | None = None
    ) -> list[list[Any]]:
        """The k items to recommend after each history, best first, by the best round's model.

        Parameters
        ----------
        histories : iterable of sequences of item labels
            Oldest first, each with at least one item, named as in the data the run was made from.
        k : int
        repeats : {"excluded", "included"}, optional
            Whether items already in a history are recommended; default: the run's setting ``data.repeats``.

        Returns
        -------
        list of lists of item labels
            Shorter than k only where the catalogue runs out.

        Raises
        ------
        DataError
            A history is empty or holds an item the model does not know; names the history and the item.
        """
        listed = [list(history) for history in histories]
        offsets = offsets_of([len(history) for history in listed])
        empty = next((number for number, history in enumerate(listed) if not history), None)
        if empty is not None:
            raise DataError(f"history {empty} is empty: expected at least one item; leave it out")
        repeats = repeats or self.config.data.repeats
        if repeats not in ("excluded", "included"):
            raise DataError(f"repeats: expected excluded or included, got {repeats!r}")
        lists, table = Ragged(self._ids(listed, offsets), offsets), self.item_table()
        best = recommend(self.model, lists, k, exclude_history=repeats == "excluded", table=table)
        return [self._labels(row[row > 0]) for row in best.ids.cpu().numpy()]

    def item_table(self) -> ItemTable:
        """The model's items as the run's setting ``item_table`` has them scored; packed at the first call."""
        return self._table

    @cached_property
    def _table(self) -> ItemTable:
        return pack_items(self.model, dtype=self.config.item_table)

    def _ids(self, histories: list[list[Any]], offsets: np.ndarray) -> np.ndarray:
        """(nnz,) item ids of labels."""
        flat = [label for history in histories for label in history]
        labels = self.data.item_labels
        if labels is None:
            return np.array(flat, np.int64)
        try:
            ids = pc.index_in(pa.array(flat, labels.type), labels)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as cause:
            raise DataError(f"item labels: expected {labels.type} as in the data, got {flat[:3]!r}: {cause}") from cause
        unknown = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
        if len(unknown):
            history = int(np.searchsorted(offsets, unknown[0], side="right")) - 1
            raise DataError(f"history {history}: item {flat[unknown[0]]!r} is not in the catalogue; leave it out")
        return ids.to_numpy(zero_copy_only=False).astype(np.int64) + 1

    def _labels(self, ids: np.ndarray) -> list[Any]:
        labels = self.data.item_labels
        return ids.tolist() if labels is None else labels.take(pa.array(ids - 1)).to_pylist()


@plain_torch()
def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Run:
    """A run back from its folder: its rounds, its best model, its data and labels.

    Parameters
    ----------
    path : path
        The folder. Nothing is written to it. A run that is not finished yet counts as far as it has got.
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
    if not (Path(path) / MANIFEST).exists():
        raise RunError(f"{path}: holds no run: there is no {MANIFEST} in it")
    directory = RunDirectory.open(path)
    store = Follower(directory)
    if not store.finished:
        raise RunError(f"{directory.path}: no round is finished yet; resume with --resume")
    rounds = [store.read_round(number) for number in range(store.finished)]
    best = best_round(rounds)
    networks = Lineage(store, directory.config.retention, device).recommender(best)
    data, config, vote = read_data(directory), directory.config, rounds[best].vote
    knn = ItemKnn.fit(split(data, config.data, config.seed).train, config.itemknn) if vote else None
    model = with_vote(networks, knn, vote)
    return Run(directory.config, data, rounds, best, model, directory.path, read_baselines(directory))


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
    if not 0 <= round_ < len(run.rounds):
        raise RunError(f"{run.path}: expected a round in 0..{len(run.rounds) - 1}, got {round_}")
    real = run.data if held_out else split(run.data, run.config.data, run.config.seed).train
    first = 1 if run.config.accumulate else max(round_, 1)
    folder = RunDirectory.open(run.path)
    files = [folder.round_path(number) / "trajectories.parquet" for number in range(first, round_ + 1)]
    return Sequences.concat(real, *map(Sequences.load, files))

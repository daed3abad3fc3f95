"""What a recursion comes to: its rounds, its best model; and finished runs back from their folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsir import files as durable
from rsir.config import RecursionConfig
from rsir.data.load import load_data, split
from rsir.data.sequences import Sequences, offsets_of
from rsir.errors import DataError, RunError
from rsir.evaluation import recommend
from rsir.models import Ensemble, checkpoint, pack_items
from rsir.ops import ItemTable
from rsir.runs import summary
from rsir.runs.directory import MANIFEST, RunDirectory
from rsir.runs.lineage import voters
from rsir.runtime.environment import check_device
from rsir.training.fit import CRITERION

__all__ = [
    "DATA",
    "METRICS",
    "RoundResult",
    "Run",
    "best_round",
    "enriched",
    "is_over",
    "load",
    "load_model",
    "load_recommender",
    "read_data",
    "read_round",
]

DATA = "data.parquet"
"""In a run's folder: the real sequences with their labels, so that the run is complete without the file they came from.
The manifest holds their fingerprint."""

METRICS = "metrics.jsonl"
"""In a run's folder: a line for each finished round, :meth:`RoundResult.metrics`."""


@dataclass(frozen=True)
class RoundResult:
    """What one round was trained on and what came of it.

    Attributes
    ----------
    round : int
        0 is the base, trained on real data alone.
    sequences : int
        Non-empty rows of the training set.
    generated, verified, acquired : int
        Trajectories decoded for this round, those that passed the checks, and those it trains on beside what
        earlier rounds acquired.
    novel_share : float
        Share of the acquired trajectories' items that are not in the user's own sequence; nan in round 0.
    mean_length : float
        Of the acquired trajectories; nan in round 0.
    leak : float
        Share of the trusted rank verdicts that were wrong, measured on a sample; nan unless fidelity.verify is trust
        and the catalogue is large.
    validation, test : dict
        Metrics by name ("recall@10", "ndcg@20", ...), of the round's model; with retention, of the ensemble
        that it is one of.
    steps, best_step : int
        Training steps made, and the one whose weights were kept.
    tokens : int
        Positions trained on, an item as often as it was seen.
    seconds : dict
        Wall clock by phase. Kept apart from the metrics, which are the same on every repetition.
    rates : dict
        Work a second: "tokens/s" trained on (validation left out), "trajectories/s" generated, verified and
        acquired, "users/s" ranked in the evaluation at the end.
    alone : dict
        Validation metrics of the round's model alone, where it is one of an ensemble; else empty.
    against_best : dict
        The best "round" before this one, and the "difference" in validation NDCG@20 from it with the "low" and "high"
        end of its 95% interval (:func:`rsir.evaluation.difference_beyond_seeds`); empty in round 0.
    against_base : dict
        By part and metric ("validation/ndcg@20", "test/recall@10", "test/ndcg@10"): mean difference from round 0 and
        the ends of its paired 95% interval over users, [difference, low, high]; empty in round 0.
    history : dict
        Of the training, validation by validation: "step", mean training "loss" since the one before, "ndcg@20".
    """

    round: int
    sequences: int
    generated: int
    verified: int
    acquired: int
    novel_share: float
    mean_length: float
    leak: float
    validation: dict[str, float]
    test: dict[str, float]
    steps: int
    best_step: int
    seconds: dict[str, float] = field(compare=False)
    tokens: int = 0
    rates: dict[str, float] = field(default_factory=dict, compare=False)
    alone: dict[str, float] = field(default_factory=dict)
    against_best: dict[str, float] = field(default_factory=dict)
    against_base: dict[str, list[float]] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)

    @property
    def worse(self) -> bool:
        """Whether the round is worse on validation than the best one before it, by more than the noise."""
        return self.against_best.get("high", 0.0) < 0

    def metrics(self) -> dict[str, Any]:
        """Everything but the wall clock, as JSON values (nan as None)."""
        values = asdict(self)
        del values["seconds"], values["rates"]
        plain: dict[str, Any] = durable.plain(values)
        return plain

    @classmethod
    def from_json(cls, metrics: dict[str, Any], timings: dict[str, dict[str, float]]) -> RoundResult:
        """Back from :meth:`metrics` and the content of timings.json."""
        nan: dict[str, Any] = {
            name: float("nan") for name in ("novel_share", "mean_length", "leak") if metrics[name] is None
        }
        for part in ("validation", "test"):
            nan[part] = {name: float("nan") if value is None else value for name, value in metrics[part].items()}
        return cls(**{**metrics, **nan}, seconds=timings["seconds"], rates=timings["rates"])


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
        That round's model; with retention, the ensemble that it is one of.
    path : Path or None
        The run's folder.
    """

    config: RecursionConfig
    data: Sequences
    rounds: list[RoundResult]
    best: int
    model: Any
    path: Path | None

    def __repr__(self) -> str:
        return summary.text(self)

    def _repr_html_(self) -> str:
        return summary.html(self)

    @classmethod
    def open(cls, path: str | Path, *, device: str = "cpu") -> Run:
        """A run back from its folder; see :func:`rsir.load`."""
        return load(path, device=device)

    def recommend(self, histories: Iterable[Sequence[Any]], k: int = 10) -> list[list[Any]]:
        """The k items to recommend after each history, best first, by the best round's model.

        Parameters
        ----------
        histories : iterable of sequences of item labels
            Oldest first, each with at least one item, named as in the data the run was made from.
        k : int
            Items already in a history are not recommended.

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
        best = recommend(self.model, self._ids(listed, offsets), offsets, k, table=self.item_table()).ids.cpu().numpy()
        return [self._labels(row[row > 0]) for row in best]

    def item_table(self) -> ItemTable:
        """The model's items as the run's setting ``item_table`` has them scored."""
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


def best_round(rounds: list[RoundResult]) -> int:
    """The round with the highest validation NDCG@20; among equals the earliest."""
    return max(rounds, key=lambda result: (result.validation[CRITERION], -result.round)).round


def is_over(config: RecursionConfig, rounds: list[RoundResult]) -> bool:
    """Whether no round is to follow those there are: enough were made, none gained for long, or the last is refused."""
    enough, stale = len(rounds) > config.rounds, rounds[-1].round - best_round(rounds) >= config.stop_after
    return enough or stale or (config.guard and rounds[-1].worse)


def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Run:
    """A run back from its folder: its rounds, its best model, its data and labels.

    Parameters
    ----------
    path : path
        The folder. Nothing is written to it. A run that is not finished yet counts as far as it has got.
    device : str, default "cpu"
        Of the model: "cpu" or "cuda".

    Returns
    -------
    Run

    Raises
    ------
    RunError
        No run is there, no round is finished, or a file is missing or damaged; names it and says how to mend it.
    CheckpointError
        The model was written by another version of rsir and cannot be read.
    ConfigError
        There is no such device.
    """
    check_device(device, f"device={device!r}")
    if not (Path(path) / MANIFEST).exists():
        raise RunError(f"{path}: holds no run: there is no {MANIFEST} in it")
    directory = RunDirectory.open(path)
    finished = directory.finished_rounds()
    if not finished:
        raise RunError(f"{directory.path}: no round is finished yet; go on with --resume")
    rounds = [read_round(directory, number) for number in range(finished)]
    best = best_round(rounds)
    return Run(
        directory.config, read_data(directory), rounds, best, load_recommender(directory, best, device), directory.path
    )


def read_round(directory: RunDirectory, round_: int) -> RoundResult:
    """A finished round's result; RunError where its files are missing or damaged."""
    name = directory.round_path(round_).name
    metrics, timings = (directory.read_json(f"{name}/{file}.json") for file in ("metrics", "timings"))
    return RoundResult.from_json(metrics, timings)


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


def read_data(directory: RunDirectory) -> Sequences:
    """The real sequences of a run, from its folder or else from where they came; RunError if they are not the same."""
    path = directory.path / DATA
    if path.exists():
        try:
            data = Sequences.load(path)
        except DataError as cause:
            raise RunError(f"{cause}; put the original back, or make it again by --resume") from cause
        if data.fingerprint() != directory.data:
            raise RunError(f"{path}: is not the data the run was made from; put the original back")
        return data
    source = Path(directory.config.data.path or "simulated data")
    try:
        data = load_data(directory.config)
    except DataError as cause:
        raise RunError(
            f"{path}: is missing, and the data cannot be read from where they were: {cause}; --resume with "
            "--data.path FILE writes it again"
        ) from cause
    if data.fingerprint() != directory.data:
        raise RunError(f"{path}: is missing, and {source} has changed since; put one of them back")
    return data


def load_recommender(directory: RunDirectory, round_: int, device: str) -> Any:
    """What a finished round recommends with: its model, or the ensemble that retention makes of it."""
    models = [load_model(directory, number, device) for number in voters(directory.config.retention, round_)]
    return Ensemble(models) if len(models) > 1 else models[0]


def load_model(directory: RunDirectory, round_: int, device: str) -> Any:
    """The model of a finished round."""
    return checkpoint.load(directory.round_path(round_)).to(device)

"""Finished runs: back from their folders, and the data they were trained on."""

from __future__ import annotations

import os
from pathlib import Path

from .data.sequences import DataError, Sequences
from .recursion import DATA, RoundResult, Run, best_round, load_data, load_recommender, split
from .runs import MANIFEST, RunDirectory, RunError

__all__ = ["enriched", "load"]


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
    """
    if not (Path(path) / MANIFEST).exists():
        raise RunError(f"{path}: holds no run: there is no {MANIFEST} in it")
    directory = RunDirectory.open(path)
    finished = directory.finished_rounds()
    if not finished:
        raise RunError(f"{directory.path}: no round is finished yet; go on with --resume")
    rounds = []
    for number in range(finished):
        name = directory.round_path(number).name
        metrics, timings = (directory.read_json(f"{name}/{file}.json") for file in ("metrics", "timings"))
        rounds.append(RoundResult.from_json(metrics, timings))
    best = best_round(rounds)
    return Run(
        directory.config, _data(directory), rounds, best, load_recommender(directory, best, device), directory.path
    )


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


def _data(directory: RunDirectory) -> Sequences:
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

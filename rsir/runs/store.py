"""Where a run's rounds are kept: in memory, in a folder that this process writes, or in one that another writes.

A folder may be in object storage (:mod:`rsir.runs.remote`); what is said of it here holds there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from rsir.config import RecursionConfig, to_dict
from rsir.data.sequences import Sequences
from rsir.errors import DataError, RunError
from rsir.models import checkpoint
from rsir.runs.directory import RunDirectory
from rsir.runs.layout import ENVIRONMENT
from rsir.runs.manifest import settled
from rsir.runs.rounds import RoundResult, best_round, read_round, voters
from rsir.runtime.environment import environment
from rsir.runtime.profiling import FOLDER, Tracer
from rsir.runtime.progress import Progress
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpoints
from rsir.runtime.world import ALONE, World

__all__ = ["FolderRun", "Follower", "MemoryRun", "RunStore"]

TRAJECTORIES = "trajectories.parquet"


class RunStore(Protocol):
    """Where a run's rounds are kept.

    Attributes
    ----------
    path : Path or None
        The run's folder, where it has one.
    finished : int
        Rounds that were finished when the store was opened.
    """

    path: Path | None
    finished: int

    def read_round(self, round_: int) -> RoundResult:
        """The result of a finished round."""

    def trajectories(self, round_: int) -> Sequences:
        """What a finished round acquired; there is nothing of round 0."""

    def load_model(self, round_: int, device: str) -> Any:
        """The model of a finished round."""

    def environment(self) -> Mapping[str, Any]:
        """Versions of what began the run, by name."""

    def write_round(self, result: RoundResult, model: Any, acquired: Sequences | None) -> None:
        """Keep a round, with what it acquired but for round 0; returns when every process of the run can read it."""

    def write(self, name: str, make: Callable[[], bytes]) -> None:
        """Write a file of the run's folder; `make` is called where there is one to write."""

    def checkpointer(self, round_: int) -> Checkpoints:
        """Where the round at work keeps what it has so far."""

    def traced(self, progress: Progress) -> Progress:
        """Trace a part of every phase into the run's folder; what to call in the place of `progress`."""

    def close(self) -> None:
        """End what is under way, and let other processes write the run."""


class MemoryRun:
    """A run without a folder: what its newest and its best round recommend with is kept in memory.

    Parameters
    ----------
    config : RecursionConfig
    """

    path: Path | None = None
    finished = 0

    def __init__(self, config: RecursionConfig) -> None:
        self._config = config
        self._rounds: list[RoundResult] = []
        self._acquired: dict[int, Sequences] = {}
        self._models: dict[int, Any] = {}

    def read_round(self, round_: int) -> RoundResult:
        return self._rounds[round_]

    def trajectories(self, round_: int) -> Sequences:
        return self._acquired[round_]

    def load_model(self, round_: int, device: str) -> Any:
        return self._models[round_]

    def environment(self) -> Mapping[str, Any]:
        return environment()

    def write_round(self, result: RoundResult, model: Any, acquired: Sequences | None) -> None:
        self._rounds.append(result)
        if acquired is not None:
            self._acquired[result.round] = acquired
        self._models[result.round] = model
        recommending = {
            number for one in (best_round(self._rounds), result.round) for number in voters(self._config.retention, one)
        }
        self._models = {number: one for number, one in self._models.items() if number in recommending}

    def write(self, name: str, make: Callable[[], bytes]) -> None:
        pass

    def checkpointer(self, round_: int) -> Checkpoints:
        return NO_CHECKPOINTS

    def traced(self, progress: Progress) -> Progress:
        raise ValueError("profile: traces are written into the run's folder, expected out, got None")

    def close(self) -> None:
        pass


class Follower:
    """A run's folder that is read only; of several processes, in all but the first, which writes it.

    Parameters
    ----------
    directory : RunDirectory
    world : World, optional
    """

    def __init__(self, directory: RunDirectory, world: World = ALONE) -> None:
        self._directory, self._world = directory, world
        self.path: Path | None = directory.path
        self.finished: int = world.broadcast_object(directory.finished_rounds)

    def read_round(self, round_: int) -> RoundResult:
        self._directory.at_hand(round_)
        return read_round(self._directory, round_)

    def trajectories(self, round_: int) -> Sequences:
        self._directory.at_hand(round_)
        try:
            return Sequences.load(self._directory.round_path(round_) / TRAJECTORIES)
        except DataError as cause:
            raise RunError(f"{cause}; put the original back") from cause

    def load_model(self, round_: int, device: str) -> Any:
        self._directory.at_hand(round_)
        return checkpoint.load(self._directory.round_path(round_)).to(device)

    def environment(self) -> Mapping[str, Any]:
        return self._directory.read_json(ENVIRONMENT)

    def write_round(self, result: RoundResult, model: Any, acquired: Sequences | None) -> None:
        self._world.barrier()

    def write(self, name: str, make: Callable[[], bytes]) -> None:
        pass

    def checkpointer(self, round_: int) -> Checkpoints:
        return self._directory.checkpoints(round_, self._world)

    def traced(self, progress: Progress) -> Progress:
        return progress

    def close(self) -> None:
        self._directory.close()


class FolderRun(Follower):
    """A run's folder that this process writes."""

    def __init__(self, directory: RunDirectory, world: World = ALONE) -> None:
        super().__init__(directory, world)
        self._tracer: Tracer | None = None

    def write_round(self, result: RoundResult, model: Any, acquired: Sequences | None) -> None:
        directory = self._directory
        name = directory.start_round(result.round)
        members = list(voters(directory.config.retention, result.round))
        ensemble = {"rounds": members, "item_knn": result.vote, "metrics": result.validation}
        model_files = checkpoint.to_files(
            model,
            directory.config.model,
            metrics=result.alone or result.validation,
            data=directory.data,
            settings=settled(to_dict(directory.config)),
            ensemble=ensemble if result.alone else None,
        )
        for file, content in model_files.items():
            directory.write_bytes(f"{name}/{file}", content)
        if acquired is not None:
            directory.write_sequences(f"{name}/{TRAJECTORIES}", acquired)
        directory.write_json(f"{name}/metrics.json", result.metrics())
        directory.write_json(f"{name}/timings.json", {"seconds": result.seconds, "rates": result.rates})
        directory.finish_round(result.round)
        self._world.barrier()

    def write(self, name: str, make: Callable[[], bytes]) -> None:
        self._directory.write_bytes(name, make())

    def traced(self, progress: Progress) -> Progress:
        self._tracer = Tracer(self._directory.path / FOLDER, progress)
        return self._tracer

    def close(self) -> None:
        if self._tracer is not None:
            self._tracer.close()
        super().close()

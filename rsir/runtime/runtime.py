"""What a computation runs under, as one argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rsir.errors import ConfigError
from rsir.runtime.progress import Progress, silent
from rsir.runtime.world import ALONE, World

__all__ = ["RUNTIME", "Runtime", "never"]


def never() -> bool:
    """The default of :attr:`Runtime.stop`: nobody asks to stop."""
    return False


@dataclass(frozen=True)
class Runtime:
    """Where and how something is computed; nothing here changes what is computed, but for rounding.

    Attributes
    ----------
    device : str, default "cpu"
        Device of a backbone that is trained or loaded: "cpu", "cuda", "cuda:1". What is done with a model is done
        where the model is.
    threads : int, optional
        CPU threads of the scoring ops; default: torch's number. Training takes torch's number in any case.
    progress : Progress
        Called as work proceeds.
    stop : callable
        Asked after every step of training and decoding; once it is true, the work that is unfinished is saved where
        there is a place for it, and Interrupted is raised.
    world : World
        Processes that call the same functions together, with the same arguments: they divide the work, and each returns
        what one process would.
    profile : bool, default False
        Trace a part of every round's training and generation into the run's folder (:mod:`rsir.runtime.profiling`).
    """

    device: str = "cpu"
    threads: int | None = None
    progress: Progress = silent
    stop: Callable[[], bool] = never
    world: World = ALONE
    profile: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and not (type(self.threads) is int and 1 <= self.threads < 2**31):
            raise ConfigError(f"threads: expected a whole number of at least 1, got {self.threads!r}")

    def within(self, name: str) -> Runtime:
        """The same, with every phase of the progress under a name: "train" becomes "round 2 train"."""

        def report(phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
            self.progress(f"{name} {phase}", done, total, unit, note)

        return replace(self, progress=report)


RUNTIME = Runtime()
"""The default: one process, on the CPU, with torch's number of threads, silent."""

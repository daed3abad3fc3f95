"""The run that a service answers with, loaded anew when a newer one is at its path."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from rsir.data.ragged import Ragged
from rsir.errors import RsirError
from rsir.runs.layout import DONE, MANIFEST, REFIT
from rsir.runs.results import Run, load

__all__ = ["Served"]


class Served:
    """A run, and where a newer one would be.

    Parameters
    ----------
    path : path
        Folder of a run or refit, or a link to one.
    device : str

    Attributes
    ----------
    run : Run
        Replaced as a whole: a request that has begun ends with the run that it began with.
    loaded : float
        When it was loaded, in seconds since the epoch.
    reloads : int
    failure : str
        Why a newer run could not be loaded; empty where it could.
    failures : int
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "cpu") -> None:
        self._path, self._device = Path(path), device
        self.reloads, self.failures, self.failure = 0, 0, ""
        self._stamp = self._seen()
        self.run = self._load()
        self.loaded = time.time()

    def reload(self) -> bool:
        """Take over what is at the path now, if it is newer; where it cannot be loaded, the run that was served stays.

        Returns
        -------
        bool
            Whether another run is served.
        """
        seen = self._seen()
        if seen == self._stamp:
            self.failure = ""  # what could not be loaded is gone again
            return False
        try:
            run = self._load()
        except (RsirError, OSError, MemoryError) as error:
            self.failures, self.failure = self.failures + 1, str(error)
            return False
        self.reloads, self.failure, self._stamp = self.reloads + 1, "", seen
        self.loaded, self.run = time.time(), run
        return True

    def _seen(self) -> list[Any]:
        """What is different of another run, or of one that has another round."""
        folder = Path(os.path.realpath(self._path))
        seen: list[Any] = [str(folder)]
        for name in (MANIFEST, REFIT):
            try:
                found = (folder / name).stat()
                seen += [name, found.st_mtime_ns, found.st_ino, found.st_size]
            except OSError:
                pass
        return [*seen, sorted(path.parent.name for path in folder.glob(f"round-*/{DONE}"))]

    def _load(self) -> Run:
        """The run, ready: what is made at the first request is made here."""
        run = load(os.path.realpath(self._path), device=self._device)
        recommender = run.recommender()
        recommender.items.ids(recommender.items.labels[:1].to_pylist())
        recommender.users.ids(recommender.users.labels[:1].to_pylist())
        recommender.best(Ragged(np.array([1], np.int32), np.array([0, 1, 1])), 1)
        return run

"""A finished run goes on with new events, users and items: a new run, whose networks start from the old ones.

Beside the files of any run its folder has ``update.json``: which run it goes on from, and what was added.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from rsir.config import RecursionConfig
from rsir.config.changes import with_settings
from rsir.data.io.additions import Additions, add_events
from rsir.data.load import split
from rsir.data.sequences import Sequences
from rsir.errors import ConfigError, RunError
from rsir.models import ItemKnn
from rsir.models.growth import grown
from rsir.objects.address import Address, place
from rsir.recursion.loop import recurse
from rsir.runs.directory import RunDirectory
from rsir.runs.layout import check_folder
from rsir.runs.results import Run
from rsir.runs.rounds import RoundResult
from rsir.runs.store import Follower
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.training.fit import training_seed

__all__ = ["update"]

_PATIENCE = 3
"""Validations without a gain that end a training: one that starts from trained weights is at its best soon."""
_FIXED = ("data", "model", "simulation")


def update(
    run: Run,
    data: Any,
    out: str | os.PathLike[str] | Address | None = None,
    *,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    runtime: Runtime = RUNTIME,
    on_added: Callable[[Additions], None] | None = None,
    on_round: Callable[[RoundResult], None] | None = None,
) -> Run:
    """See :meth:`rsir.runs.results.Run.update`.

    `columns` names those of a file by role, where they are not the run's. `on_added` is called with what was added,
    before anything is computed; `on_round` as in :func:`rsir.recursion.loop.recurse`.
    """
    if run.refitted:
        raise RunError(
            "this is a refit, which was trained on the events that would validate and test it: update the run it was "
            "made from"
        )
    if run.path is None:
        raise RunError(
            "this run was made without a folder, and networks of its best round alone were kept; give it an out"
        )
    config = _changed(run.config, settings or {})
    folder = None if out is None else place(out)
    if isinstance(folder, Path) and folder.absolute() == run.path.absolute():
        raise RunError(f"{out}: expected another folder than the run's, which stays as it is")
    if folder is not None:
        check_folder(folder, resume=resume)
    added = add_events(run.data, data, run.config.data, dict(columns or {}))
    if on_added is not None:
        on_added(added)
    start = _Start(run, config, added)
    return recurse(config, data=added.data, out=folder, resume=resume, runtime=runtime, on_round=on_round, start=start)


def _changed(config: RecursionConfig, settings: Mapping[str, Any]) -> RecursionConfig:
    for name in settings:
        if name.partition(".")[0] in _FIXED and name != "data.items":
            raise ConfigError(
                f"{name}: an update keeps the run's own; expected a setting of its rounds or its training"
            )
    patience = min(config.training.patience, _PATIENCE)
    return with_settings(config, {"training.patience": patience, "data.path": None, **settings})


class _Start:
    """What the networks of an update start from: those of the run by round, for the larger catalogue."""

    def __init__(self, run: Run, config: RecursionConfig, added: Additions) -> None:
        assert run.path is not None
        self.folder = run.path
        self._run, self._config, self._data = run, config, added.data
        self._store = Follower(RunDirectory.open(run.path))
        before = {
            "run": run.path.name,
            "data": run.data.fingerprint(),
            "users": len(run.data),
            "items": run.data.num_items,
            "events": run.data.num_interactions,
            "best": run.best,
        }
        more = {"users": added.users, "items": added.items, "events": added.events}
        self.said: Mapping[str, Any] = {"lineage": [*run.lineage, before], "added": more}

    def weights(self, round_: int) -> dict[str, Tensor]:
        """Those that a round's training starts from: of the run's network of that round, or else of its newest."""
        old = self._store.load_model(min(round_, self._store.finished - 1), "cpu")
        return grown(old, self._config.model, self._knn, seed=training_seed(self._config.seed, round_))

    @cached_property
    def _knn(self) -> ItemKnn:
        train: Sequences = split(self._data, self._config.data, self._config.seed).train
        return ItemKnn.fit(train, self._config.itemknn)

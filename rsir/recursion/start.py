"""What a run starts from: its data, what is known of its items, and another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rsir.config import RecursionConfig
from rsir.data.io.events import Reading
from rsir.data.io.items import ITEMS, read_items
from rsir.data.load import load_log
from rsir.data.sequences import Sequences
from rsir.errors import DataError
from rsir.objects.address import Address, place
from rsir.objects.copies import exists
from rsir.runs.baselines import parameters_of, read_baselines
from rsir.runs.directory import RunDirectory
from rsir.runs.inputs import read_data
from rsir.runs.layout import DATA
from rsir.runs.results import Run
from rsir.runs.store import RunStore

__all__ = ["Start", "data_of", "items_of", "known_parameters"]


class Start(Protocol):
    """What a run starts from that goes on from another.

    Attributes
    ----------
    said : mapping
        Content of update.json, as JSON values.
    folder : Path
        Of that other run.
    """

    said: Mapping[str, Any]
    folder: Path

    def weights(self, round_: int) -> Mapping[str, Tensor]:
        """The weights that a round's training starts from."""


def data_of(config: RecursionConfig, resumed: str | Path | Address | None) -> tuple[Sequences, Reading]:
    """What the configuration names, or what a resumed run's folder holds where its file is not there any more."""
    if resumed is not None and config.data.path is not None and not exists(config.data.path, DataError):
        directory = RunDirectory.open(resumed)
        if directory.config.data.path == config.data.path:  # else a new place was given, which is not there
            return read_data(directory), Reading(name=str(place(resumed) / DATA), format="kept by the run")
    return load_log(config)


def items_of(config: RecursionConfig, start: Start | None, resumed: str | Path | Address | None) -> tuple[Any, str]:
    """The table of items that the configuration names, or where it is not there any more, what a run keeps of it."""
    path = config.data.items
    assert path is not None
    kept = None if resumed is None else RunDirectory.open(resumed).path
    kept = kept if start is None else start.folder
    if kept is not None and (kept / ITEMS).exists() and not exists(path, DataError):
        return read_items(kept / ITEMS), str(kept / ITEMS)
    return read_items(path), path


def known_parameters(store: RunStore, base: Run | None) -> Mapping[str, float] | None:
    """The item-kNN's parameters where the run, or the one whose base it takes, has searched them already."""
    if store.path is None or not store.finished:
        return None if base is None else parameters_of(base.baselines)
    return parameters_of(read_baselines(RunDirectory.open(store.path)))

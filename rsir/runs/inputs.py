"""The real sequences, and what is known of the items, that a run keeps in its folder."""

from __future__ import annotations

from pathlib import Path

from rsir.config import RecursionConfig
from rsir.data.io.items import ITEMS, ItemVectors, read_items, with_items
from rsir.data.load import load_data
from rsir.data.sequences import Sequences
from rsir.errors import DataError, RunError
from rsir.runs.directory import RunDirectory
from rsir.runs.layout import DATA

__all__ = ["read_counted_vectors", "read_data", "read_vectors"]


def read_vectors(folder: Path | None, config: RecursionConfig, data: Sequences) -> ItemVectors | None:
    """Vectors and titles of a run's items: from its folder, or for a run without one from where they came."""
    path = config.data.items if folder is None else folder / ITEMS
    if config.data.items is None or path is None:
        return None
    try:
        return with_items(data, read_items(path), str(path), quiet=True)[1]
    except DataError as cause:
        raise RunError(f"{cause}; put the original back") from cause


def read_counted_vectors(folder: Path | None, config: RecursionConfig, data: Sequences) -> ItemVectors | None:
    """What the item-kNN counts items without an event by; nothing where it does not."""
    return read_vectors(folder, config, data) if config.itemknn.cold_neighbours else None


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
    source = directory.config.data.path or "simulated data"
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

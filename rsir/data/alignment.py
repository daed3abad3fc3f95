"""Data over another catalogue: the same rows, items numbered as there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from rsir.data.io.events import label_ids
from rsir.data.ragged import Ragged
from rsir.data.sequences import Sequences
from rsir.data.warn import warn
from rsir.errors import DataError

__all__ = ["align", "check_catalogue", "ids_in"]


def align(data: Sequences, item_labels: pa.Array, name: str) -> Sequences:
    """The same rows over the catalogue of a model. Events with items that it does not know are omitted.

    Parameters
    ----------
    data : Sequences
        Items are matched by their labels, or by their ids if they have none; integers and their text match.
    item_labels : (N,) pyarrow array
        Outside names of items 1..N of the model.
    name : str
        What to call the model in messages.

    Raises
    ------
    DataError
        None of the items is known.

    Warns
    -----
    DataWarning
        Events were omitted; says how many.
    """
    ids = ids_in(data, item_labels, name)[data.items]
    known = ids > 0
    if not known.all():
        unknown = len(np.unique(data.items[~known]))
        warn(f"{name} does not know {unknown} of the items: omitted {int((~known).sum())} of {known.size} events")
    kept = Ragged(ids.astype(np.int32), data.offsets).where(known)
    return dataclasses.replace(
        data,
        items=kept.values,
        offsets=kept.offsets,
        num_items=len(item_labels),
        times=None if data.times is None else data.times[known],
        item_labels=item_labels,
    )


def ids_in(data: Sequences, item_labels: pa.Array, name: str) -> np.ndarray:
    """(num_items of the data + 1,) a model's id of each item of the data; 0 for those that it does not know."""
    labels = data.item_labels
    labels = pa.array(np.arange(1, data.num_items + 1)) if labels is None else labels
    ids = np.append(0, label_ids(labels, item_labels, name))
    if not ids.any():
        raise DataError(
            f"{name} knows none of the items, {labels[0].as_py()!r} for one; it knows "
            f"{item_labels[0].as_py()!r} and {len(item_labels) - 1} more: was it trained on this data?"
        )
    return ids


def check_catalogue(data: Any, num_items: int, name: str) -> None:
    """Refuse what is not Sequences over as many items as a model has.

    Parameters
    ----------
    data : Sequences
        Anything else is refused.
    num_items : int
        Number of items of the model.
    name : str
        What to call the model in messages.

    Raises
    ------
    DataError
    """
    if not isinstance(data, Sequences):
        raise DataError(
            f"data: expected Sequences, whose item ids are those of the model, got {type(data).__name__}; read a frame "
            "by rsir.from_frame, a file by rsir.read, and lists of ids by rsir.Sequences.from_lists"
        )
    if data.num_items != num_items:
        raise DataError(
            f"data: expected the {num_items} items of {name}, got a catalogue of {data.num_items}; a model of "
            "rsir.adapters brings data to its own catalogue by its method align"
        )

"""Random interactions put into the training histories: how much of the base's loss does the recursion undo?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rsir.config import RecursionConfig
from rsir.data.sequences import Sequences, offsets_of
from rsir.studies.lab import Lab
from rsir.studies.recipes import reset

__all__ = ["SHARES", "arms", "noisy", "run"]

SHARES = (0.0, 0.1, 0.2, 0.3)
_HELD_OUT = 2  # last events of a user, left as they are: the targets of validation and test


def arms(config: RecursionConfig) -> list[str]:
    """None to choose: the study has all of its arms."""
    return []


def run(lab: Lab, rounds: int) -> None:
    """The base and one round, for each share of noise; every share is a data set of its own in the lines."""
    for share in SHARES:
        name = f"{lab.name} +{share:.0%} noise" if share else lab.name
        other = replace(lab, name=name, data=noisy(lab.data, share, lab.config.seed) if share else lab.data)
        other.record_base()
        other.recursion("rsir", replace(reset(lab.config), rounds=rounds))


def noisy(data: Sequences, share: float, seed: int) -> Sequences:
    """The data with random items put in before the held-out events, ``share`` of them for each interaction there is."""
    generator = np.random.default_rng([seed, 3])
    places = np.maximum(data.lengths - _HELD_OUT, 0)
    extra = generator.binomial(places, share)
    row = np.repeat(np.arange(len(data)), data.lengths)
    place = np.arange(len(row)) - np.repeat(data.offsets[:-1], data.lengths)
    new_row = np.repeat(np.arange(len(data)), extra)
    new_place = generator.random(len(new_row)) * places[new_row] - 0.5
    order = np.lexsort((np.append(place, new_place), np.append(row, new_row)))
    items = np.append(data.items, generator.integers(1, data.num_items + 1, len(new_row)).astype(np.int32))
    return Sequences(
        items=items[order],
        offsets=offsets_of(data.lengths + extra),
        num_items=data.num_items,
        item_labels=data.item_labels,
        user_labels=data.user_labels,
    )

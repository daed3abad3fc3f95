"""Recommenders that every run is measured beside: the item-kNN and popularity."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rsir.config import ItemKnnConfig
from rsir.data.io.items import ItemVectors
from rsir.data.splits import Split
from rsir.errors import ConfigError, DataWarning
from rsir.evaluation import evaluate
from rsir.models import ItemKnn, Popularity
from rsir.models.cold_items import held_at_most
from rsir.models.protocol import Backbone
from rsir.runs.baselines import Baselines
from rsir.runtime import memory
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.training.counting import GRID, searched

__all__ = ["baselines", "counted"]


def baselines(
    parts: Split,
    popularity: npt.NDArray[np.int64],
    knn: ItemKnn | None,
    runtime: Runtime = RUNTIME,
) -> Baselines:
    """The metrics of the item-kNN and of popularity on validation and test, and the parameters of the former.

    Parameters
    ----------
    parts : Split
    popularity : (N + 1,) int64
        How often each item occurs in the training part.
    knn : ItemKnn, optional
        From :func:`counted`.
    runtime : Runtime, optional
        Threads, and the processes that call this together.
    """
    models: dict[str, Backbone] = {}
    if knn is not None:
        models["item-kNN"] = knn
    models["popularity"] = Popularity(popularity)
    found: dict[str, Any] = {
        name: {
            part: evaluate(model, tasks, popularity=popularity, runtime=runtime).metrics
            for part, tasks in (("validation", parts.validation), ("test", parts.test))
        }
        for name, model in models.items()
    }
    if knn is not None:
        found["item-kNN"]["parameters"] = knn.config.parameters()
    return found


def counted(
    parts: Split,
    config: ItemKnnConfig,
    runtime: Runtime = RUNTIME,
    *,
    items: ItemVectors | None = None,
    known: Mapping[str, float] | None = None,
) -> ItemKnn | None:
    """The item-kNN of the training part, with items by their vectors where there are any; None, and a warning, where it
    might not stay within the limit on memory.

    Parameters
    ----------
    parts : Split
    config : ItemKnnConfig
        Parameters that are none are searched on validation. Where there is no memory for it, a warning says so, and
        they have their fixed values.
    runtime : Runtime, optional
        Threads, and the processes that call this together, of which the first one searches.
    items : ItemVectors, optional
    known : mapping, optional
        The parameters by name where they have been searched before.
    """
    cold = items is not None and config.cold_neighbours > 0
    limit = memory.current()

    def found() -> dict[str, Any] | None:
        if limit is not None and _refused(limit, parts, config, cold):
            return None
        return searched(config, parts.train, parts.validation, runtime.threads).parameters()

    if known is None and config.searches:
        known = runtime.world.broadcast_object(found)
    filled = config.filled(known)
    cause = None if limit is None else _refused(limit, parts, filled, cold)
    if cause:
        warnings.warn(f"the run is not compared with an item-kNN: {cause}", DataWarning, stacklevel=2)
        return None
    if known is None and config.searches:
        warnings.warn(
            "the item-kNN's parameters are not searched and have their fixed values: the limit on memory has no room "
            "for two counts",
            DataWarning,
            stacklevel=2,
        )
    return ItemKnn.fit(parts.train, filled, items=items, threads=runtime.threads)


def _refused(limit: memory.Budget, parts: Split, config: ItemKnnConfig, cold: bool) -> str:
    """Why the item-kNN might not stay within the limit on memory; "" where it is sure to."""
    events, window, lists = parts.train.num_interactions, config.parameters()["window"], 1
    if config.searches:  # beside the one with the fixed values
        window, lists = max(GRID["window"]) if config.window is None else window, 2
    pairs = min(2 * window * events, config.neighbours * parts.train.num_items)
    try:
        added = held_at_most(config.neighbours * parts.train.num_items) if cold else 0
        limit.left({"the item-kNN": 16 * events + (8 + 8 * lists) * pairs + added})
    except ConfigError as cause:
        return str(cause)
    return ""

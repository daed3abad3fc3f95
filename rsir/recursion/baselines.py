"""Recommenders that every run is measured beside: the item-kNN and popularity."""

from __future__ import annotations

import warnings

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

__all__ = ["baselines", "counted"]


def baselines(
    parts: Split,
    popularity: npt.NDArray[np.int64],
    knn: ItemKnn | None,
    runtime: Runtime = RUNTIME,
) -> Baselines:
    """The metrics of the item-kNN and of popularity on validation and test.

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
    return {
        name: {
            part: evaluate(model, tasks, popularity=popularity, runtime=runtime).metrics
            for part, tasks in (("validation", parts.validation), ("test", parts.test))
        }
        for name, model in models.items()
    }


def counted(
    parts: Split, config: ItemKnnConfig, threads: int | None = None, *, items: ItemVectors | None = None
) -> ItemKnn | None:
    """The item-kNN of the training part, with items by their vectors where there are any; None, and a warning, where it
    might not stay within the limit on memory."""
    cold = items is not None and config.cold_neighbours > 0
    return ItemKnn.fit(parts.train, config, items=items, threads=threads) if _fits(parts, config, cold) else None


def _fits(parts: Split, config: ItemKnnConfig, cold: bool) -> bool:
    """Whether the item-kNN is sure to stay within the limit on memory; where it is not, users are told."""
    limit, events = memory.current(), parts.train.num_interactions
    if limit is None:
        return True
    pairs = min(2 * config.window * events, config.neighbours * parts.train.num_items)
    try:
        added = held_at_most(config.neighbours * parts.train.num_items) if cold else 0
        limit.left({"the item-kNN": 16 * events + 16 * pairs + added})
    except ConfigError as cause:
        warnings.warn(f"the run is not compared with an item-kNN: {cause}", DataWarning, stacklevel=2)
        return False
    return True

"""Retention: older models kept beside the newest, all of which vote (arXiv 2610.07105)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsir.errors import DataError
from rsir.evaluation import recommend
from rsir.models.protocol import Backbone

__all__ = ["overlap", "separation", "voters"]

TOP = 20


def voters(policy: str, round_: int) -> range:
    """Rounds whose models recommend together after a round, under a policy of ``RecursionConfig.retention``."""
    return range({"none": round_, "pair": max(round_ - 1, 0), "all": 0}[policy], round_ + 1)


def overlap(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    """Mean share of one model's recommendations that the other makes, too.

    Parameters
    ----------
    first, second : (n, k) int64
        Item ids for the same n histories; 0 where the catalogue ran out.
    """
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise DataError(f"expected two (n, k) arrays of the same histories, got {first.shape} and {second.shape}")
    both = ((first[:, :, None] == second[:, None, :]) & (first[:, :, None] > 0)).any(2).sum(1)
    return float((both / np.maximum((first > 0).sum(1), 1)).mean())


def separation(
    older: tuple[Backbone, Backbone],
    newer: tuple[Backbone, Backbone],
    items: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
) -> float:
    """Sep20 of arXiv 2610.07105: how much two generations differ beyond what two seeds of one generation do.

    The mean overlap of the top 20 within a generation, less that across generations. Above 0, a pair across
    generations brings the more diverse votes; otherwise a pair of seeds of the newest generation does as well. No
    label is looked at.

    Parameters
    ----------
    older, newer : pair of Backbone
        Two seeds of each generation.
    items : (nnz,) int32
        Histories to recommend for, one after the other.
    offsets : (n + 1,) int64
        History r is ``items[offsets[r]:offsets[r + 1]]``.
    """
    tops = [recommend(model, items, offsets, TOP).ids.cpu().numpy() for model in (*older, *newer)]
    within = (overlap(tops[0], tops[1]) + overlap(tops[2], tops[3])) / 2
    across = np.mean([overlap(a, b) for a in tops[:2] for b in tops[2:]])
    return float(within - across)

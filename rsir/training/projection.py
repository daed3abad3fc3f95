"""Item vectors folded into a trained item table: each embedding is a projection of the item's vector, and what was
learnt beside it.

The projection P is fitted to the learnt embeddings of items with a vector by ridge regression, an item weighing the
more the more often it was seen. Then e = P v + n / (n + c) (learnt - P v), with n the item's occurrences in training:
an item that was never seen is P v alone. The table stays a table of embeddings, so that whatever scores, generates or
serves needs to know nothing of vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rsir.data.io.items import ItemVectors
from rsir.data.sequences import Sequences, item_popularity
from rsir.errors import ConfigError
from rsir.models.protocol import LookupBackbone

__all__ = ["fold", "projected"]

_RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)  # times the mean of the diagonal
_FOLDS = 5
_SEEN = 5.0  # occurrences at which an item weighs half as much in the fit as one that is always seen


@torch.no_grad()
def fold(model: Any, items: ItemVectors | None, train: Sequences, trust: float) -> None:
    """Fold vectors into a trained model's item table, in place.

    Parameters
    ----------
    model : LookupBackbone
    items : ItemVectors, optional
        None, or titles alone: nothing changes.
    train : Sequences
        What it was trained on; its real sequences count.
    trust : float
        c above: occurrences at which half of what was learnt beside the projection is kept. 0: all of every item that
        was seen.

    Raises
    ------
    ConfigError
        A backbone without one table of items.
    """
    if items is None or not items.vectors.shape[1]:
        return
    if not isinstance(model, LookupBackbone):
        raise ConfigError(f"data.items: {type(model).__name__} has no item table to fold vectors into")
    weight = model.item_table.weight
    counts = item_popularity(train.select(train.is_real))
    table = weight.detach().cpu().double().numpy()
    weight.copy_(torch.from_numpy(projected(table, items, counts, trust)).to(weight))


def projected(
    table: npt.NDArray[np.float64], items: ItemVectors, counts: npt.NDArray[np.int64], trust: float
) -> npt.NDArray[np.float64]:
    """The table (N + 1, d) with vectors folded in; rows of items without one, and row 0, stay."""
    known = np.flatnonzero(items.has & (counts > 0))
    if not known.size:
        return table
    scale = items.vectors[known].astype(np.float64)
    middle, spread = scale.mean(0), scale.std()
    features = np.c_[(items.vectors - middle) / (spread or 1.0), np.ones(len(table))]
    weights = counts[known] / (counts[known] + _SEEN)
    ridge = _best_ridge(features[known], table[known], weights)
    guess = features @ _solved(features[known], table[known], weights, ridge)
    kept = np.where(counts > 0, counts / np.maximum(counts + trust, 1e-12), 0.0)[:, None]
    return np.where(items.has[:, None], guess + kept * (table - guess), table)


def _solved(
    features: npt.NDArray[np.float64], table: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], ridge: float
) -> npt.NDArray[np.float64]:
    weighted = features * weights[:, None]
    gram = features.T @ weighted
    penalty = np.full(len(gram), ridge * np.trace(gram) / len(gram))
    penalty[-1] = 1e-9  # the mean embedding is not held back
    solution: npt.NDArray[np.float64] = np.linalg.solve(gram + np.diag(penalty + 1e-12), weighted.T @ table)
    return solution


def _best_ridge(
    features: npt.NDArray[np.float64], table: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> float:
    """The one whose fit to four fifths of the items comes closest to the others; the same for the same items."""
    fold_of = np.arange(len(table)) % _FOLDS
    errors = []
    for ridge in _RIDGES:
        error = 0.0
        for number in range(min(_FOLDS, len(table))):
            out = fold_of == number
            if not (~out).any():
                continue
            guess = features[out] @ _solved(features[~out], table[~out], weights[~out], ridge)
            error += float((weights[out, None] * (guess - table[out]) ** 2).sum())
        errors.append(error)
    return _RIDGES[int(np.argmin(errors))]

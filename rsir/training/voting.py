"""How much the item-kNN's vote counts beside the networks', chosen on validation."""

from __future__ import annotations

from rsir.data.splits import EvaluationSet
from rsir.evaluation import evaluate
from rsir.metrics import CRITERION
from rsir.models.itemknn import ItemKnn, WithItemKnn
from rsir.models.protocol import Backbone
from rsir.ops import ItemTable
from rsir.runtime.runtime import RUNTIME, Runtime

__all__ = ["WEIGHTS", "vote_weight"]

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What is tried; 0: no vote."""


def vote_weight(
    network: Backbone,
    knn: ItemKnn,
    validation: EvaluationSet,
    *,
    table: ItemTable | None = None,
    runtime: Runtime = RUNTIME,
) -> float:
    """The weight of :data:`WEIGHTS` with the highest validation NDCG@20; among equals the lowest.

    Parameters
    ----------
    network : Backbone
        Or an ensemble of several.
    knn : ItemKnn
    validation : EvaluationSet
    table, runtime
        As for :func:`rsir.evaluation.evaluate`.
    """

    def quality(weight: float) -> float:
        model = WithItemKnn(network, knn, weight) if weight else network
        found = evaluate(model, validation, spread=False, table=table, runtime=runtime)
        return found.metrics[CRITERION]

    return max(WEIGHTS, key=quality)

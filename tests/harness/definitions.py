"""Ranking metrics by their definitions, slowly, and a model whose logits are looked up."""

from __future__ import annotations

import math

import numpy as np
import torch

from rsir.data import EvaluationSet
from rsir.data.ragged import Ragged


class Lookup:
    """A backbone whose query is a row of a table, by the last item; small whole numbers, so that ties abound."""

    max_len = 4

    def __init__(self, num_items, seed=0, spread=2, dim=3):
        generator = np.random.default_rng(seed)
        self.num_items = num_items
        self.table = torch.tensor(generator.integers(-spread, spread + 1, (num_items + 1, dim)), dtype=torch.float32)
        self.queries = torch.tensor(generator.integers(-spread, spread + 1, (num_items + 1, dim)), dtype=torch.float32)

    def encode(self, items, lengths):
        return self.queries[items[torch.arange(len(items)), lengths - 1]]

    def item_embeddings(self):
        return self.table


def tasks_of(histories, targets):
    return EvaluationSet(
        rows=np.arange(len(targets)),
        histories=Ragged.from_lists(histories),
        targets=np.array(targets, np.int32),
    )


def order_of(model, history, left_out):
    """All items that may be shown, best first."""
    logits = (model.table @ model.queries[history[-1]]).tolist()
    allowed = [i for i in range(1, model.num_items + 1) if i not in left_out]
    return sorted(allowed, key=lambda i: (-logits[i], i))


def oracle(model, histories, targets, popularity, included=False):
    totals, shown = {}, []
    for history, target in zip(histories, targets, strict=True):
        order = order_of(model, history, set() if included else set(history))
        rank = order.index(target) + 1 if target in order else math.inf
        shown += order[:10]
        for k in (5, 10, 20):
            hit = rank <= k
            for name, gain in [("recall", 1.0), ("ndcg", 1 / math.log2(rank + 1)), ("mrr", 1 / rank)]:
                totals[f"{name}@{k}"] = totals.get(f"{name}@{k}", 0.0) + hit * gain
    metrics = {name: total / len(targets) for name, total in totals.items()}
    metrics["coverage@10"] = len(set(shown)) / model.num_items
    metrics["popularity@10"] = sum(popularity[i] for i in shown) / len(shown) if shown else math.nan
    return metrics

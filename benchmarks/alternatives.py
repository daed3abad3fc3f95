"""What a user would pick instead: recommenders that are counted or solved, beside the rounds of finished runs.

Popularity, the item-kNN, EASE (Steck 2019, arXiv 1905.03375) and, where the package implicit is installed, ALS (Hu,
Koren and Volinsky 2008). What each has to choose (EASE its regularisation and how much less an older item counts, ALS
its width, regularisation and weight) is chosen on validation from a short list, which is the seconds' time too. Test is
read once. Leave-one-out over the whole catalogue, items of the history excluded. ``--runs`` adds the rounds of runs on
the same data, as they recommend: with every network so far and the item-kNN.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rsir
from rsir.config import ItemKnnConfig
from rsir.data import leave_one_out, read
from rsir.data.sequences import Sequences, item_popularity
from rsir.data.splits import EvaluationSet, Split
from rsir.evaluation import Evaluation, evaluate
from rsir.models import ItemKnn, Popularity

from . import toys
from .harness import describe_machine

REGULARISATION = (50.0, 100.0, 200.0, 400.0)
DECAY = (1.0, 0.8, 0.6)
ALS = {"factors": (64, 256), "regularization": (0.01, 0.1), "alpha": (1.0, 10.0)}
BLOCK = 512  # users scored at a time

Scores = Callable[[EvaluationSet, int, int], torch.Tensor]
"""Scores (b, N + 1) of all items after the histories of tasks first to last."""


def evaluated(scores: Scores, tasks: EvaluationSet) -> Evaluation:
    """Ranks by plain torch, ties to the lower id, the history excluded; a target in it is a miss."""
    ranks = np.zeros(len(tasks), np.int64)
    for first in range(0, len(tasks), BLOCK):
        last = min(first + BLOCK, len(tasks))
        histories, targets = (
            tasks.histories.rows(first, last),
            torch.from_numpy(tasks.targets[first:last].astype(np.int64)),
        )
        found = scores(tasks, first, last)
        rows = torch.from_numpy(np.repeat(np.arange(last - first), histories.lengths))
        found[rows, torch.from_numpy(histories.values.astype(np.int64))] = -torch.inf
        found[:, 0] = -torch.inf
        own = found.gather(1, targets[:, None])
        lower = torch.arange(found.shape[1]) < targets[:, None]
        places = 1 + ((found > own) | ((found == own) & lower)).sum(1)
        ranks[first:last] = torch.where((places > 20) | own[:, 0].isneginf(), 0, places).numpy()
    return Evaluation({}, ranks)


def distinct(train: Sequences) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(n,) int64 each: users and items, an item of a user once, by user."""
    users = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    both = np.unique(users * (train.num_items + 1) + train.items)
    return both // (train.num_items + 1), both % (train.num_items + 1)


def together(train: Sequences) -> torch.Tensor:
    """How many users have had two items, (N + 1, N + 1) float32."""
    users, items = distinct(train)
    lengths = np.bincount(users, minlength=len(train))
    ends = np.cumsum(lengths)
    each = lengths[users]  # every event with every event of its user
    beside = np.repeat((ends - lengths)[users], each) + np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    size = train.num_items + 1
    gram = np.bincount(np.repeat(items, each) * size + items[beside], minlength=size * size).reshape(size, size)
    return torch.from_numpy(gram.astype(np.float32))


def ease(gram: torch.Tensor, regularisation: float) -> torch.Tensor:
    """The weights of EASE (N + 1, N + 1), from :func:`together`: item by item, nothing for an item of itself."""
    weights = gram.clone()
    weights.diagonal().add_(regularisation)
    weights = torch.cholesky_inverse(torch.linalg.cholesky(weights)).contiguous()  # rows are looked up
    weights.div_(-weights.diagonal().clone())
    weights.diagonal().zero_()
    return weights


def by_ease(weights: torch.Tensor, decay: float) -> Scores:
    """Sums of the weights of a history's items, each decay^age of them."""

    def scores(tasks: EvaluationSet, first: int, last: int) -> torch.Tensor:
        histories = tasks.histories.rows(first, last)
        age = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.values))
        return torch.nn.functional.embedding_bag(
            torch.from_numpy(histories.values.astype(np.int64)),
            weights,
            torch.from_numpy(histories.offsets[:-1].astype(np.int64)),
            mode="sum",
            per_sample_weights=torch.from_numpy(np.power(decay, age).astype(np.float32)),
        )

    return scores


def by_als(model: Any) -> Scores:
    """Products of ALS's factors, those of a user of the tasks computed from the history."""
    import scipy.sparse

    items = torch.from_numpy(np.asarray(model.item_factors))

    def scores(tasks: EvaluationSet, first: int, last: int) -> torch.Tensor:
        histories = tasks.histories.rows(first, last)
        known = scipy.sparse.csr_matrix(
            (np.ones(len(histories.values), np.float32), histories.values.copy(), histories.offsets.copy()),
            shape=(last - first, len(items)),
        )
        known.sum_duplicates()
        users = model.recalculate_user(np.arange(last - first), known)
        return torch.from_numpy(np.asarray(users)) @ items.T

    return scores


def chosen(candidates: Iterator[tuple[str, Scores]], parts: Split) -> tuple[str, float, Evaluation]:
    """What is best on validation: its name, its validation NDCG@20, and test."""
    best: tuple[float, str, Evaluation] | None = None
    for name, scores in candidates:
        value = float(evaluated(scores, parts.validation).gains("ndcg@20").mean())
        if best is None or value > best[0]:
            best = value, name, evaluated(scores, parts.test)
    assert best is not None
    return best[1], best[0], best[2]


def solved(parts: Split, seed: int) -> Iterator[tuple[str, Callable[[], tuple[str, float, Evaluation]]]]:
    """EASE, and ALS where implicit is installed."""

    def eases() -> Iterator[tuple[str, Scores]]:
        gram = together(parts.train)
        for regularisation in REGULARISATION:
            weights = ease(gram, regularisation)
            for decay in DECAY:
                yield f"{regularisation:g}, decay {decay:g}", by_ease(weights, decay)

    yield "EASE", lambda: chosen(eases(), parts)
    try:
        import scipy.sparse
        from implicit.als import AlternatingLeastSquares
    except ImportError as cause:
        print(f"(without ALS: {cause}; pip install implicit)\n")
        return
    users, items = distinct(parts.train)
    shape = len(parts.train), parts.train.num_items + 1
    events = scipy.sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)

    def alses() -> Iterator[tuple[str, Scores]]:
        for values in itertools.product(*ALS.values()):
            model = AlternatingLeastSquares(**dict(zip(ALS, values, strict=True)), random_state=seed)
            model.fit(events, show_progress=False)
            yield ", ".join(f"{name} {value:g}" for name, value in zip(ALS, values, strict=True)), by_als(model)

    yield "ALS (implicit)", lambda: chosen(alses(), parts)


def line(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks alternatives", description=__doc__)
    parser.add_argument("--data", type=Path, help="default: Amazon Toys")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of runs on the same data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few simulated users")
    options = parser.parse_args(arguments)
    data, described = (read(options.data), options.data.name) if options.data else toys.load(options.quick)
    parts = leave_one_out(data)
    torch.set_num_threads(options.threads)
    machine = ", ".join(f"{key}: {value}" for key, value in describe_machine().items())
    print(f"## {described}\n\n{machine}; {options.threads} threads\n")
    line("recommender", "chosen on validation", "validation NDCG@20", "test Recall@10", "test NDCG@10", "seconds")
    line(*["---"] * 6)

    def shown(name: str, how: str, validation: float, test: Evaluation, seconds: float) -> None:
        figures = (f"{test.gains(metric).mean():.4f}" for metric in ("recall@10", "ndcg@10"))
        line(name, how, f"{validation:.4f}", *figures, f"{seconds:.1f}")

    counted: dict[str, Callable[[], Any]] = {
        "popularity": lambda: Popularity(item_popularity(parts.train)),
        "item-kNN": lambda: ItemKnn.fit(parts.train, ItemKnnConfig(), threads=options.threads),
    }
    for name, fitted in counted.items():
        began = time.perf_counter()
        model = fitted()
        value = evaluate(model, parts.validation).metrics["ndcg@20"]
        shown(name, "-", value, evaluate(model, parts.test), time.perf_counter() - began)
    for name, choose in solved(parts, options.seed):
        began = time.perf_counter()
        how, value, test = choose()
        shown(name, how, value, test, time.perf_counter() - began)
    for folder in options.runs:
        run = rsir.load(folder)
        spent = 0.0
        for one in run.rounds:
            spent += sum(one.seconds.values())
            figures = (f"{one.test[metric]:.4f}" for metric in ("recall@10", "ndcg@10"))
            name = f"{run.config.model.name}, round {one.round}, and the item-kNN"
            line(name, "steps, weight", f"{one.validation['ndcg@20']:.4f}", *figures, f"{spent:.1f}")
    return 0

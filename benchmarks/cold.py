"""Item vectors (``--items``) on a cold share: what unseen and seen items gain by a projection of their vectors.

Simulated users, whose items lie in genres on a torus. A share of the items is taken out of all histories and stays
among the held-out events alone; vectors say where on the torus an item's genre lies, with noise beside it. One base is
trained; its table is then evaluated as it is, and with the vectors folded in, as a run with ``--items`` does it; by
the network alone, and with the item-kNN's vote beside it, in which unseen items have no part.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import sys

import numpy as np
import numpy.typing as npt
import torch

import rsir
from benchmarks.harness import describe_machine
from rsir.config import SimulationConfig
from rsir.data import Sequences, leave_one_out, simulate
from rsir.data.io.items import ItemVectors
from rsir.data.simulate import SimulatedData
from rsir.evaluation import evaluate, mean_interval
from rsir.models.itemknn import WithItemKnn, network_of
from rsir.training.projection import fold

_METRICS = ("recall@10", "ndcg@10")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cold", description=__doc__)
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--items", type=int, default=2400)
    parser.add_argument("--cold", type=float, default=0.2, help="share of the items that no history has")
    parser.add_argument("--noise", type=int, default=12, help="numbers of a vector that mean nothing, beside 64")
    parser.add_argument("--trust", type=float, nargs="+", default=[0, 1, 5, 20], help="values of training.item_trust")
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="200 users, two validations")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    training = {"patience": options.patience}
    if options.quick:
        options.users, options.items, training["max_evaluations"] = 200, 120, 2
    made = simulate(SimulationConfig(num_users=options.users, num_items=options.items))
    rng = np.random.default_rng(options.seed)
    cold = np.zeros(options.items + 1, np.bool_)
    cold[1 + rng.permutation(options.items)[: int(options.cold * options.items)]] = True
    data = without(made.sequences, cold)
    items = ItemVectors(vectors(made, rng, options.noise), np.arange(options.items + 1) > 0, None)
    run = rsir.run(data=data, rounds=0, seed=options.seed, training=training)
    parts = leave_one_out(data)
    of_cold = cold[parts.test.targets]
    print("## Item vectors on a cold share\n")
    for name, value in describe_machine().items():
        print(f"- {name}: {value}")
    print(
        f"- {data}; {int(cold.sum())} items are in no history, {int(of_cold.sum())} of {of_cold.size} targets theirs\n"
    )
    print("| item table | unseen: Recall@10 | NDCG@10 | seen: Recall@10 | NDCG@10 | seen, against as learnt: NDCG@10 |")
    print("|---|---|---|---|---|---|---|")
    base = None
    voted = run.model if isinstance(run.model, WithItemKnn) else None
    for vote, trust in itertools.product([False, True] if voted else [False], (None, *options.trust)):
        network = copy.deepcopy(network_of(run.model))
        if trust is not None:
            fold(network, items, parts.train, trust)
        model = WithItemKnn(network, voted.knn, voted.weight) if vote and voted is not None else network
        base = base if trust is not None else None
        found = evaluate(model, parts.test)
        gains = {metric: found.gains(metric) for metric in _METRICS}
        base = gains["ndcg@10"][~of_cold] if base is None else base
        cells = [f"{gains[metric][of_cold == which].mean():.4f}" for which in (True, False) for metric in _METRICS]
        change = [100 * value / base.mean() for value in mean_interval(gains["ndcg@10"][~of_cold] - base)]
        beside = "" if trust is None else "{:+.1f}% ({:+.1f} to {:+.1f})".format(*change)
        name = "as learnt" if trust is None else f"vectors folded in, item_trust {trust:g}"
        by = "network and count" if vote else "network"
        print(f"| {by} | {name} | {' | '.join(cells)} | {beside} |", flush=True)
    return 0


def without(data: Sequences, cold: npt.NDArray[np.bool_]) -> Sequences:
    """Sequences without the events of cold items, but for the last two of each."""
    place = np.arange(data.items.size)
    held_out = place >= np.repeat(data.offsets[1:], data.lengths) - 2
    kept = ~cold[data.items] | held_out
    lists = data.lists.where(kept)
    times = None if data.times is None else data.times[kept]
    return dataclasses.replace(data, items=lists.values, offsets=lists.offsets, times=times)


def vectors(made: SimulatedData, rng: np.random.Generator, noise: int) -> npt.NDArray[np.float32]:
    """(N + 1, 64 + noise): waves over the torus at an item's place, alike for places that are near; and noise."""
    angles = made.genre_points[made.genres]
    meaning = np.cos(angles @ rng.integers(-8, 9, (2, 64)) + rng.uniform(0, 2 * np.pi, 64))
    rows = np.c_[meaning, rng.normal(scale=0.7, size=(len(angles), noise))]
    return np.r_[np.zeros((1, rows.shape[1])), rows].astype(np.float32)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

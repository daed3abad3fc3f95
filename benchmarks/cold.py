"""Item vectors (``--items``) on a cold share: what unseen and seen items gain by a projection of their vectors.

Simulated users, whose items lie in genres on a torus. A share of the items is taken out of all histories and stays
among the held-out events alone; vectors say where on the torus an item's genre lies, with noise beside it. One base is
trained; its table is then evaluated as it is, and with the vectors folded in, as a run with ``--items`` does it; by
the network alone, and with the item-kNN's vote beside it: where unseen items have no part in the count, and where each
is counted as the seen items whose vectors are nearest (``itemknn.cold_neighbours``). The vote's weight is chosen on
validation for each.
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
from rsir.config import ItemKnnConfig, SimulationConfig
from rsir.data import Sequences, leave_one_out, simulate
from rsir.data.io.items import ItemVectors
from rsir.data.simulate import SimulatedData
from rsir.evaluation import evaluate
from rsir.models.itemknn import ItemKnn, network_of, with_vote
from rsir.training.projection import fold
from rsir.training.voting import vote_weight

_METRICS = ("recall@10", "ndcg@10")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cold", description=__doc__)
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--items", type=int, default=2400)
    parser.add_argument("--cold", type=float, default=0.2, help="share of the items that no history has")
    parser.add_argument("--noise", type=int, default=12, help="numbers of a vector that mean nothing, beside 64")
    parser.add_argument("--trust", type=float, nargs="+", default=[0, 1, 5, 20], help="values of training.item_trust")
    parser.add_argument("--neighbours", type=int, nargs="+", default=[1, 5, 20], help="itemknn.cold_neighbours")
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
    heads = " | ".join(f"{group}: Recall@10 | NDCG@10" for group in ("unseen", "seen", "all"))
    print(f"| by | item table | vote | {heads} |")
    print("|---|---|---|---|---|---|---|---|---|")
    counts = {"network": None, "network and count": ItemKnn.fit(parts.train)}
    for most in options.neighbours:
        config = ItemKnnConfig(cold_neighbours=most)
        counts[f"network and count, {most} of the seen"] = ItemKnn.fit(parts.train, config, items=items)
    for (by, knn), trust in itertools.product(counts.items(), (None, *options.trust)):
        network = copy.deepcopy(network_of(run.model))
        if trust is not None:
            fold(network, items, parts.train, trust)
        weight = 0.0 if knn is None else vote_weight(network, knn, parts.validation)
        found = evaluate(with_vote(network, knn, weight), parts.test)
        gains = {metric: found.gains(metric) for metric in _METRICS}
        groups = (of_cold, ~of_cold, of_cold | ~of_cold)
        cells = [f"{gains[metric][which].mean():.4f}" for which in groups for metric in _METRICS]
        name = "as learnt" if trust is None else f"vectors folded in, item_trust {trust:g}"
        print(f"| {by} | {name} | {weight:g} | {' | '.join(cells)} |", flush=True)
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

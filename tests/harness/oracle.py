"""Metrics of random models on random tasks against a slow computation of their definitions, at three batch sizes.

``python -m tests.harness oracle --cases 10000 --seed 0``. Logits are small whole numbers, so that ties abound.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from rsir.evaluation import evaluate
from rsir.models import pack_items
from tests.harness.definitions import Lookup, oracle, tasks_of

BATCH_SIZES = (1, 7, 512)


def one_case(generator: np.random.Generator) -> float:
    """The largest difference between a metric and the oracle's; AssertionError where batch sizes differ."""
    num_items, rows = int(generator.integers(2, 60)), int(generator.integers(1, 25))
    histories = [generator.integers(1, num_items + 1, generator.integers(1, 12)).tolist() for _ in range(rows)]
    targets = generator.integers(1, num_items + 1, rows).tolist()
    model = Lookup(num_items, seed=int(generator.integers(2**32)))
    popularity = generator.integers(0, 50, num_items + 1)
    expected = oracle(model, histories, targets, popularity)
    backend = str(generator.choice(["reference", "cpp"]))
    table, tasks = pack_items(model, backend=backend), tasks_of(histories, targets)
    found = [
        evaluate(model, tasks, popularity=popularity, batch_size=size, table=table).metrics for size in BATCH_SIZES
    ]
    assert found[0].keys() == expected.keys()
    assert all(metrics == found[0] for metrics in found[1:]), "another batch size gives other metrics"
    return max(abs(found[0][name] - expected[name]) for name in expected)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    largest = 0.0
    for case in range(options.cases):
        difference = one_case(np.random.default_rng([options.seed, case]))
        assert difference <= 1e-12, f"seed {options.seed}, case {case}: differs by {difference}"
        largest = max(largest, difference)
    sizes = ", ".join(map(str, BATCH_SIZES))
    print(f"{options.cases:,} cases within 1e-12 of the oracle (at most {largest:.1e}), equal at batch sizes {sizes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

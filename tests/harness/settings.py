"""Random settings that are accepted: a small run with them ends, or in a documented error.

``python -m tests.harness settings --runs 300``. A setting may be valid by itself and not with the others, or with the
data; whatever is accepted must not crash later. A failure repeats with the seed and the number that were printed last.
"""

from __future__ import annotations

import argparse
import collections
import sys
import warnings
from typing import Any

import numpy as np

from rsir.cli.options import configuration, split_arguments
from rsir.config import RecursionConfig
from rsir.config.changes import with_settings
from rsir.errors import ConfigError, RsirError
from rsir.models import names
from rsir.recursion.loop import recurse
from tests.harness import tiny

CHOICES: dict[str, list[Any]] = {
    "model.name": names(),
    "model.dim": [1, 2, 3, 6, 8, 12],
    "model.heads": [1, 2, 3, 4, 5],
    "model.layers": [1, 2],
    "model.feedforward": [1, 5],
    "model.max_len": [2, 3, 50],
    "model.dropout": [0.0, 0.5, 0.99],
    "model.filter_share": [0.0, 1.0],
    "training.batch_size": [1, 1000],
    "training.negatives": [0, 1, 39, 100],
    "training.negative_sampling": ["uniform", "popularity"],
    "training.learning_rate": [1e-30, 1.0, 1e30, 1e39],
    "training.ema": [0.0, 0.5, 0.999],
    "training.max_evaluations": [1, 2],
    "training.patience": [1, 3],
    "training.synthetic_weight": [0.0, 1.0],
    "generation.p": [0.0, 1.0],
    "generation.generator": ["networks", "recommender", "itemknn"],
    "generation.k": [1, 39, 1000],
    "generation.temperature": [1e-30, 1.0, 1e30],
    "generation.m": [1, 3],
    "generation.slots": [1, 7],
    "fidelity.policy": ["rank", "neighbours", "both", "itemknn", "rank-itemknn", "off"],
    "fidelity.tau": [None, 1, 39, 1000, [5, 1]],
    "fidelity.on_fail": ["drop", "keep"],
    "fidelity.neighbours": [1, 39, 1000],
    "fidelity.hits": [1, 3],
    "acquisition.policy": ["all", "capped", "disagreement"],
    "acquisition.cap": [1, 3],
    "distillation.share": [0.0, 0.5, 1.0],
    "distillation.teacher": ["generator", "itemknn"],
    "distillation.k": [1, 39, 1000],
    "itemknn.vote": ["off", "auto"],
    "itemknn.window": [1, 100],
    "itemknn.neighbours": [1, 1000],
    "itemknn.listed": [1, 1000],
    "retention": ["none", "pair", "all"],
    "successor": ["scratch", "finetune"],
    "sources": ["real", "all"],
    "accumulate": [True, False],
    "item_table": ["float32", "float16"],
    "data.split": ["leave-one-out", "global-time"],
    "data.target": ["last", "first", "all", "random"],
    "data.repeats": ["excluded", "included", "targets"],
    "seed": [0, 2**31, 2**63 - 1],
}
"""What each setting is drawn from: the ends of its range, and what does not go with every other setting."""


def drawn(draw: np.random.Generator) -> dict[str, Any]:
    """A few settings."""
    chosen = draw.choice(sorted(CHOICES), size=int(draw.integers(2, 7)), replace=False)
    return {str(name): CHOICES[str(name)][draw.integers(0, len(CHOICES[str(name)]))] for name in chosen}


def settings(runs: int, seed: int) -> collections.Counter[str]:
    """How many settings were refused, how many runs ended in a documented error, and how many came through."""
    counts: collections.Counter[str] = collections.Counter()
    _, given = split_arguments(tiny.OPTIONS)
    base = configuration(RecursionConfig(), None, given | {"rounds": "1"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(runs):
            changes = drawn(np.random.default_rng([seed, number]))
            try:
                config = with_settings(base, changes)
            except ConfigError:
                counts["refused"] += 1
                continue
            try:
                recurse(config)
                counts["came through"] += 1
            except RsirError:
                counts["documented error"] += 1
            except BaseException:
                print(f"--seed {seed}, run {number}: {changes}", file=sys.stderr)
                raise
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = settings(options.runs, options.seed)
    print(f"{counts.total():,} settings: " + ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

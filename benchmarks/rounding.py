"""What half precision changes: the lists and metrics of a trained model whose item table is rounded to float16.

Amazon Toys, leave-one-out, a SASRec; every user's best 20 items from the table as trained and from its rounding.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsir.config import GenerationConfig, RecursionConfig
from rsir.evaluation import difference_beyond_seeds, evaluate, recommend
from rsir.generation.fidelity import Rank
from rsir.generation.generate import Generated, generate
from rsir.models import pack_items
from rsir.runtime.runtime import Runtime

from . import toys
from .harness import describe_machine

K = 20


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks rounding", description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="the model is trained for")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="400 simulated users, one epoch")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs = 1
    torch.set_num_threads(options.threads)
    data, described = toys.load(options.quick)
    model, parts, of_model = toys.trained(data, options.epochs)
    tasks = parts.test
    tables = [pack_items(model, dtype=dtype) for dtype in ("float32", "float16")]
    lists = [recommend(model, tasks.histories, K, table=table, threads=options.threads).ids.numpy() for table in tables]
    gains = [
        evaluate(model, tasks, table=table, spread=False, runtime=Runtime(threads=options.threads)).gains(f"ndcg@{K}")
        for table in tables
    ]
    found = [
        generate(model, parts.train, GenerationConfig(m=1), Rank(50), seed=0, round_=1, table=table) for table in tables
    ]
    users = len(tasks)
    same_order = (lists[0] == lists[1]).all(axis=1)
    same_items = (np.sort(lists[0], axis=1) == np.sort(lists[1], axis=1)).all(axis=1)
    mean, low, high = difference_beyond_seeds(*gains, noise=RecursionConfig().guard_noise)
    figures: dict[str, Any] = {
        "users": users,
        "lists_of_other_items": int((~same_items).sum()),
        "lists_in_other_order": int((same_items & ~same_order).sum()),
        "other_first_item": int((lists[0][:, 0] != lists[1][:, 0]).sum()),
        "other_target_place": int((gains[0] != gains[1]).sum()),
        "ndcg": [float(part.mean()) for part in gains],
        "trajectories": [len(part.trajectories) for part in found],
        "trajectories_in_common": _common(*found),
    }
    print("## Half precision against single\n")
    machine = {**describe_machine(), "data": described, "model": of_model}
    print("\n".join(f"- {key}: {value}" for key, value in machine.items()) + "\n")
    print("| of all users | number | share |\n|---|---|---|")
    for name, text in (
        ("lists_of_other_items", f"top-{K} list holds another item"),
        ("lists_in_other_order", f"top-{K} list holds the same items in another order"),
        ("other_first_item", "another first item"),
        ("other_target_place", f"the target has another place, or is in one top-{K} alone"),
    ):
        print(f"| {text} | {figures[name]:,} | {figures[name] / users:.2%} |")
    print(
        f"\nNDCG@{K} {figures['ndcg'][0]:.6f} and {figures['ndcg'][1]:.6f}: a difference of {mean:+.6f}; what another "
        f"seed changes lies between {low:+.6f} and {high:+.6f}.\n"
        f"Of {figures['trajectories'][0]:,} and {figures['trajectories'][1]:,} trajectories kept (m 1, tau 50) "
        f"{figures['trajectories_in_common']:,} are the same."
    )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, **figures}, indent=2))
    return 0


def _common(first: Generated, second: Generated) -> int:
    """Trajectories that both have, source and items."""
    rows = [
        {
            (int(part.trajectories.source[row]), *part.trajectories[row].tolist())
            for row in range(len(part.trajectories))
        }
        for part in (first, second)
    ]
    return len(rows[0] & rows[1])

"""One round of generation and one evaluation over a million items or more, under a limit on memory that is enforced.

Nothing is trained: items lie in clusters, popular ones a little longer than others, users take popular items of two
clusters, and the SASRec that gets these embeddings recommends around a user's last item. What a round does with such a
model is what it does with a trained one: an index that proves refusals, decoding, verdicts, and the full ranking.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsir.config import FidelityConfig, GenerationConfig, ModelConfig
from rsir.data import leave_one_out
from rsir.data.sequences import Sequences
from rsir.evaluation import evaluate
from rsir.generation.fidelity import build as build_fidelity
from rsir.generation.generate import generate
from rsir.models import build, pack_items
from rsir.runtime.runtime import Runtime

from .harness import describe_machine

LENGTH = 9  # items a user, two of them for validation and test
SEED = 0
ROWS = 1 << 16  # items made at a time


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks large", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000, help="100000 is what the target names; takes ten times")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="see --item_table")
    parser.add_argument("--gib", type=float, default=4.0, help="memory the process may take, imports included")
    parser.add_argument("--m", type=int, default=5, help="trajectories a user")
    parser.add_argument("--tau", type=int, default=10)
    parser.add_argument("--verify", choices=["exact", "trust"], default="exact", help="see --fidelity.verify")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="3,000 items, 300 users")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.items, options.users = 3_000, 300
    torch.set_num_threads(options.threads)
    machine = describe_machine()
    with memory_limit(options.gib):
        rows, notes = measure(options)
    print(f"## {options.items:,} items in {options.dtype}, {options.users:,} users, within {options.gib:g} GiB\n")
    print("\n".join(f"- {key}: {value}" for key, value in machine.items()))
    head = ["phase", "seconds", "cpu-s", "rate", "peak MiB of the process so far"]
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        times = f"{row['seconds']:.1f} | {row['cpu_seconds']:.1f}"
        print(f"| {row['phase']} | {times} | {row['rate']:,.0f} {row['unit']}/s | {row['peak_mib']:,.0f} |")
    print("\n" + "\n".join(f"- {note}" for note in notes))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "phases": rows, "notes": notes}, indent=2))
    if rows[-1]["peak_mib"] > 1024 * options.gib:
        raise SystemExit(f"the peak of {rows[-1]['peak_mib']:,.0f} MiB is above the {options.gib:g} GiB allowed")
    return 0


def measure(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each phase, and what to say of the results."""
    rows: list[dict[str, Any]] = []

    def timed(phase: str, unit: str, count: Callable[[Any], int], run: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = run()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(
            {
                "phase": phase,
                "seconds": wall,
                "cpu_seconds": processor,
                "rate": count(result) / max(wall, 1e-9),
                "unit": unit,
                "peak_mib": peak,
            }
        )
        return result

    model, data = timed("data and model", "users", lambda _: options.users, lambda: world(options.items, options.users))
    parts = leave_one_out(data)
    config = FidelityConfig(tau=options.tau, verify=options.verify)
    table = timed("item table", "items", lambda _: options.items, lambda: pack_items(model, dtype=options.dtype))
    policy = timed(
        "index for proofs",
        "items",
        lambda _: options.items,
        lambda: build_fidelity(config, model.item_embeddings().detach(), 1, table),
    )
    found = timed(
        "generation",
        "trajectories",
        lambda found: found.stats.decoded,
        lambda: generate(
            model,
            parts.train,
            GenerationConfig(m=options.m),
            policy,
            seed=SEED,
            round_=1,
            table=table,
            runtime=Runtime(threads=options.threads),
        ),
    )
    evaluation = timed(
        "evaluation",
        "users",
        lambda _: len(parts.validation),
        lambda: evaluate(model, parts.validation, table=table, runtime=Runtime(threads=options.threads)),
    )
    notes = [
        f"{found.stats.decoded:,} trajectories decoded, {found.stats.refused:,} ended by the fidelity check "
        f"(tau {options.tau}), "
        f"{len(found.trajectories):,} kept; {found.stats.scanned:,} rank verdicts took a scan of the catalogue.",
        f"NDCG@20 {evaluation.metrics['ndcg@20']:.4f}, coverage@10 {evaluation.metrics['coverage@10']:.4f}.",
    ]
    return rows, notes


def world(num_items: int, num_users: int) -> tuple[Any, Sequences]:
    """A SASRec with clustered item embeddings, and users who take popular items of two clusters."""
    random = np.random.default_rng(SEED)
    config = ModelConfig("sasrec")
    clusters = max(4, round(num_items**0.5))
    size = num_items // clusters  # neighbouring ids are a cluster, the most popular first
    cluster = np.minimum(np.arange(num_items) // size, clusters - 1)
    centres = random.standard_normal((clusters, config.dim), np.float32)
    model: Any = build(config, num_items, seed=SEED).eval()
    vectors = model.item_embeddings().detach().numpy()[1:]
    for first in range(0, num_items, ROWS):
        own = cluster[first : first + ROWS]
        part = centres[own] + np.float32(0.7) * random.standard_normal((len(own), config.dim), np.float32)
        place = np.arange(first, first + len(own)) - own * size
        vectors[first : first + ROWS] = part * (1 + 0.5 * np.exp(-0.05 * place)).astype(np.float32)[:, None]
    own = random.integers(0, clusters, (num_users, 2))
    chosen = own[np.arange(num_users)[:, None], random.integers(0, 2, (num_users, LENGTH))]
    place = np.minimum(random.exponential(size / 20, (num_users, LENGTH)).astype(np.int64), size - 1)
    items = (1 + chosen * size + place).astype(np.int32)
    offsets = np.arange(num_users + 1, dtype=np.int64) * LENGTH
    return model, Sequences(items=items.reshape(-1), offsets=offsets, num_items=num_items)


@contextmanager
def memory_limit(gib: float) -> Iterator[None]:
    """Allocations beyond this many GiB of the process fail (Linux; elsewhere the peak alone is checked)."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)

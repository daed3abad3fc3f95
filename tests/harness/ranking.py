"""Ranks and first places of many users over a large catalogue, within a stated amount of memory.

``python -m tests.harness ranking``: 10,000 users, 1,000,000 items, width 64. Beside the embeddings, their packed copy
and the answer itself no more than the stated memory may be taken; a matrix of logits alone would take 37 GiB.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.harness import extra_memory
from rsir import ops

PLACES = 20


def harness(
    items: int, users: int, dim: int, mib: float, threads: int = 1, report: Callable[[str], None] = print
) -> None:
    """AssertionError where it takes more, or where ranks and first places contradict each other."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(items + 1, dim, generator=generator)
    queries = torch.randn(users, dim, generator=generator)
    targets = torch.randint(1, items + 1, (users,), generator=generator)
    # Some targets are among the first places.
    own = torch.arange(0, users, 2)
    queries[own] = table[targets[own]]
    packed = ops.pack(table)
    targets_of = ops.Ragged(targets, torch.arange(users + 1))
    found: list[tuple[torch.Tensor, ops.TopK]] = []

    def rank() -> None:
        found[:] = [
            (
                ops.rank_within(queries, packed, targets_of, threads=threads),
                ops.topk(queries, packed, PLACES, threads=threads),
            )
        ]

    began = time.perf_counter()
    taken = extra_memory(rank)
    seconds = time.perf_counter() - began
    ranks, top = found[0]
    hits = top.ids == targets[:, None]
    place = torch.where(hits.any(1), hits.int().argmax(1) + 1, 0)
    assert torch.equal(place, torch.where(ranks <= PLACES, ranks, 0)), "ranks and first places contradict each other"
    assert 0 < int(hits.any(1).sum()) < users
    assert taken is not None, "this system does not tell how much memory is taken"
    report(
        f"{users:,} users, {items:,} items: all ranks and the first {PLACES} places took {taken:.1f} MiB beyond the "
        f"packed items, {mib:g} allowed ({seconds:.0f} s)"
    )
    assert taken <= mib, f"took {taken:.1f} MiB, {mib:g} allowed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--mib", type=float, default=32.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    harness(options.items, options.users, options.dim, options.mib, options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One process of several that share a catalogue; ``tests/ops/test_sharded.py`` starts them, with RANK SIZE STORE.

Each holds one part of the item table, and every op, an evaluation, recommendations and a generation must come out as on
one table of all items.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rsir import ops
from rsir.config import GenerationConfig, ModelConfig, SimulationConfig
from rsir.data import leave_one_out, simulate
from rsir.evaluation import evaluate, recommend
from rsir.generation.fidelity import Rank
from rsir.generation.generate import generate
from rsir.models import build
from rsir.runtime.processes import Processes
from tests.ops.check_ops import check_everything
from tests.ops.naive import random_case


class Sharing:
    """A scorer, as the tests of the ops take it."""

    device = "cpu"

    def __init__(self, world: Processes) -> None:
        self.world = world

    def pack(self, items: Tensor, dtype: torch.dtype | None = None) -> ops.ItemTable:
        own = ops.table_part(items, self.world.rank, self.world.size)
        return ops.join_tables([ops.pack(own, dtype=dtype)], self.world)


def main(rank: int, size: int, store: str) -> None:
    torch.set_num_threads(1)
    meeting = dist.FileStore(store, size)
    dist.init_process_group("gloo", store=meeting, rank=rank, world_size=size)
    world = Processes(meeting, rank, size, restarted=False)
    sharing = Sharing(world)
    for shape, k, tau in (((7, 5, 3), 1, None), ((40, 300, 12), 5, 10), ((3, 2, 2), 20, 1)):
        check_everything(sharing, random_case(shape, seed=k), k=k, temperature=1.5, tau=tau)

    data = simulate(SimulationConfig(num_users=40, num_items=200)).sequences
    parts = leave_one_out(data)
    model = build(ModelConfig(dim=16, layers=1, heads=1, feedforward=16), data.num_items, seed=1).eval()
    results = []
    for table in (ops.pack(model.item_embeddings()), sharing.pack(model.item_embeddings().detach())):
        ranking = evaluate(model, parts.test, table=table)
        best = recommend(model, data.lists, 20, table=table)
        found = generate(model, parts.train, GenerationConfig(m=2), Rank(30), seed=0, round_=1, table=table)
        results.append((ranking, best, found.trajectories))
    (ranking, best, kept), (their_ranking, their_best, their_kept) = results
    assert ranking.metrics == their_ranking.metrics
    assert torch.equal(best.ids, their_best.ids)
    assert torch.equal(best.logits, their_best.logits)
    assert len(kept) > 5
    assert np.array_equal(kept.items, their_kept.items)
    assert np.array_equal(kept.offsets, their_kept.offsets)
    world.close()
    print("all as on one table")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

"""Users a second of the full ranking: rsir.evaluation against plain torch written with care.

Amazon Toys, leave-one-out, every item ranked, those of the history left out. Plain torch takes users in the order of
their lengths, pads each chunk to its longest history, encodes it, scores the catalogue by torch.mm into a buffer that
is kept, masks the history and counts what is above the target; the second case is given the queries and takes the 20
best. Chunk, counting, groups and the library behind torch.mm are the fastest by trial (benchmarks/baselines.py). All
metrics must agree before anything is timed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsir import ops
from rsir.data.ragged import Ragged
from rsir.data.splits import EvaluationSet
from rsir.evaluation import CUTOFFS, evaluate
from rsir.models.encoding import encode_sequences
from rsir.runtime.runtime import Runtime

from . import toys
from .baselines import Catalogue, Way, fastest, ways
from .harness import Contender, Report, compare, describe_machine, extra_memory

K = max(CUTOFFS)
TOLERANCE = 2e-4  # of a metric: near ties may fall either way where float32 sums are in another order


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks evaluation", description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="the model is trained for")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="turns that are timed")
    parser.add_argument("--quick", action="store_true", help="400 simulated users, one epoch, two turns")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a machine that others use, too")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs, options.rounds = 1, 2

    torch.set_num_threads(options.threads)
    machine = describe_machine()
    data, described = toys.load(options.quick)
    model, parts, of_model = toys.trained(data, options.epochs)
    tasks = parts.validation
    report = Report("Evaluation over the whole catalogue", {**machine, "data": described, "model": of_model})

    ours = evaluate(model, tasks, runtime=Runtime(threads=options.threads)).metrics
    for name, value in metrics(plain_ranks(model, tasks, Way(128))).items():
        if abs(value - ours[name]) > TOLERANCE:
            raise SystemExit(f"{name}: {ours[name]:.6f} by rsir, {value:.6f} by plain torch")
    report.notes.append(f"- Both give NDCG@20 {ours['ndcg@20']:.4f} and Recall@10 {ours['recall@10']:.4f}.")

    with torch.no_grad():
        queries = encode_sequences(model, tasks.histories)
    table = ops.pack(model.item_embeddings().detach())
    history = ops.Ragged.from_numpy(tasks.histories.values, tasks.histories.offsets)
    items = model.item_embeddings().detach()
    catalogues: dict[Way, Catalogue] = {}

    def kept(way: Way) -> Catalogue:
        if way not in catalogues:
            catalogues.clear()
            catalogues[way] = Catalogue(items, way)
        return catalogues[way]

    def whole(way: Way, n: int) -> object:
        return metrics(plain_ranks(model, tasks if n == len(tasks) else _some(tasks, n), way, kept(way)))

    def top(way: Way, n: int) -> Tensor:
        return plain_best(kept(way), queries[:n], tasks.histories.rows(0, n))

    counting, ranks = fastest(whole, ways(items, len(tasks), count=True, select=False), len(tasks))
    grouping, best = fastest(top, ways(items, len(tasks), count=False, select=True), len(tasks))
    threads = options.threads

    def ours_whole() -> object:
        return evaluate(model, tasks, spread=False, runtime=Runtime(threads=threads))

    def ours_top() -> Tensor:
        return ops.topk(queries, table, K, excluded=history, threads=threads).ids

    if (differ := int((ours_top() != best()).any(1).sum())) > len(tasks) // 100:
        raise SystemExit(f"the lists of {differ} of {len(tasks)} users differ between torch and rsir")
    cases = {
        "encode, rank, metrics": [
            Contender(
                "rsir", lambda: evaluate(model, tasks, spread=False, runtime=Runtime(threads=threads)), len(tasks)
            ),
            Contender(f"torch, {counting}", ranks, len(tasks)),
        ],
        f"top-{K} alone": [Contender("rsir", ours_top, len(tasks)), Contender(f"torch, {grouping}", best, len(tasks))],
    }
    for case, contenders in cases.items():
        figures = compare(
            f"{case}, {len(tasks):,} users",
            contenders,
            threads=options.threads,
            rounds=options.rounds,
            cpu_time=options.cpu_time,
            unit="users/s",
        )
        for contender, figure in zip(contenders, figures, strict=True):
            figure.extra_mib = extra_memory(contender.run)
        report.figures += figures
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


@torch.no_grad()
def plain_ranks(model: Any, tasks: EvaluationSet, way: Way, catalogue: Catalogue | None = None) -> Tensor:
    """(n,) int64 place of each target from 1, 0 beyond the largest cutoff."""
    catalogue = catalogue or Catalogue(model.item_embeddings().detach(), way)
    targets = torch.tensor(tasks.targets, dtype=torch.int64)
    histories = torch.tensor(tasks.histories.values, dtype=torch.int64).split(tasks.histories.lengths.tolist())
    order = np.argsort(tasks.histories.lengths, kind="stable")
    ranks = torch.empty(len(tasks), dtype=torch.int64)
    for first in range(0, len(tasks), way.rows):
        chunk = order[first : first + way.rows]
        own = [histories[user] for user in chunk]
        newest = [history[-model.max_len :] for history in own]
        inputs = torch.nn.utils.rnn.pad_sequence(newest, batch_first=True)
        logits = catalogue.score(model.encode(inputs, torch.tensor([len(history) for history in newest])))
        target = targets[chunk, None]
        bars = logits.gather(1, target - 1)
        row = torch.repeat_interleave(torch.tensor([len(history) for history in own]))
        logits[row, torch.cat(own) - 1] = -torch.inf
        rank = 1 + catalogue.count(logits, bars[:, 0])
        ranks[chunk] = torch.where(rank > K, 0, rank)
    return ranks


def plain_best(catalogue: Catalogue, queries: Tensor, histories: Ragged) -> Tensor:
    """(n, K) int64 ids of the best items that are not in the history, best first."""
    items = torch.tensor(histories.values, dtype=torch.int64)
    row = torch.repeat_interleave(torch.tensor(histories.lengths))
    found = []
    for first in range(0, len(queries), catalogue.way.rows):
        logits = catalogue.score(queries[first : first + catalogue.way.rows])
        own = slice(int(histories.offsets[first]), int(histories.offsets[first + len(logits)]))
        logits[row[own] - first, items[own] - 1] = -torch.inf
        found.append(catalogue.best(logits, K))
    return torch.cat(found)


def _some(tasks: EvaluationSet, n: int) -> EvaluationSet:
    return replace(tasks, rows=tasks.rows[:n], histories=tasks.histories.rows(0, n), targets=tasks.targets[:n])


def metrics(ranks: Tensor) -> dict[str, float]:
    """Recall, NDCG and MRR at every cutoff."""
    found = {}
    place = ranks.double()
    for k in CUTOFFS:
        within = (ranks > 0) & (ranks <= k)
        found[f"recall@{k}"] = float(within.double().mean())
        found[f"ndcg@{k}"] = float(torch.where(within, 1 / torch.log2(place + 1), 0).mean())
        found[f"mrr@{k}"] = float(torch.where(within, 1 / place, 0).mean())
    return found

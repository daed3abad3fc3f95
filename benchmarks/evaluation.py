"""Users a second of the full ranking: rsir.evaluation against torch.mm and masked topk.

Amazon Toys, leave-one-out, every item ranked, those of the history left out. Plain torch takes users in chunks (the
best of several sizes, found by trial), pads each chunk to its longest history, encodes it, scores the catalogue by
torch.mm, masks the history and takes topk; the second case is given the queries and ranks only. All metrics must
agree before anything is timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsir import ops
from rsir.data.splits import EvaluationSet
from rsir.evaluation import CUTOFFS, evaluate
from rsir.models.encoding import encode_sequences
from rsir.runtime.runtime import Runtime

from . import toys
from .harness import Contender, Report, compare, describe_machine, extra_memory

K = max(CUTOFFS)
CHUNKS = (32, 128, 512, 2048)
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
    for name, value in metrics(plain_ranks(model, tasks, min(CHUNKS))).items():
        if abs(value - ours[name]) > TOLERANCE:
            raise SystemExit(f"{name}: {ours[name]:.6f} by rsir, {value:.6f} by plain torch")
    report.notes.append(f"- Both give NDCG@20 {ours['ndcg@20']:.4f} and Recall@10 {ours['recall@10']:.4f}.")

    with torch.no_grad():
        queries = encode_sequences(model, tasks.histories)
    table = ops.pack(model.item_embeddings().detach())
    history = ops.Ragged.from_numpy(tasks.histories.values, tasks.histories.offsets)
    whole, whole_chunk = best_chunk(lambda chunk: metrics(plain_ranks(model, tasks, chunk)))
    ranking, ranking_chunk = best_chunk(lambda chunk: plain_ranks(model, tasks, chunk, queries))
    cases = {
        "encode, rank, metrics": [
            Contender("rsir", lambda: evaluate(model, tasks, runtime=Runtime(threads=options.threads)), len(tasks)),
            Contender(f"plain torch, {whole_chunk} users at a time", whole, len(tasks)),
        ],
        "rank alone": [
            Contender(
                "rsir", lambda: ops.topk(queries, table, K, excluded=history, threads=options.threads), len(tasks)
            ),
            Contender(f"torch.mm and topk, {ranking_chunk} users at a time", ranking, len(tasks)),
        ],
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
def plain_ranks(model: Any, tasks: EvaluationSet, chunk: int, queries: Tensor | None = None) -> Tensor:
    """(n,) int64 place of each target from 1, 0 beyond the largest cutoff; encodes unless given the queries."""
    table = model.item_embeddings()[1:].T
    targets = torch.tensor(tasks.targets, dtype=torch.int64)
    lengths = tasks.histories.lengths
    ranks = torch.empty(len(tasks), dtype=torch.int64)
    for first in range(0, len(tasks), chunk):
        last = min(first + chunk, len(tasks))
        items = torch.tensor(tasks.histories.rows(first, last).values, dtype=torch.int64)
        histories = items.split(lengths[first:last].tolist())
        padded = torch.nn.utils.rnn.pad_sequence(histories, batch_first=True)
        if queries is None:
            newest = [history[-model.max_len :] for history in histories]
            inputs = torch.nn.utils.rnn.pad_sequence(newest, batch_first=True)
            encoded = model.encode(inputs, torch.tensor([len(history) for history in newest]))
        else:
            encoded = queries[first:last]
        logits = encoded @ table
        target = targets[first:last, None]
        kept = logits.gather(1, target - 1)
        row = torch.repeat_interleave(torch.from_numpy(lengths[first:last]))
        logits[row, padded[padded > 0] - 1] = -torch.inf
        logits.scatter_(1, target - 1, kept)
        hit = logits.topk(min(K, logits.shape[1])).indices + 1 == target
        ranks[first:last] = torch.where(hit.any(1), hit.int().argmax(1) + 1, 0)
    return ranks


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


def best_chunk(run: Callable[[int], object]) -> tuple[Callable[[], object], int]:
    trials = {}
    for chunk in CHUNKS:
        start = time.perf_counter()
        run(chunk)
        trials[chunk] = time.perf_counter() - start
    best = min(trials, key=lambda chunk: trials[chunk])
    return lambda: run(best), best

"""One recommendation, and a thousand: rsir.evaluation.recommend against plain torch.

Amazon Toys, the ten best items after a history, without those of the history, by one network and by an ensemble of two.
Plain torch pads the histories to the longest, encodes them, multiplies by the item embeddings into a buffer that is
kept, masks the histories and takes topk; many histories in chunks (the best of several sizes by trial). The lists
must be equal, but where logits are within rounding of each other, before anything is timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import toys
from benchmarks.harness import Contender, Report, compare, describe_machine, extra_memory
from rsir.data.ragged import Ragged
from rsir.evaluation import recommend
from rsir.models import Ensemble, build, pack_items
from rsir.ops import TopK

K = 10
MANY = 1000
CHUNKS = (32, 128, 512, 2048)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving", description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="the model is trained for")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15, help="turns that are timed")
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
    tasks = parts.test
    report = Report("Recommending", {**machine, "data": described, "model": of_model})
    other = build(model.config, model.num_items, seed=1).eval()
    for name, recommender in {"one network": model, "two networks": Ensemble([model, other])}.items():
        table = pack_items(recommender)
        plain = Plain(recommender)
        for n in (1, min(MANY, len(tasks))):
            histories = tasks.histories.rows(0, n)

            ours = partial(recommend, recommender, histories, K, table=table, threads=options.threads)
            theirs = partial(plain.best, histories)
            _same(ours(), theirs(n), f"{name}, {n} histories")
            run, chunk = best_chunk(theirs) if n > 1 else (partial(theirs, 1), 1)
            contenders = [Contender("rsir", ours, n), Contender(f"plain torch, {chunk} at a time", run, n)]
            figures = compare(
                f"{name}, {n:,} histor{'y' if n == 1 else 'ies'}",
                contenders,
                threads=options.threads,
                rounds=options.rounds,
                cpu_time=options.cpu_time,
                unit="histories/s",
            )
            for contender, figure in zip(contenders, figures, strict=True):
                figure.extra_mib = extra_memory(contender.run)
            report.figures += figures
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


class Plain:
    """What a careful user of torch writes: embeddings transposed once, one buffer of logits."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.table = model.item_embeddings()[1:].detach().T.contiguous()
        self.logits = torch.empty(0, self.table.shape[1])

    @torch.inference_mode()
    def best(self, histories: Ragged, chunk: int) -> Tensor:
        """(n, K) int64 ids, best first."""
        found = []
        if len(self.logits) < chunk:
            self.logits = torch.empty(chunk, self.table.shape[1])
        for first in range(0, len(histories), chunk):
            own = histories.rows(first, min(first + chunk, len(histories)))
            flat = torch.tensor(own.values, dtype=torch.int64)
            lengths = torch.tensor(own.lengths)
            rows = torch.repeat_interleave(lengths)
            newest = lengths.clamp(max=self.model.max_len)
            place = torch.arange(len(flat)) - torch.tensor(own.offsets[:-1])[rows] - (lengths - newest)[rows]
            padded = torch.zeros(len(lengths), int(newest.max()), dtype=torch.int64)
            padded[rows[place >= 0], place[place >= 0]] = flat[place >= 0]
            logits = torch.mm(self.model.encode(padded, newest), self.table, out=self.logits[: len(lengths)])
            logits[rows, flat - 1] = -torch.inf
            found.append(logits.topk(K).indices + 1)
        return torch.cat(found)


def _same(ours: TopK, theirs: Tensor, what: str) -> None:
    """Both lists, or other items of logits that float32 sums in another order may exchange."""
    differ = (ours.ids != theirs).any(1)
    if not differ.any():
        return
    row = int(differ.nonzero()[0])
    places = (ours.ids[row] != theirs[row]).nonzero().flatten()
    gap = float((ours.logits[row, places].max() - ours.logits[row, places].min()).abs())
    scale = float(ours.logits[row].abs().max())
    if int(differ.sum()) > max(1, len(differ) // 100) or gap > 1e-4 * max(scale, 1.0):
        raise SystemExit(
            f"{what}: history {row}: {ours.ids[row].tolist()} by rsir, {theirs[row].tolist()} by plain torch"
        )


def best_chunk(run: Callable[[int], object]) -> tuple[Callable[[], object], int]:
    trials = {}
    for chunk in CHUNKS:
        start = time.perf_counter()
        run(chunk)
        trials[chunk] = time.perf_counter() - start
    best = min(trials, key=lambda chunk: trials[chunk])
    return lambda: run(best), best

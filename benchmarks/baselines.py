"""The catalogue by plain torch, written with care: what the ops are timed against.

Logits go into a buffer that is kept; what scores above a bar is counted by ``gt(out=float).sum`` or by
``np.count_nonzero`` of rows of bytes; the best items are those of the groups with the largest maxima. Which of these is
the fastest, for how many rows at a time, with MKL or oneDNN behind ``torch.mm``, is found by trial.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Catalogue", "Way", "fastest", "ways"]

BUFFERS = (1, 4, 16, 64)  # MiB of logits at a time
ROUNDING = 1e-5  # of the largest logit: what sums of float32 in another order may change


class Way(NamedTuple):
    """How a catalogue is scored."""

    rows: int
    counting: str = "float"
    group: int = 0
    precision: str = "highest"

    def __str__(self) -> str:
        parts = [f"{self.rows} rows"]
        if self.counting:
            parts.append({"float": "gt(out=float).sum", "bytes": "count_nonzero"}[self.counting])
        if self.group:
            parts.append(f"groups of {self.group}")
        return ", ".join([*parts, "oneDNN"] if self.precision != "highest" else parts)


def ways(items: Tensor, rows: int, *, count: bool, select: bool) -> Iterable[Way]:
    """What is tried for a catalogue (N + 1, d) and so many queries."""
    chunks = sorted({max(1, min(rows, mib * 2**20 // (4 * len(items)))) for mib in BUFFERS})
    countings, groups = ("float", "bytes") if count else ("",), (0, 64, 128) if select else (0,)
    precisions = ["highest", "medium"] if _exact(items, "medium") else ["highest"]
    return itertools.starmap(Way, itertools.product(chunks, countings, groups, precisions))


def fastest(run: Callable[[Way, int], object], choices: Iterable[Way], rows: int) -> tuple[Way, Callable[[], object]]:
    """The way in which ``run(way, rows)`` took the least time a row in a trial, and a run of all rows in it."""
    taken = {}
    for way in choices:
        sample = min(rows, max(128, 2 * way.rows))
        trials = []
        for _ in range(3):
            start = time.process_time()
            run(way, sample)
            trials.append(time.process_time() - start)
        taken[way] = min(trials) / sample
    best = min(taken, key=taken.__getitem__)
    return best, lambda: run(best, rows)


class Catalogue:
    """Items (N + 1, d) float32 and the buffers of a way."""

    def __init__(self, items: Tensor, way: Way) -> None:
        self.way, self.num_items = way, len(items) - 1
        padded = -(-self.num_items // max(way.group, 1)) * max(way.group, 1)
        self.table = torch.zeros(items.shape[1], padded)
        self.table[:, : self.num_items] = items[1:].T
        self.logits = torch.empty(way.rows, padded)
        self.above = torch.empty(way.rows, padded, dtype=torch.float32 if way.counting == "float" else torch.bool)

    def score(self, queries: Tensor) -> Tensor:
        """(n, N or more) logits of at most so many queries as the way has rows; item i in column i - 1."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.way.precision)
        logits = torch.mm(queries, self.table, out=self.logits[: len(queries)])
        torch.set_float32_matmul_precision(before)
        logits[:, self.num_items :] = -torch.inf
        return logits

    def count(self, logits: Tensor, bars: Tensor) -> Tensor:
        """(n,) int64: how many logits of a row are above its bar."""
        above = self.above[: len(logits)]
        if self.way.counting == "float":
            return torch.gt(logits, bars[:, None], out=above).sum(1).long()
        flags = np.greater(logits.numpy(), bars[:, None].numpy(), out=above.numpy())
        return torch.tensor([np.count_nonzero(row) for row in flags])

    def best(self, logits: Tensor, k: int) -> Tensor:
        """(n, k) int64 ids of the largest logits, best first."""
        group = self.way.group
        if not group:
            return logits.topk(k).indices + 1
        groups = logits.view(len(logits), -1, group)
        chosen = groups.amax(2).topk(min(k, groups.shape[1]), sorted=False).indices
        found = groups.gather(1, chosen[:, :, None].expand(-1, -1, group)).flatten(1)
        place = found.topk(k).indices
        return chosen.gather(1, place // group) * group + place % group + 1


def _exact(items: Tensor, precision: str) -> bool:
    """Whether torch.mm at a precision gives float32 sums here, up to their order: on some processors it rounds."""
    some = items[1 : min(len(items), 513)]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    logits = some @ some.T
    torch.set_float32_matmul_precision(before)
    truth = some.double() @ some.double().T
    return bool((logits - truth).abs().max() <= ROUNDING * truth.abs().max())

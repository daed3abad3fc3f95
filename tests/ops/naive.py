"""The meaning of the ops once more, one row at a time in numpy, and the inputs the tests feed them.

Inputs hold small whole numbers, so that every logit is exact and all backends must agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rsir.ops import Ragged, SparseScores
from rsir.runtime import philox


def ragged(lists, device: str = "cpu", dtype: torch.dtype = torch.int64) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int64)
    ids = np.concatenate([np.asarray(row, np.int64) for row in lists] or [np.zeros(0, np.int64)])
    return Ragged(torch.from_numpy(ids).to(device, dtype), torch.from_numpy(offsets).to(device))


def sparse_scores(lists, values, device: str = "cpu", dtype: torch.dtype = torch.int64) -> SparseScores:
    flat = np.concatenate([np.asarray(row, np.float32) for row in values] or [np.zeros(0, np.float32)])
    return SparseScores(*ragged(lists, device, dtype), torch.from_numpy(flat).to(device))


def with_added(logits: np.ndarray, lists, values) -> np.ndarray:
    """(B, N + 1) float32 scores of logits (B, N + 1) and what is added to some."""
    out = logits.copy()
    with np.errstate(invalid="ignore"):
        for row, (ids, own) in enumerate(zip(lists, values, strict=True)):
            out[row, np.asarray(ids, np.int64)] += np.asarray(own, np.float32)
    return np.where(np.isnan(out), np.float32(-np.inf), out)


@dataclass
class Case:
    queries: torch.Tensor
    items: torch.Tensor
    targets: list
    excluded: list
    pool: list
    counters: torch.Tensor
    listed: list
    """Ids to whose logits something is added, ascending; some rows have none, and one, if any, has all."""
    values: list

    def logits(self) -> np.ndarray:
        """(B, N + 1) float32, NaN and padding at -inf."""
        with np.errstate(invalid="ignore"):
            full = (self.queries.numpy()[:, None, :].astype(np.float64) * self.items.double().numpy()).sum(2)
        full = np.where(np.isnan(full), -np.inf, full).astype(np.float32)
        full[:, 0] = -np.inf
        return full


def random_case(shape: tuple[int, int, int], seed: int = 0) -> Case:
    """Whole-number embeddings with many ties; lists with duplicates, some of them empty."""
    rows, num_items, dim = shape
    rng = np.random.default_rng(seed)

    def lists(longest: int) -> list:
        return [rng.integers(1, num_items + 1, rng.integers(0, longest + 1)) for _ in range(rows)]

    listed = [np.unique(one) for one in lists(min(2 * num_items, 60))]
    listed[rows // 2] = np.arange(1, num_items + 1)
    extremes = np.array([np.inf, -np.inf, -0.0])
    values = [
        np.where(rng.random(len(one)) < 0.05, rng.choice(extremes, len(one)), rng.integers(-3, 9, len(one)))
        for one in listed
    ]
    return Case(
        torch.from_numpy(rng.integers(-2, 3, (rows, dim)).astype(np.float32)),
        torch.from_numpy(rng.integers(-2, 3, (num_items + 1, dim)).astype(np.float32)),
        lists(4),
        lists(min(2 * num_items, 30)),
        lists(40),
        torch.from_numpy(rng.integers(0, 2**32, (rows, 3))),
        listed,
        values,
    )


def best_first(logits: np.ndarray, k: int, allowed=None, excluded=()) -> tuple[np.ndarray, np.ndarray]:
    """Ids and logits of the eligible items of one row (N + 1,), at most k."""
    allowed = np.arange(1, len(logits)) if allowed is None else np.unique(allowed)
    ids = np.setdiff1d(allowed, excluded).astype(np.int64)
    ids = ids[logits[ids] > -np.inf]
    ids = ids[np.lexsort((ids, -logits[ids]))][:k]
    return ids, logits[ids]


def topk(logits: np.ndarray, k: int, excluded=None) -> tuple[np.ndarray, np.ndarray]:
    ids, values = np.zeros((len(logits), k), np.int64), np.full((len(logits), k), -np.inf, np.float32)
    for row, scores in enumerate(logits):
        best, best_logits = best_first(scores, k, excluded=() if excluded is None else excluded[row])
        ids[row, : len(best)], values[row, : len(best)] = best, best_logits
    return ids, values


def sample(
    logits: np.ndarray, k: int, temperature: float, seed: int, counters, allowed=None, excluded=None
) -> tuple[np.ndarray, np.ndarray]:
    chosen, values = np.zeros(len(logits), np.int64), np.full(len(logits), -np.inf, np.float32)
    for row, scores in enumerate(logits):
        ids, top = best_first(
            scores, k, None if allowed is None else allowed[row], () if excluded is None else excluded[row]
        )
        if len(ids) == 0:
            continue
        place = 0
        if k > 1:
            words = np.repeat(np.asarray(counters)[row : row + 1], len(ids), axis=0)
            noisy = top.astype(np.float64) / temperature + philox.gumbel(seed, words, ids)
            place = min(np.flatnonzero(noisy == noisy.max()), key=lambda i: ids[i])
        chosen[row], values[row] = ids[place], top[place]
    return chosen, values


def ranks(logits: np.ndarray, targets: list, tau: int | None) -> np.ndarray:
    worst = (logits.shape[1] - 1 if tau is None else tau) + 1
    out = np.full(len(logits), worst, np.int64)
    for row, scores in enumerate(logits):
        for target in targets[row]:
            out[row] = min(out[row], 1 + int((scores[1:] > scores[target]).sum()))
    return out


def places(logits: np.ndarray, targets, tau: int, excluded: list) -> np.ndarray:
    out = np.full(len(logits), tau + 1, np.int64)
    for row, (scores, target) in enumerate(zip(logits, targets, strict=True)):
        ids, _ = best_first(scores, tau, excluded=np.setdiff1d(excluded[row], [target]))
        if target in ids:
            out[row] = 1 + ids.tolist().index(target)
    return out

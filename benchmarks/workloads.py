"""Inputs of the ops benchmark: random catalogues, and a small trained model for the early exit."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsir.ops import Ragged


class Workload(NamedTuple):
    queries: Tensor
    items: Tensor
    targets: Ragged
    excluded: Ragged


def random_workload(rows: int, num_items: int, dim: int, listed: int = 20) -> Workload:
    """Gaussian embeddings; five targets and ``listed`` excluded ids a row."""
    generator = torch.Generator().manual_seed(0)

    def lists(length: int) -> Ragged:
        ids = torch.randint(1, num_items + 1, (rows * length,), generator=generator)
        return Ragged(ids, torch.arange(rows + 1) * length)

    return Workload(
        torch.randn(rows, dim, generator=generator),
        torch.randn(num_items + 1, dim, generator=generator),
        lists(5),
        lists(listed),
    )


def read_log(path: Path) -> list[np.ndarray]:
    """One user a line: ``user item item ...``, ids from 1, oldest first."""
    return [np.array(line.split()[1:], np.int64) for line in path.read_text().splitlines() if line.strip()]


def simulate_log(users: int = 20_000, num_items: int = 12_000, seed: int = 0) -> list[np.ndarray]:
    """Users who take two fifths of their items from two of 60 groups, with popular items in each, the rest anywhere."""
    rng = np.random.default_rng(seed)
    groups_in_all = 60
    size = num_items // groups_in_all
    weight = 1.0 / np.arange(1, size + 1) ** 0.5
    log = []
    for _ in range(users):
        groups = rng.choice(groups_in_all, 2)
        length = 5 + rng.geometric(0.25)
        places = rng.choice(size, length, p=weight / weight.sum())
        loyal = 1 + rng.choice(groups, length) * size + places
        log.append(np.where(rng.random(length) < 0.4, loyal, rng.integers(1, num_items + 1, length)))
    return log


def trained_workload(log: list[np.ndarray], rows: int, dim: int = 64) -> Workload:
    """A factored co-occurrence model: the query is a decayed sum of the history, the targets are what came next.

    Item vectors are the leading singular vectors of the log's item-item counts, damped by popularity. That is a
    recommender of ordinary strength, trained in seconds: what matters here is how soon tau items outscore a target.
    """
    num_items = int(max(sequence.max() for sequence in log))
    firsts, seconds = [], []
    for sequence in log:
        for gap in range(1, 4):
            firsts.append(sequence[:-gap])
            seconds.append(sequence[gap:])
    first, second = torch.from_numpy(np.concatenate(firsts)), torch.from_numpy(np.concatenate(seconds))
    popularity = torch.bincount(torch.cat([first, second]), minlength=num_items + 1).clamp(min=1).float()
    values = 1.0 / (popularity[first] * popularity[second]).sqrt()
    shape = (num_items + 1, num_items + 1)
    counts = torch.sparse_coo_tensor(torch.stack([first, second]), values, shape, check_invariants=False).coalesce()
    torch.manual_seed(0)
    left, scale, right = torch.svd_lowrank((counts + counts.transpose(0, 1)).coalesce(), q=dim, niter=4)
    items = (right * scale.sqrt()).contiguous()
    inputs = left * scale.sqrt()
    queries: list[Tensor] = []
    targets: list[Tensor] = []
    seen: list[Tensor] = []
    for sequence in log:
        if len(sequence) < 4 or len(queries) == rows:
            continue
        cut = len(sequence) // 2
        decay = torch.from_numpy(0.7 ** np.arange(cut)[::-1].copy()).float()
        queries.append(decay @ inputs[torch.from_numpy(sequence[:cut])])
        targets.append(torch.from_numpy(sequence[cut:]))
        seen.append(torch.from_numpy(sequence[:cut]))

    def lists(parts: list[Tensor]) -> Ragged:
        lengths = torch.tensor([len(part) for part in parts])
        return Ragged(torch.cat(parts), torch.nn.functional.pad(lengths.cumsum(0), (1, 0)))

    return Workload(torch.stack(queries), items, lists(targets), lists(seen))

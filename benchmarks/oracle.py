"""Bounded exploration as a plain loop: one trajectory at a time, as the authors' code goes about it.

At every step the whole prefix is encoded anew, the whole catalogue scored and sorted. The truth that
:mod:`rsir.generation.generate` is tested against, and the per-row baseline of its benchmark.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from rsir.config import GenerationConfig
from rsir.data.sequences import Sequences
from rsir.models.protocol import Backbone
from rsir.ops import Ragged
from rsir.runtime.philox import Stream, counters, gumbel, uniform


def one_trajectory(
    model: Backbone,
    source: list[int],
    row: int,
    number: int,
    config: GenerationConfig,
    *,
    seed: int,
    round_: int,
    tau: int | None,
    on_fail: str,
    graph: np.ndarray | None = None,
    hits: int = 1,
    judge: Callable[[int, list[int], list[int]], bool] | None = None,
) -> list[int]:
    embeddings = model.item_embeddings().detach()

    def words(stream: Stream, step: int) -> np.ndarray:
        return counters(stream, round_, np.array([row]), np.array([number]), np.array([step]))

    given = 1
    if config.start == "prefix":
        longest = min(len(source), model.max_len) - 1
        given = 1 + int(uniform(seed, words(Stream.PREFIX, 0))[0] * longest)
    trajectory = source[:given]

    def strays() -> bool:
        """Whether a new item, the last, is no neighbour of enough of the source's items."""
        if graph is None or len(trajectory) == given:
            return False
        return sum(trajectory[-1] in graph[item] for item in set(source)) < hits

    while True:
        targets = sorted(set(source) - set(trajectory))
        if not targets:
            break
        if len(trajectory) == model.max_len:
            if strays() and on_fail == "drop":
                trajectory = trajectory[:-1]
            break
        with torch.no_grad():
            query = model.encode(torch.tensor([trajectory]), torch.tensor([len(trajectory)]))[0]
        logits = (embeddings @ query).numpy()
        if config.generator != "networks":
            history = Ragged(torch.tensor(trajectory, dtype=torch.int32), torch.tensor([0, len(trajectory)]))
            added = model.added_scores(history)  # type: ignore[attr-defined]
            logits[added.ids.long().numpy()] += added.values.numpy()
        best = max(logits[t] for t in targets)
        failed = tau is not None and 1 + int((logits[1:] > best).sum()) > tau
        failed = failed or (judge is not None and not judge(row, trajectory, targets))
        if failed or strays():
            if on_fail == "drop" and len(trajectory) > given:
                trajectory = trajectory[:-1]
            break
        own = uniform(seed, words(Stream.POOL, len(trajectory)))[0] < config.p
        inside = np.zeros(len(logits), bool)
        inside[targets if own else slice(1, None)] = True
        inside[trajectory] = False
        best_first = np.argsort(-logits, kind="stable")  # ties: lower id first
        top = best_first[inside[best_first]][: config.k]
        if not len(top):
            break
        if config.k > 1:
            noise = gumbel(seed, words(Stream.ITEM, len(trajectory)), top[None])[0]
            top = top[np.lexsort((top, -(logits[top] / config.temperature + noise)))]
        trajectory = [*trajectory, int(top[0])]
    return trajectory


def all_trajectories(
    model: Backbone, sources: Sequences, config: GenerationConfig, **settings: object
) -> list[tuple[int, list[int]]]:
    """Kept trajectories with their source rows, in order of row and trajectory number."""
    decoded = []
    for row in range(len(sources)):
        source = sources[row].tolist()
        if len(set(source)) < 2:
            continue
        for number in range(config.m):
            decoded.append((row, one_trajectory(model, source, row, number, config, **settings)))  # type: ignore[arg-type]
    return kept(decoded, sources, config)


def kept(
    decoded: list[tuple[int, list[int]]], sources: Sequences, config: GenerationConfig
) -> list[tuple[int, list[int]]]:
    """Those that are long enough, no copy of their source's beginning, and not the same as an earlier one."""
    found: dict[tuple[int, tuple[int, ...]], None] = {}
    for row, trajectory in decoded:
        copy = trajectory == sources[row][: len(trajectory)].tolist() and not config.keep_copies
        if len(trajectory) >= config.min_length and not copy:
            found.setdefault((row, tuple(trajectory)))
    return [(row, list(trajectory)) for row, trajectory in found]

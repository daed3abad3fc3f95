"""Bounded exploration as a plain loop: one trajectory at a time, one prefix encoded anew at every step.

The truth that :mod:`rsir.generation` is tested against and the per-row baseline of its benchmark.
"""

from __future__ import annotations

import numpy as np
import torch

from rsir.config import GenerationConfig
from rsir.data.sequences import Sequences
from rsir.models.protocol import Backbone
from rsir.philox import Stream, counters, gumbel, uniform


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
) -> list[int]:
    embeddings = model.item_embeddings().detach().numpy()

    def words(stream: Stream, step: int) -> np.ndarray:
        return counters(stream, round_, np.array([row]), np.array([number]), np.array([step]))

    given = 1
    if config.start == "prefix":
        longest = min(len(source), model.max_len) - 1
        given = 1 + int(uniform(seed, words(Stream.PREFIX, 0))[0] * longest)
    trajectory = source[:given]
    while len(trajectory) < model.max_len:
        targets = sorted(set(source) - set(trajectory))
        if not targets:
            break
        with torch.no_grad():
            query = model.encode(torch.tensor([trajectory]), torch.tensor([len(trajectory)]))[0].numpy()
        logits = (embeddings.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        best = max(logits[t] for t in targets)
        failed = tau is not None and 1 + int((logits[1:] > best).sum()) > tau
        if graph is not None and len(trajectory) > given:
            votes = sum(trajectory[-1] in graph[item] for item in set(source))
            failed = failed or votes < hits
        if failed:
            if on_fail == "drop" and len(trajectory) > given:
                trajectory = trajectory[:-1]
            break
        own = uniform(seed, words(Stream.POOL, len(trajectory)))[0] < config.p
        pool = targets if own else sorted(set(range(1, model.num_items + 1)) - set(trajectory))
        if not pool:
            break
        top = sorted(pool, key=lambda item: (-logits[item], item))[: config.k]
        noise = gumbel(seed, words(Stream.ITEM, len(trajectory)), np.array([top]))[0]
        if config.k > 1:
            top = sorted(
                zip(top, noise, strict=True), key=lambda t: (-(logits[t[0]] / config.temperature + t[1]), t[0])
            )
            top = [item for item, _ in top]
        trajectory = [*trajectory, top[0]]
    return trajectory


def all_trajectories(
    model: Backbone, sources: Sequences, config: GenerationConfig, **settings: object
) -> list[tuple[int, list[int]]]:
    """Kept trajectories with their source rows, in order of row and trajectory number."""
    kept: list[tuple[int, list[int]]] = []
    for row in range(len(sources)):
        source = sources[row].tolist()
        if len(set(source)) < 2:
            continue
        for number in range(config.m):
            trajectory = one_trajectory(model, source, row, number, config, **settings)  # type: ignore[arg-type]
            copy = trajectory == source[: len(trajectory)] and not config.keep_copies
            if len(trajectory) >= config.min_length and not copy and (row, trajectory) not in kept:
                kept.append((row, trajectory))
    return kept

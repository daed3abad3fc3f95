"""Fidelity: does a growing trajectory stay on its user's preference manifold?

A policy may check two things. A rank threshold ``tau``: some real item that the trajectory has not used must still
rank within tau under the model (RSIR, section 3.3); the engine fuses that check with the draw of the next item. And
``accepts``: a check of the newly generated item itself, which needs no held-out item.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .ann import neighbour_graph
from .config import FidelityConfig
from .ops import Ragged, neighbour_votes

__all__ = ["Both", "Fidelity", "Neighbours", "Off", "Rank", "build", "scheduled"]


class Fidelity(Protocol):
    """What the decoding engine asks of a policy."""

    tau: int | None
    """Rank within which some unused real item must stay; None makes no rank check."""

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor | None:
        """Whether each new item (n,) int64 stays near its source's real items -> (n,) bool; None accepts all."""


class Off:
    """No check: the ablation that the paper reports to collapse."""

    tau: int | None = None

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor | None:
        return None


class Rank:
    """The paper's check: the best-ranked unused real item must be within tau of the top."""

    def __init__(self, tau: int) -> None:
        self.tau: int | None = tau

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor | None:
        return None


class Neighbours:
    """A new item must be among the K nearest neighbours of at least ``hits`` of the source's real items.

    Parameters
    ----------
    embeddings : (N + 1, d) float32
        The current model's item embeddings; the graph is built from them once.
    neighbours : int
        K.
    hits : int
    """

    tau: int | None = None

    def __init__(self, embeddings: Tensor, neighbours: int, hits: int) -> None:
        self.hits = hits
        self.graph = torch.from_numpy(neighbour_graph(embeddings, neighbours)).to(embeddings.device)

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor | None:
        return neighbour_votes(self.graph, items, sources) >= self.hits


class Both(Neighbours):
    """The rank check and the neighbour check; both must pass."""

    def __init__(self, embeddings: Tensor, tau: int, neighbours: int, hits: int) -> None:
        super().__init__(embeddings, neighbours, hits)
        self.tau = tau


def build(config: FidelityConfig, embeddings: Tensor, round_: int) -> Fidelity:
    """The policy of a round (1, 2, ...), bound to the embeddings (N + 1, d) of the model that generates."""
    num_items = embeddings.shape[0] - 1
    tau = min(scheduled(config.tau, round_), num_items)
    neighbours = min(scheduled(config.neighbours, round_), max(num_items - 1, 1))
    if config.policy == "rank":
        return Rank(tau)
    if config.policy == "neighbours":
        return Neighbours(embeddings, neighbours, config.hits)
    if config.policy == "both":
        return Both(embeddings, tau, neighbours, config.hits)
    return Off()


def scheduled(value: int | list[int], round_: int) -> int:
    """The value of a round: a list holds one a round, its last holds from then on."""
    return value if isinstance(value, int) else value[min(round_, len(value)) - 1]

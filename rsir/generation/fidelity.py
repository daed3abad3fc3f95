"""Fidelity: does a growing trajectory stay on its user's preference manifold?

A policy may check two things. A rank threshold ``tau``: some real item that the trajectory has not used must still
rank within tau under the model (RSIR, section 3.3); the engine fuses that check with the draw of the next item. And
``accepts``: a check of the newly generated item itself, which needs no held-out item.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from rsir.config import FidelityConfig
from rsir.generation.neighbours import INDEX_FLAT_LIMIT, CandidateIndex, neighbour_graph
from rsir.generation.screening import screen
from rsir.ops import ItemTable, Ragged, neighbour_votes
from rsir.runtime.world import ALONE, World

__all__ = ["Both", "Fidelity", "Neighbours", "Off", "Rank", "build", "scheduled", "threshold"]

_TAU = [50, 20, 10]  # by round, on catalogues that are not small; rsir.config.FidelityConfig says why

Verify = Literal["exact", "trust"]


class Fidelity(Protocol):
    """What the decoding engine asks of a policy."""

    tau: int | None
    """Rank within which some unused real item must stay; None makes no rank check."""

    checks_items: bool
    """Whether new items are checked, by :meth:`accepts`."""

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        """Whether each new item (n,) int64 stays near its source's real items -> (n,) bool."""

    def screen(self, queries: Tensor, targets: Ragged, threads: int | None) -> tuple[Tensor, Tensor] | None:
        """Rows whose rank check needs no scan: those sure to fail, those to be trusted; None: scan them all.

        See :func:`rsir.generation.screening.screen`.
        """


class Off:
    """No check: the ablation that the paper reports to collapse."""

    tau: int | None = None
    checks_items = False

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        return torch.ones_like(items, dtype=torch.bool)

    def screen(self, queries: Tensor, targets: Ragged, threads: int | None) -> tuple[Tensor, Tensor] | None:
        return None


class Rank(Off):
    """The paper's check: the best-ranked unused real item must be within tau of the top.

    Parameters
    ----------
    tau : int
    index : CandidateIndex, optional
        Of the current model's item embeddings: rows are screened by it before they are scanned.
    verify : {"exact", "trust"}
        Whether rows without a proof are scanned or accepted.
    """

    def __init__(self, tau: int, index: CandidateIndex | None = None, verify: Verify = "exact") -> None:
        self.tau, self.index, self.verify = tau, index, verify

    def screen(self, queries: Tensor, targets: Ragged, threads: int | None) -> tuple[Tensor, Tensor] | None:
        if self.index is None or self.tau is None:
            return None
        return screen(queries, self.index, targets, self.tau, verify=self.verify, threads=threads)


class Neighbours(Off):
    """A new item must be among the K nearest neighbours of at least ``hits`` of the source's real items.

    Parameters
    ----------
    embeddings : (N + 1, d) float32
        The current model's item embeddings; the graph is built from them once.
    neighbours : int
        K.
    hits : int
    world : World, optional
        Processes that make the same policy together.
    """

    checks_items = True

    def __init__(self, embeddings: Tensor, neighbours: int, hits: int, world: World = ALONE) -> None:
        self.hits = hits
        self.graph = torch.from_numpy(neighbour_graph(embeddings, neighbours, world=world)).to(embeddings.device)

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        return neighbour_votes(self.graph, items, sources) >= self.hits


class Both(Rank):
    """The rank check and the neighbour check; both must pass."""

    checks_items = True

    def __init__(self, rank: Rank, neighbours: Neighbours) -> None:
        self.tau, self.index, self.verify = rank.tau, rank.index, rank.verify
        self.neighbours = neighbours

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        return self.neighbours.accepts(items, sources)


def build(
    config: FidelityConfig, embeddings: Tensor, round_: int, table: ItemTable | None = None, world: World = ALONE
) -> Fidelity:
    """The policy of a round (1, 2, ...), bound to the embeddings (N + 1, d) of the model that generates.

    Where these are scored from a packed table, maybe in half precision, proofs must be about its logits: ``table``.
    Processes of a ``world`` call this together and divide the neighbour graph.
    """
    if config.policy == "off":
        return Off()
    num_items = embeddings.shape[0] - 1
    if config.policy != "rank":
        near = Neighbours(embeddings, scheduled(config.neighbours, round_), config.hits, world)
        if config.policy == "neighbours":
            return near
    index = None
    sharded = table is not None and table.backend.name == "sharded"
    if num_items > INDEX_FLAT_LIMIT and not embeddings.is_cuda and not sharded:  # else the scan is as fast, or divided
        index = CandidateIndex(embeddings if table is None else table)
    rank = Rank(threshold(config, num_items, round_), index, config.verify)
    return rank if config.policy == "rank" else Both(rank, near)


def threshold(config: FidelityConfig, num_items: int, round_: int) -> int:
    """tau of a round, as it was set or by default."""
    if config.tau is not None:
        return scheduled(config.tau, round_)
    return max(1, min(scheduled(_TAU, round_), num_items // 20))


def scheduled(value: int | list[int], round_: int) -> int:
    """The value of a round: a list holds one a round, its last holds from then on."""
    return value if isinstance(value, int) else value[min(round_, len(value)) - 1]

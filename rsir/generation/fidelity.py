"""Fidelity: does a growing trajectory stay on its user's preference manifold?

A policy may check three things. A rank threshold ``tau``: some real item that the trajectory has not used must still
rank within tau under the model (RSIR, section 3.3); the engine fuses that check with the draw of the next item.
``accepts``: a check of the newly generated item itself, which needs no held-out item. And ``judge``: of the trajectory
so far, by something other than the model that generates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsir.config import FidelityConfig
from rsir.config.registry import Registry
from rsir.errors import ConfigError
from rsir.generation.neighbours import INDEX_FLAT_LIMIT, CandidateIndex, neighbour_graph
from rsir.generation.screening import screen
from rsir.models.itemknn import Unseen
from rsir.ops import ItemTable, Ragged, neighbour_votes
from rsir.runtime.runtime import RUNTIME, Runtime

__all__ = [
    "POLICIES",
    "Both",
    "Counted",
    "CountedRank",
    "Fidelity",
    "Maker",
    "Neighbours",
    "Off",
    "Policy",
    "Rank",
    "build",
    "register",
    "scheduled",
    "threshold",
]

_TAU = [50, 20, 10]  # by round, on catalogues that are not small; rsir.config.FidelityConfig says why

Verify = Literal["exact", "trust"]


class Fidelity(Protocol):
    """What the decoding engine asks of a policy; :class:`Policy` has a default for everything."""

    tau: int | None
    """Rank within which some unused real item must stay; None makes no rank check."""

    checks_items: bool
    """Whether new items are checked, by :meth:`accepts`."""

    judges: bool
    """Whether trajectories are checked by :meth:`judge`."""

    unseen: Unseen | None
    """The item-kNN without the user; :func:`build` sets it for a policy that judges."""

    table: ItemTable | None
    """The item table that verdicts of :meth:`screen` are about, which trajectories must be scored by; None: any."""

    on_fail: str
    """Whether the generated item that failed the check is taken off again ("drop", the paper) or stays ("keep", the
    authors' code); :func:`build` sets what the configuration says."""

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        """Whether each new item (n,) int64 stays near its source's real items -> (n,) bool."""

    def judge(self, users: npt.NDArray[np.int64], trajectories: Ragged, targets: Ragged, threads: int | None) -> Tensor:
        """Whether each trajectory of a user (n,) still leads to one of the unused real items -> (n,) bool."""

    def screen(self, queries: Tensor, targets: Ragged, threads: int | None) -> tuple[Tensor, Tensor] | None:
        """Rows whose rank check needs no scan: those sure to fail, those to be trusted to pass it; None: scan them all.

        See :func:`rsir.generation.screening.screen`.
        """


class Policy:
    """Checks nothing; a base for policies, which change what they need."""

    tau: int | None = None
    checks_items = False
    judges = False
    unseen: Unseen | None = None
    table: ItemTable | None = None
    on_fail = "drop"

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        return torch.ones_like(items, dtype=torch.bool)

    def judge(self, users: npt.NDArray[np.int64], trajectories: Ragged, targets: Ragged, threads: int | None) -> Tensor:
        return torch.ones(len(users), dtype=torch.bool, device=trajectories.ids.device)

    def screen(self, queries: Tensor, targets: Ragged, threads: int | None) -> tuple[Tensor, Tensor] | None:
        return None


class Maker(Protocol):
    """What is registered: a class or function that makes the policy of a round."""

    def __call__(
        self,
        config: FidelityConfig,
        embeddings: Tensor,
        round_: int,
        table: ItemTable | None,
        runtime: Runtime,
    ) -> Fidelity: ...


POLICIES: Registry[Maker] = Registry("fidelity.policy")
"""Every fidelity policy by name."""

register = POLICIES.register
"""Decorator: make a policy known by a name, which ``fidelity.policy`` may then have. See :class:`Maker`."""


class Off(Policy):
    """No check: the ablation that the paper reports to collapse."""


class Rank(Policy):
    """The paper's check: the best-ranked unused real item must be within tau of the top.

    Parameters
    ----------
    tau : int
    index : CandidateIndex, optional
        Index of the current model's item embeddings: rows are screened by it before they are scanned.
    verify : {"exact", "trust"}
        Whether rows without a proof are scanned or accepted.
    """

    def __init__(self, tau: int, index: CandidateIndex | None = None, verify: Verify = "exact") -> None:
        self.tau, self.index, self.verify = tau, index, verify
        self.table = None if index is None else index.table

    def screen(self, queries: Tensor, targets: Ragged, threads: int | None) -> tuple[Tensor, Tensor] | None:
        if self.index is None or self.tau is None:
            return None
        return screen(queries, self.index, targets, self.tau, verify=self.verify, threads=threads)


class Neighbours(Policy):
    """A new item must be among the K nearest neighbours of at least ``hits`` of the source's real items.

    Parameters
    ----------
    embeddings : (N + 1, d) float32
        The current model's item embeddings; the graph is built from them once.
    neighbours : int
        K.
    hits : int
    runtime : Runtime, optional
        The processes that make the same policy together and divide the graph.
    """

    checks_items = True

    def __init__(self, embeddings: Tensor, neighbours: int, hits: int, runtime: Runtime = RUNTIME) -> None:
        self.hits = hits
        graph = neighbour_graph(embeddings, neighbours, world=runtime.world)
        self.graph = torch.from_numpy(graph).to(embeddings.device)

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        return neighbour_votes(self.graph, items, sources) >= self.hits


class Both(Rank):
    """The rank check and the neighbour check; both must pass."""

    checks_items = True

    def __init__(self, rank: Rank, neighbours: Neighbours) -> None:
        assert rank.tau is not None
        super().__init__(rank.tau, rank.index, rank.verify)
        self.neighbours = neighbours

    def accepts(self, items: Tensor, sources: Ragged) -> Tensor:
        return self.neighbours.accepts(items, sources)


class Counted(Policy):
    """The rank check by another judge: the item-kNN, from whose counts the user's own sequence is taken out.

    The model that generates has been trained on the very items that it must find within tau; this count has not seen
    them.

    Parameters
    ----------
    tau : int
        Some unused real item must rank within tau among the items that the trajectory does not hold.
    """

    judges = True

    def __init__(self, tau: int) -> None:
        self.within = tau

    def judge(self, users: npt.NDArray[np.int64], trajectories: Ragged, targets: Ragged, threads: int | None) -> Tensor:
        assert self.unseen is not None
        ranks = self.unseen.ranks(users, trajectories, targets, self.within, threads=threads)
        return torch.from_numpy(ranks <= self.within).to(trajectories.ids.device)


class CountedRank(Counted, Rank):
    """The rank check by the model and by the item-kNN; both must pass."""

    def __init__(self, rank: Rank) -> None:
        assert rank.tau is not None
        Rank.__init__(self, rank.tau, rank.index, rank.verify)
        self.within = rank.tau


def build(
    config: FidelityConfig,
    embeddings: Tensor,
    round_: int,
    table: ItemTable | None = None,
    runtime: Runtime = RUNTIME,
    unseen: Callable[[], Unseen] | None = None,
) -> Fidelity:
    """The policy of a round, bound to the model that generates.

    Parameters
    ----------
    config : FidelityConfig
        Names a registered policy.
    embeddings : (N + 1, d) float32
        The model's item embeddings.
    round_ : int
        1, 2, ...
    table : ItemTable, optional
        What they are scored from, maybe in half precision: proofs must be about its logits.
    runtime : Runtime, optional
        The processes that call this together and divide the neighbour graph.
    unseen : callable, optional
        Gives the item-kNN without the user, for a policy that judges by it.

    Raises
    ------
    ConfigError
        No policy of that name (the message lists those known), or one that needs an item-kNN where there is none.
    """
    policy = POLICIES[config.policy](config, embeddings, round_, table, runtime)
    policy.on_fail = config.on_fail
    if policy.judges:
        if unseen is None:
            raise ConfigError(
                f"fidelity.policy {config.policy}: expected an item-kNN of all users to judge by, got none; use "
                "fidelity.policy rank, or rsir run, within the limit on memory"
            )
        policy.unseen = unseen()
    return policy


@register("off")
def _off(
    config: FidelityConfig, embeddings: Tensor, round_: int, table: ItemTable | None, runtime: Runtime
) -> Fidelity:
    return Off()


@register("rank")
def _rank(config: FidelityConfig, embeddings: Tensor, round_: int, table: ItemTable | None, runtime: Runtime) -> Rank:
    num_items, index = embeddings.shape[0] - 1, None
    sharded = table is not None and table.backend.name == "sharded"
    if num_items > INDEX_FLAT_LIMIT and not embeddings.is_cuda and not sharded:  # else the scan is as fast, or divided
        index = CandidateIndex(embeddings if table is None else table)
    return Rank(threshold(config, num_items, round_), index, config.verify)


@register("neighbours")
def _neighbours(
    config: FidelityConfig, embeddings: Tensor, round_: int, table: ItemTable | None, runtime: Runtime
) -> Neighbours:
    return Neighbours(embeddings, scheduled(config.neighbours, round_), config.hits, runtime)


@register("both")
def _both(config: FidelityConfig, embeddings: Tensor, round_: int, table: ItemTable | None, runtime: Runtime) -> Both:
    near = _neighbours(config, embeddings, round_, table, runtime)
    return Both(_rank(config, embeddings, round_, table, runtime), near)


@register("itemknn")
def _itemknn(
    config: FidelityConfig, embeddings: Tensor, round_: int, table: ItemTable | None, runtime: Runtime
) -> Counted:
    return Counted(threshold(config, embeddings.shape[0] - 1, round_))


@register("rank-itemknn")
def _rank_itemknn(
    config: FidelityConfig, embeddings: Tensor, round_: int, table: ItemTable | None, runtime: Runtime
) -> CountedRank:
    return CountedRank(_rank(config, embeddings, round_, table, runtime))


def threshold(config: FidelityConfig, num_items: int, round_: int) -> int:
    """tau of a round, as it was set or by default."""
    if config.tau is not None:
        return scheduled(config.tau, round_)
    return max(1, min(scheduled(_TAU, round_), num_items // 20))


def scheduled(value: int | list[int], round_: int) -> int:
    """The value of a round: a list holds one a round, its last holds from then on."""
    return value if isinstance(value, int) else value[min(round_, len(value)) - 1]

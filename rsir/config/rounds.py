"""What a round generates, what of it is trusted, and what is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rsir.config.values import check_types, choice, require

__all__ = ["AcquisitionConfig", "DistillationConfig", "FidelityConfig", "GenerationConfig"]


@dataclass(frozen=True)
class GenerationConfig:
    """Bounded exploration (RSIR, section 3): how trajectories are drawn.

    Attributes
    ----------
    p
        Probability that a step chooses from the source's own items and not from the whole catalogue.
    m
        Trajectories a source.
    k
        A step draws from the k best items of its pool; 1 is greedy.
    temperature
        Softmax temperature of the draw (no effect when k is 1).
    generator
        What draws items and verifies: the networks, these with the item-kNN's vote beside them (recommender), or the
        item-kNN alone (itemknn).
    start
        What a trajectory starts from: the first item of its source (the authors' code) or a random
        prefix (the paper's text).
    min_length
        Shorter trajectories are dropped.
    keep_copies
        Keep trajectories that equal a prefix of the row they started from.
    slots
        Trajectories decoded side by side; bounds memory, never changes results.
    """

    p: float = 0.5
    m: int = 10
    k: int = 3
    temperature: float = 1.0
    generator: Literal["networks", "recommender", "itemknn"] = "networks"
    start: Literal["first", "prefix"] = "first"
    min_length: int = 3
    keep_copies: bool = False
    slots: int = 2048

    def __post_init__(self) -> None:
        check_types(self, "generation")
        require(0 <= self.p <= 1, "generation.p", "a probability in [0, 1]", self.p)
        require(1 <= self.m < 2**16, "generation.m", "in 1..65535", self.m)
        require(self.k >= 1, "generation.k", "at least 1", self.k)
        require(0 < self.temperature < float("inf"), "generation.temperature", "above 0", self.temperature)
        require(self.min_length >= 2, "generation.min_length", "at least 2", self.min_length)
        require(self.slots >= 1, "generation.slots", "at least 1", self.slots)
        choice("generation.generator", self.generator, ("networks", "recommender", "itemknn"))
        choice("generation.start", self.start, ("first", "prefix"))


@dataclass(frozen=True)
class FidelityConfig:
    """The check that keeps trajectories on the user's preference manifold.

    Its threshold gets stricter from round to round by default, so that training sets do not lean ever more towards
    popular items (docs/results.md).

    Attributes
    ----------
    policy
        rank (the paper), neighbours (nearest-neighbour fidelity), both, itemknn (the rank check by the item-kNN, the
        user left out of its counts, in place of the model), rank-itemknn (both of these), off (the ablation that
        collapses), or one of your own (docs/extending.md).
    tau
        Some unused real item must rank within tau at each step; a list: one a round, the last from then on;
        none: 50,20,10, at most items / 20.
    neighbours
        K of the item-item nearest-neighbour graph; a list gives a value a round.
    hits
        A new item must be among the K neighbours of at least this many of the source's real items.
    verify
        Catalogues above 200,000 items are screened by a FAISS index, which proves most failures without a scan. exact
        scans what is not proved; trust accepts it, scans a sample and reports the share that should have failed.
    on_fail
        drop refuses the item that caused the failure (the paper); keep leaves it (the authors' code).
    """

    policy: str = "rank"
    tau: int | list[int] | None = None
    neighbours: int | list[int] = 20
    hits: int = 1
    verify: Literal["exact", "trust"] = "exact"
    on_fail: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        check_types(self, "fidelity")
        choice("fidelity.verify", self.verify, ("exact", "trust"))
        choice("fidelity.on_fail", self.on_fail, ("drop", "keep"))
        require(self.hits >= 1, "fidelity.hits", "at least 1", self.hits)
        for name in ("tau", "neighbours"):
            values = getattr(self, name)
            if values is None:
                continue
            values = values if isinstance(values, list) else [values]
            require(
                len(values) > 0 and all(v >= 1 for v in values),
                f"fidelity.{name}",
                "a number of at least 1, or a list of them",
                getattr(self, name),
            )


@dataclass(frozen=True)
class AcquisitionConfig:
    """Which verified trajectories enter the next training set.

    Attributes
    ----------
    policy
        all (the RSIR paper); capped: at most cap a source, chosen at random; disagreement (DA-RSIR): those of a source
        are ordered by how much the model disagrees with itself under dropout, and one is drawn from each of cap strata;
        or one of your own (docs/extending.md).
    cap
        Most trajectories a source (not with all); 3 as in DA-RSIR: low, middle and high disagreement.
    passes
        Forward passes with dropout (disagreement only).
    """

    policy: str = "all"
    cap: int = 3
    passes: int = 8

    def __post_init__(self) -> None:
        check_types(self, "acquisition")
        require(self.cap >= 1, "acquisition.cap", "at least 1", self.cap)
        require(self.passes >= 2, "acquisition.passes", "at least 2", self.passes)


@dataclass(frozen=True)
class DistillationConfig:
    """Soft targets: a model learns from what a teacher expected, too, and not only from the items that came.

    Attributes
    ----------
    share
        Share of the targets that are replaced, anew at each step, by a draw from the teacher's expectation; 0 is off.
    teacher
        The networks of the rounds before, which generate (generator), or these and the item-kNN's vote beside them
        (recommender); both teach successors. Or the item-kNN alone (itemknn), which teaches the base as well.
    targets
        Those of the synthetic sequences alone, or of all.
    k
        The teacher's best k items make up its expectation, the history left out.
    temperature
        Softmax temperature of the expectation.
    """

    share: float = 0.0
    teacher: Literal["generator", "recommender", "itemknn"] = "generator"
    targets: Literal["synthetic", "all"] = "all"
    k: int = 20
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_types(self, "distillation")
        require(0 <= self.share <= 1, "distillation.share", "in [0, 1]", self.share)
        choice("distillation.teacher", self.teacher, ("generator", "recommender", "itemknn"))
        choice("distillation.targets", self.targets, ("synthetic", "all"))
        require(self.k >= 1, "distillation.k", "at least 1", self.k)
        require(0 < self.temperature < float("inf"), "distillation.temperature", "above 0", self.temperature)

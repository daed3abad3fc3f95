"""What a run learns from: a file, or simulated users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rsir.config.values import check_types, choice, require

__all__ = ["DataConfig", "SimulationConfig"]


@dataclass(frozen=True)
class SimulationConfig:
    """The embedded data set: users on a planted preference manifold, with popularity skew and short histories.

    Attributes
    ----------
    num_users
        Number of users.
    num_items
        Size of the catalogue.
    mean_length
        Mean number of interactions of a user (the least is 5).
    seed
        Seed of the simulator; the run's own seed does not change the data.
    """

    num_users: int = 4000
    num_items: int = 2400
    mean_length: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "simulation")
        require(self.num_users >= 2, "simulation.num_users", "at least 2", self.num_users)
        require(self.num_items >= 10, "simulation.num_items", "at least 10", self.num_items)
        require(5 <= self.mean_length < 1e6, "simulation.mean_length", "in 5..1,000,000", self.mean_length)
        require(self.seed >= 0, "simulation.seed", "0 or more", self.seed)


@dataclass(frozen=True)
class DataConfig:
    """Where interactions come from and how they are filtered and split.

    Attributes
    ----------
    path
        File of interactions (text, CSV, Parquet, Arrow, RecBole .inter or .pth lists), or folder of Parquet files; none
        means the embedded simulated data.
    format
        Format of the file; auto goes by its extension.
    user
        Column of user ids; detected when not given.
    item
        Column of item ids; detected when not given.
    time
        Column of timestamps; detected when not given.
    rating
        Column of ratings; detected when not given, needed only with min_rating.
    min_rating
        Drop interactions rated lower than this.
    k_core
        Drop users and items with fewer interactions than this, until none is left (0 keeps all).
    split
        leave-one-out (last item test, the one before it validation) or global-time.
    validation_fraction
        Share of the newest interactions before the test period used for validation
        (global-time only).
    test_fraction
        Share of the newest interactions used for testing (global-time only).
    target
        Which held-out item of a user is to be predicted (global-time only).
    """

    path: str | None = None
    format: Literal["auto", "text", "csv", "parquet", "arrow", "inter", "pth"] = "auto"
    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    min_rating: float | None = None
    k_core: int = 0
    split: Literal["leave-one-out", "global-time"] = "leave-one-out"
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    target: Literal["last", "first", "all", "random"] = "last"

    def __post_init__(self) -> None:
        check_types(self, "data")
        choice("data.format", self.format, ("auto", "text", "csv", "parquet", "arrow", "inter", "pth"))
        choice("data.split", self.split, ("leave-one-out", "global-time"))
        choice("data.target", self.target, ("last", "first", "all", "random"))
        require(self.k_core >= 0, "data.k_core", "0 or more", self.k_core)
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            require(0 < value < 0.5, f"data.{name}", "between 0 and 0.5", value)

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
    order
        Share of the events that follow the one before, as the next volume of a series does. With 0 the order of the
        events says nothing, as in the data of before 29 November 2026, and it is the same to the byte.
    seed
        Seed of the simulator; the run's own seed does not change the data.
    """

    num_users: int = 4000
    num_items: int = 2400
    mean_length: float = 8.0
    order: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "simulation")
        require(self.num_users >= 2, "simulation.num_users", "at least 2", self.num_users)
        require(self.num_items >= 10, "simulation.num_items", "at least 10", self.num_items)
        require(5 <= self.mean_length < 1e6, "simulation.mean_length", "in 5..1,000,000", self.mean_length)
        require(0 <= self.order <= 0.9, "simulation.order", "in 0..0.9", self.order)
        require(self.seed >= 0, "simulation.seed", "0 or more", self.seed)


@dataclass(frozen=True)
class DataConfig:
    """Where interactions come from and how they are filtered and split.

    Attributes
    ----------
    path
        File of interactions (text, CSV, JSON lines, Parquet, Arrow, RecBole .inter or .pth lists), or folder of such
        files, here or at an address (s3://bucket/events); none means the embedded simulated data.
    items
        File of items: an id, a vector (of text, images, anything) or a title each. Items that no event has are in the
        catalogue, too, where they have a vector.
    format
        Format of the file; auto goes by its extension and its first lines.
    user
        Column of user ids, by name or by number from 0; detected when not given.
    item
        Column of item ids; detected when not given.
    time
        Column of timestamps; detected when not given.
    rating
        Column of ratings; detected when not given, needed only with min_rating.
    time_format
        How times are written where neither numbers nor ISO dates are, as for strptime: %m/%d/%Y %H:%M.
    header
        Whether line 1 of a table of text names its columns; auto looks.
    encoding
        Encoding of a file of text: utf-8, latin-1, cp1252, ...
    on_bad_row
        What to do with a row that cannot be used (too few fields, no id, no time): error, or drop and count.
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
    repeats
        Whether items that a user had already are ranked and recommended: excluded (a held-out item that the user had
        before is a miss) or included, for logs whose users come back to the same items. Runs that are older than this
        setting have targets: excluded, but for the held-out item.
    """

    path: str | None = None
    items: str | None = None
    format: Literal["auto", "text", "csv", "jsonl", "parquet", "arrow", "inter", "pth"] = "auto"
    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    time_format: str | None = None
    header: Literal["auto", "present", "absent"] = "auto"
    encoding: str = "utf-8"
    on_bad_row: Literal["error", "drop"] = "error"
    min_rating: float | None = None
    k_core: int = 0
    split: Literal["leave-one-out", "global-time"] = "leave-one-out"
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    target: Literal["last", "first", "all", "random"] = "last"
    repeats: Literal["excluded", "included", "targets"] = "excluded"

    def __post_init__(self) -> None:
        check_types(self, "data")
        choice("data.format", self.format, ("auto", "text", "csv", "jsonl", "parquet", "arrow", "inter", "pth"))
        choice("data.header", self.header, ("auto", "present", "absent"))
        choice("data.on_bad_row", self.on_bad_row, ("error", "drop"))
        require(
            _is_encoding(self.encoding), "data.encoding", "an encoding of text such as utf-8 or latin-1", self.encoding
        )
        choice("data.split", self.split, ("leave-one-out", "global-time"))
        choice("data.target", self.target, ("last", "first", "all", "random"))
        choice("data.repeats", self.repeats, ("excluded", "included", "targets"))
        require(self.k_core >= 0, "data.k_core", "0 or more", self.k_core)
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            require(0 < value < 0.5, f"data.{name}", "between 0 and 0.5", value)


def _is_encoding(name: str) -> bool:
    try:
        return isinstance("a".encode(name), bytes)
    except (LookupError, ValueError, TypeError):
        return False

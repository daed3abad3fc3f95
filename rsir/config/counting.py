"""The item-kNN: how sequences are counted, and how histories are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from rsir.config.values import check_types, choice, require

__all__ = ["FIXED", "ItemKnnConfig"]

FIXED: dict[str, Any] = {
    "window": 20,
    "decay": 0.9,
    "backward": 0.3,
    "history_exponent": 0.4,
    "item_exponent": 0.1,
    "age_decay": 0.7,
}
"""Parameters where none is given and nothing was searched; chosen on validation of Amazon Toys."""


@dataclass(frozen=True)
class ItemKnnConfig:
    """A sequential item-kNN: a count of which items follow each other, beside which every run is measured.

    Six of its parameters are found by a search where they are none; docs/stronger.md has what that is worth.

    Attributes
    ----------
    search
        auto: before its base, a run searches the parameters that are not given for the count with the best validation
        NDCG@20. That one is measured; beside the networks it votes, or the one with the fixed values, whichever
        validation prefers beside the base. off: those that are not given have their fixed values.
    window
        Two items of a sequence at most this far apart are counted as a pair; fixed value: 20.
    decay
        A pair at distance g counts decay ** (g - 1); fixed value: 0.9.
    backward
        Weight of an item that comes before another, beside 1 for one that comes after it; fixed value: 0.3.
    history_exponent
        Counts are divided by the occurrences of the history's item to this power; fixed value: 0.4.
    item_exponent
        Counts are divided by the occurrences of the item that is scored to this power; fixed value: 0.1.
    age_decay
        An item of the history with n newer ones counts age_decay ** n; fixed value: 0.7.
    newest
        Items of a history that are looked at, its last ones.
    neighbours
        Items kept of each item, those of the largest counts, which bounds memory.
    listed
        Items scored after a history, those of the largest scores; all others have score 0.
    cold_neighbours
        With data.items: an item that has a vector and no event is counted as so many of the seen items, those with the
        nearest vectors, each weighted by its cosine; 0: its score is 0.
    vote
        auto: the count recommends beside the networks, by a weighted sum of log-probabilities; the weight is chosen on
        validation after every round, and may be 0. What generates, verifies and teaches is the networks alone. off: it
        is measured only.
    """

    search: Literal["auto", "off"] = "auto"
    window: int | None = None
    decay: float | None = None
    backward: float | None = None
    history_exponent: float | None = None
    item_exponent: float | None = None
    age_decay: float | None = None
    newest: int = 50
    neighbours: int = 500
    listed: int = 200
    cold_neighbours: int = 5
    vote: Literal["auto", "off"] = "auto"

    def __post_init__(self) -> None:
        check_types(self, "itemknn")
        for name in ("search", "vote"):
            choice(f"itemknn.{name}", getattr(self, name), ("auto", "off"))
        require(self.window is None or 1 <= self.window < 2**16, "itemknn.window", "in 1..65535", self.window)
        most = {"decay": 1, "backward": 1e6, "history_exponent": 8, "item_exponent": 8, "age_decay": 1}
        for name, end in most.items():
            value = getattr(self, name)
            require(value is None or 0 <= value <= end, f"itemknn.{name}", f"in [0, {end:g}]", value)
        count = self.cold_neighbours
        require(0 <= count <= 2**20, "itemknn.cold_neighbours", "in 0..2**20", count)
        for name in ("newest", "neighbours", "listed"):
            require(1 <= getattr(self, name) <= 2**40, f"itemknn.{name}", "in 1..2**40", getattr(self, name))

    def parameters(self) -> dict[str, Any]:
        """The six parameters by name, those that are none with their fixed values."""
        return {name: value if (own := getattr(self, name)) is None else own for name, value in FIXED.items()}

    @property
    def searches(self) -> bool:
        """Whether a run has a parameter to search."""
        return self.search == "auto" and any(getattr(self, name) is None for name in FIXED)

    def filled(self, parameters: Mapping[str, Any] | None = None) -> ItemKnnConfig:
        """The same with these parameters, or with fixed values in the place of none; nothing is left to search."""
        return replace(self, search="off", **(parameters or self.parameters()))

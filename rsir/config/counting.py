"""The item-kNN: how sequences are counted, and how histories are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rsir.config.values import check_types, choice, require

__all__ = ["ItemKnnConfig"]


@dataclass(frozen=True)
class ItemKnnConfig:
    """A sequential item-kNN: a count of which items follow each other, beside which every run is measured.

    The defaults were chosen on validation of Amazon Toys.

    Attributes
    ----------
    window
        Two items of a sequence at most this far apart are counted as a pair.
    decay
        A pair at distance g counts decay ** (g - 1).
    backward
        Weight of an item that comes before another, beside 1 for one that comes after it.
    history_exponent
        Counts are divided by the occurrences of the history's item to this power.
    item_exponent
        Counts are divided by the occurrences of the item that is scored to this power.
    age_decay
        An item of the history with n newer ones counts age_decay ** n.
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

    window: int = 20
    decay: float = 0.9
    backward: float = 0.3
    history_exponent: float = 0.4
    item_exponent: float = 0.1
    age_decay: float = 0.7
    newest: int = 50
    neighbours: int = 500
    listed: int = 200
    cold_neighbours: int = 5
    vote: Literal["auto", "off"] = "auto"

    def __post_init__(self) -> None:
        check_types(self, "itemknn")
        choice("itemknn.vote", self.vote, ("auto", "off"))
        require(1 <= self.window < 2**16, "itemknn.window", "in 1..65535", self.window)
        for name in ("decay", "age_decay"):
            require(0 <= getattr(self, name) <= 1, f"itemknn.{name}", "in [0, 1]", getattr(self, name))
        require(0 <= self.backward <= 1e6, "itemknn.backward", "in [0, 1e6]", self.backward)
        for name in ("history_exponent", "item_exponent"):
            require(0 <= getattr(self, name) <= 8, f"itemknn.{name}", "in [0, 8]", getattr(self, name))
        count = self.cold_neighbours
        require(0 <= count <= 2**20, "itemknn.cold_neighbours", "in 0..2**20", count)
        for name in ("newest", "neighbours", "listed"):
            require(1 <= getattr(self, name) <= 2**40, f"itemknn.{name}", "in 1..2**40", getattr(self, name))

"""The most popular items for everybody: what any recommender should be better than."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Popularity"]


class Popularity:
    """A backbone whose score of an item is how often it occurs; see :class:`rsir.models.Backbone`.

    Parameters
    ----------
    counts : (N + 1,) int
        By item id; that of id 0 is not looked at.
    """

    max_len = 1

    def __init__(self, counts: npt.NDArray[np.integer]) -> None:
        self.num_items = len(counts) - 1
        self._counts = torch.from_numpy(counts.astype(np.float32))[:, None]

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """(B, 1) ones."""
        return torch.ones(len(items), 1)

    def item_embeddings(self) -> Tensor:
        """(N + 1, 1) counts."""
        return self._counts

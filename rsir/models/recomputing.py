"""Extending sequences with a backbone that can only encode whole ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rsir import data
from rsir.models.encoding import encode_sequences
from rsir.models.protocol import Backbone
from rsir.ops import Ragged

__all__ = ["Recomputed", "ragged"]


class Recomputed:
    """Decoding state of a backbone without ``step``: the items themselves, encoded anew each time."""

    def __init__(self, model: Backbone, slots: int) -> None:
        self.model = model
        device = model.item_embeddings().device
        self.items = torch.zeros(slots, model.max_len, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(slots, dtype=torch.int64, device=device)

    def reset(self, slots: Tensor) -> None:
        self.items[slots] = 0
        self.lengths[slots] = 0

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        self.items[targets] = self.items[sources]
        self.lengths[targets] = self.lengths[sources]

    def step(self, slots: Tensor, items: Tensor) -> Tensor:
        self.items[slots, self.lengths[slots]] = items
        self.lengths[slots] += 1
        ids, offsets = ragged(self.items[slots])
        return encode_sequences(self.model, data.Ragged(ids.int().cpu().numpy(), offsets.cpu().numpy()))


def ragged(padded: Tensor) -> Ragged:
    """Rows of ids with 0 for nothing (n, w) -> lists of the ids."""
    real = padded > 0
    return Ragged(padded[real], pad(real.sum(dim=1).cumsum(dim=0), (1, 0)))

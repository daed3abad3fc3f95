"""Extending sequences with a backbone that can only encode whole ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rsir import ops
from rsir.data.ragged import Ragged, Timed
from rsir.models.encoding import encode_sequences
from rsir.models.protocol import Backbone
from rsir.models.times import uses_times

__all__ = ["Recomputed", "ragged"]


class Recomputed:
    """Decoding state of a backbone without ``step``: the items themselves, encoded anew each time."""

    def __init__(self, model: Backbone, slots: int) -> None:
        self.model = model
        device = model.item_embeddings().device
        self.items = torch.zeros(slots, model.max_len, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(slots, dtype=torch.int64, device=device)
        self.clock = None
        if uses_times(model):
            self.clock = torch.zeros(slots, model.max_len + 1, dtype=torch.int64, device=device)

    def reset(self, slots: Tensor) -> None:
        self.items[slots] = 0
        self.lengths[slots] = 0

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        self.items[targets] = self.items[sources]
        self.lengths[targets] = self.lengths[sources]
        if self.clock is not None:
            self.clock[targets] = self.clock[sources]

    def step(self, slots: Tensor, items: Tensor, times: Tensor | None = None) -> Tensor:
        self.items[slots, self.lengths[slots]] = items
        if self.clock is not None and times is not None:
            self.clock[slots[:, None], self.lengths[slots, None] + torch.arange(2, device=slots.device)] = times
        self.lengths[slots] += 1
        ids, offsets = ragged(self.items[slots])
        lists = Ragged(ids.int().cpu().numpy(), offsets.cpu().numpy())
        if self.clock is not None and times is not None:
            place = torch.arange(self.clock.shape[1], device=slots.device)
            came = self.clock[slots][place < self.lengths[slots, None]]
            lists = Timed(lists.values, lists.offsets, came.cpu().numpy(), times[:, 1].cpu().numpy())
        return encode_sequences(self.model, lists)


def ragged(padded: Tensor) -> ops.Ragged:
    """Rows of ids with 0 for nothing (n, w) -> lists of the ids."""
    real = padded > 0
    return ops.Ragged(padded[real], pad(real.sum(dim=1).cumsum(dim=0), (1, 0)))

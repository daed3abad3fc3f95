"""Small backbones with exact arithmetic: integer embeddings, so that every backend computes the same logits."""

from __future__ import annotations

import torch
from torch import Tensor


class ToyBackbone:
    """Query = sum of the prefix's input vectors, the last one twice. Only the required part of the protocol."""

    def __init__(self, num_items: int, dim: int = 6, max_len: int = 8, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.num_items, self.max_len = num_items, max_len
        self.inputs = torch.randint(-2, 3, (num_items + 1, dim), generator=generator).float()
        self.outputs = torch.randint(-3, 4, (num_items + 1, dim), generator=generator).float()
        self.inputs[0] = 0

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        last = items.gather(1, lengths[:, None] - 1)[:, 0]
        return self.inputs[items].sum(dim=1) + self.inputs[last]

    def item_embeddings(self) -> Tensor:
        return self.outputs


class ToyState:
    def __init__(self, slots: int, dim: int) -> None:
        self.sums = torch.zeros(slots, dim)

    def reset(self, slots: Tensor) -> None:
        self.sums[slots] = 0

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        self.sums[targets] = self.sums[sources]


class IncrementalToyBackbone(ToyBackbone):
    """The same queries, item by item."""

    def new_state(self, slots: int) -> ToyState:
        return ToyState(slots, self.inputs.shape[1])

    def step(self, state: ToyState, slots: Tensor, items: Tensor) -> Tensor:
        state.sums[slots] += self.inputs[items]
        return state.sums[slots] + self.inputs[items]

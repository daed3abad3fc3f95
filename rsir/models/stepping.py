"""Extending many sequences by one item each, in tiles of a fixed shape.

A matrix product may round differently at another shape, so slots are stepped in tiles whose shape depends on a slot's
own length alone; a tile that is not full is filled with a scratch slot. So its bits do not depend on its company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir.config import ModelConfig
from rsir.errors import BackboneError
from rsir.models.encoding import tile_rows
from rsir.models.protocol import Backbone

__all__ = ["KeyValueState", "SlotState", "lengths_after", "step_in_tiles"]

# Slots that step together, about; fixed, so that a slot's bits do not depend on how many are stepped.
_STEP_TILE = {"cpu": 256, "cuda": 4096}


class SlotState:
    """Lengths of the sequences being extended; what else a backbone remembers of them is added by subclasses.

    Attributes
    ----------
    lengths : (slots + 1,) int64
        The last slot is scratch, for filling a tile.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.lengths = torch.zeros(slots + 1, dtype=torch.int64, device=device)
        self._stamps = torch.zeros(slots, dtype=torch.int64, device=device)

    def reset(self, slots: Tensor) -> None:
        """Empty these slots, (n,) int64."""
        self.lengths[slots] = 0

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Let each target slot, (n,) int64, hold what its source slot holds; no target is a source."""
        self.lengths[targets] = self.lengths[sources]

    def distinct(self, slots: Tensor) -> bool:
        """Whether no slot is named twice."""
        number = torch.arange(len(slots), device=slots.device)
        self._stamps[slots] = number
        return torch.equal(self._stamps[slots], number)


class KeyValueState(SlotState):
    """Cached keys and values of attention.

    Attributes
    ----------
    keys, values : (layers, slots + 1, heads, max_len, d / heads) float32
    low : (layers, slots + 1, d) float32, or None
        What the filters of the layers have averaged, where they have some; of a slot without items it means nothing.
    clock : (slots + 1, max_len + 1) int64, or None
        When each item came, and after the last one when the next is asked for, where the backbone uses times.
    """

    def __init__(
        self, config: ModelConfig, slots: int, device: torch.device, filtered: bool = False, timed: bool = False
    ) -> None:
        super().__init__(slots, device)
        shape = (config.layers, slots + 1, config.heads, config.max_len, config.dim // config.heads)
        self.keys, self.values = (_zeros(shape, device) for _ in range(2))
        self.low = _zeros((config.layers, slots + 1, config.dim), device) if filtered else None
        self.clock = None
        if timed:
            self.clock = torch.zeros(slots + 1, config.max_len + 1, dtype=torch.int64, device=device)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        super().copy(sources, targets)
        width = int(self.lengths[sources].max()) if len(sources) else 0
        for cache in (self.keys, self.values):
            cache[:, targets, :, :width] = cache[:, sources, :, :width]
        if self.low is not None:
            self.low[:, targets] = self.low[:, sources]
        if self.clock is not None:
            self.clock[targets] = self.clock[sources]


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """float32 zeros. On a CPU numpy's, which take no memory until they are written, and few trajectories are as long as
    there is room for: torch's took 40 ms of the 1,040 that a generation for Amazon Toys takes."""
    return torch.from_numpy(np.zeros(shape, np.float32)) if device.type == "cpu" else torch.zeros(shape, device=device)


State = TypeVar("State", bound=SlotState)


def lengths_after(model: nn.Module, state: SlotState, slots: Tensor, max_len: int) -> Tensor:
    """Lengths of the slots (n,) with one more item each; the errors of :func:`step_in_tiles`."""
    if model.training:
        raise BackboneError("step works without dropout: call eval() on the model first")
    if not state.distinct(slots):
        raise ValueError("slots: expected each slot once, got one twice; step it twice instead")
    lengths = state.lengths[slots] + 1
    if len(slots) and int(lengths.max()) > max_len:
        slot = int(slots[lengths.argmax()])
        raise ValueError(f"slots: slot {slot} holds max_len = {max_len} items already; reset it first")
    return lengths


@torch.no_grad()
def step_in_tiles(
    model: nn.Module,
    state: State,
    slots: Tensor,
    items: Tensor,
    widths: Sequence[int],
    extend: Callable[[State, Tensor, Tensor, Tensor, int], Tensor],
) -> Tensor:
    """Append one item to each named slot; see :class:`rsir.models.IncrementalBackbone`.

    Parameters
    ----------
    model : torch.nn.Module
        A backbone in evaluation mode.
    state : SlotState
        Its lengths are brought up to date.
    slots, items : (n,) int64
    widths : list of int
        Rising to max_len. Slots whose length, the new item included, falls into the same one share a tile.
    extend : callable
        ``(state, slots (size,), items (size,), lengths (size,) before the items, width) -> queries (size, d)``; slots
        that fill a tile up are the scratch slot, of length 0, their items 0.

    Returns
    -------
    (n, d) float32

    Raises
    ------
    BackboneError
        The model is in training mode.
    ValueError
        A slot holds max_len items already, or is named twice.
    """
    lengths = lengths_after(model, state, slots, widths[-1])
    table = cast(Backbone, model).item_embeddings()
    queries = table.new_empty(len(slots), table.shape[1])
    size = tile_rows(_STEP_TILE.get(slots.device.type, _STEP_TILE["cuda"]), torch.get_num_threads())
    bucket = torch.bucketize(lengths, torch.tensor(widths, device=lengths.device))
    for number, width in enumerate(widths):
        for part in (bucket == number).nonzero()[:, 0].split(size):
            if len(part) == 0:
                continue
            missing = size - len(part)
            tile = F.pad(slots[part], (0, missing), value=len(state.lengths) - 1)
            state.lengths[-1] = 0
            before = state.lengths[tile]
            queries[part] = extend(state, tile, F.pad(items[part], (0, missing)), before, width)[: len(part)]
            state.lengths[tile] = before + 1
    return queries

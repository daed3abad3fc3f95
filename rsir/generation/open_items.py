"""What is left of each trajectory's source: the items that it has not used, its targets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from rsir.data.sequences import ragged_indices
from rsir.ops import Ragged

__all__ = ["Targets"]


class Targets:
    """For each of some slots the items of a source, and which of them are still open.

    Sources may be of very different lengths: only the room for them is that of the longest, not the work.

    Parameters
    ----------
    slots : int
    device : torch.device
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.items = torch.zeros(slots, 1, dtype=torch.int32, device=device)
        self.open = torch.zeros(slots, 1, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(slots, dtype=torch.int64, device=device)
        self.left = torch.zeros_like(self.lengths)  # how many places are open

    def start(self, slots: Tensor, items: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]) -> None:
        """Give slots (n,) the sources whose items are these, one source after the other, all of them open."""
        missing = int(lengths.max()) - self.items.shape[1]
        if missing > 0:
            self.items, self.open = pad(self.items, (0, missing)), pad(self.open, (0, missing))
        device = self.items.device
        begin = slots.cpu().numpy() * self.items.shape[1]
        places = torch.from_numpy(ragged_indices(begin, lengths)).to(device)
        self.items.view(-1)[places] = torch.tensor(items, dtype=torch.int32, device=device)
        self.open.view(-1)[places] = True
        self.lengths[slots] = self.left[slots] = torch.from_numpy(lengths).to(device)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Make what is open in some slots (n,) open in others that were given the same sources."""
        row, places = self._places(targets)
        self.open.view(-1)[places] = self.open.view(-1)[places + ((sources - targets) * self.items.shape[1])[row]]
        self.left[targets] = self.left[sources]

    def use(self, slots: Tensor, items: Tensor) -> None:
        """Close the places of these slots (n,) that hold these items (n,)."""
        row, places = self._places(slots)
        closing = (self.items.view(-1)[places] == items[row]) & self.open.view(-1)[places]
        self.open.view(-1)[places[closing]] = False
        self.left[slots] -= torch.bincount(row[closing], minlength=len(slots))

    def at(self, slots: Tensor, places: Tensor) -> Tensor:
        """(n,) int64: the items at these places (n,) of the sources."""
        return self.items[slots, places].long()

    def sources(self, slots: Tensor) -> Ragged:
        """The items of these slots' sources, open or not."""
        return Ragged(self.items.view(-1)[self._places(slots)[1]], _offsets(self.lengths[slots]))

    def lists(self, slots: Tensor) -> Ragged:
        """The open items of these slots."""
        _, places = self._places(slots)
        places = places[self.open.view(-1)[places]]
        return Ragged(self.items.view(-1)[places], _offsets(self.left[slots]))

    def _places(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Of every item of these slots' sources: which of the slots it is of, and where it lies."""
        lengths = self.lengths[slots]
        row = torch.repeat_interleave(lengths)
        begin = slots * self.items.shape[1] - (lengths.cumsum(0) - lengths)
        return row, torch.arange(len(row), device=row.device) + begin[row]


def _offsets(lengths: Tensor) -> Tensor:
    return pad(lengths.cumsum(0), (1, 0))

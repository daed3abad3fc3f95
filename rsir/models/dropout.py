"""Dropout masks, drawn in one go for a whole forward pass.

Torch's own CPU dropout draws from a sequential generator one element at a time: 1.4 ms for (1450, 64), longer than
all the arithmetic of a layer. Here a pass draws random bytes for all its masks at once, and each use is one
multiplication, or a comparison within a fused op.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Dropout", "Rows"]


class Rows(NamedTuple):
    """Which rows of a larger pass are computed here, so that they get what they would get there.

    Attributes
    ----------
    places : (n,) int64
    of : int
        Rows in all.
    """

    places: Tensor
    of: int


class Dropout:
    """Dropout for one forward pass.

    Parameters
    ----------
    probability : float
        In [0, 1). Rounded to the next 1/256, since a byte decides each element; the scale of what is kept is exact
        for the rounded value, so that the expectation is unchanged.
    elements : int
        Total number of elements that will be passed through it.
    device : torch.device
    generator : torch.Generator, optional
        On the same device; none is torch's global one.
    rows : Rows, optional
        Where other processes compute the other rows: bytes are drawn for all rows, and those of these are taken.

    Attributes
    ----------
    dropped : int
        How many of the 256 byte values drop an element.
    """

    def __init__(
        self,
        probability: float,
        elements: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        rows: Rows | None = None,
    ) -> None:
        self.dropped = round(probability * 256)
        self._used, self._rows = 0, rows
        if self.dropped == 0:
            return
        if rows is not None:
            elements = elements // len(rows.places) * rows.of
        words = torch.empty(-(-elements // 8), dtype=torch.int64, device=device)
        self._bytes = words.random_(-(2**63), None, generator=generator).view(torch.uint8)

    def take(self, *shape: int) -> Tensor:
        """The next random bytes, uint8: an element is dropped where its byte is below ``dropped``."""
        rows = self._rows
        drawn = shape if rows is None else (rows.of, *shape[1:])
        start, self._used = self._used, self._used + math.prod(drawn)
        taken = self._bytes[start : self._used].view(drawn)
        return taken if rows is None else taken[rows.places]

    def __call__(self, x: Tensor) -> Tensor:
        """Zero some elements of x, scale the others up."""
        if self.dropped == 0:
            return x
        # In float32 from the first step on: comparing bytes to booleans and converting these takes twice as long.
        return x * self.take(*x.shape).float().ge_(float(self.dropped)).mul_(256 / (256 - self.dropped))

"""Dropout masks, drawn in one go for a whole forward pass.

Torch's own CPU dropout draws from a sequential generator one element at a time: 1.4 ms for (1450, 64), longer than
all the arithmetic of a layer. Here a pass draws random bytes for all its masks at once, and each use is one
multiplication, or a comparison within a fused op.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Dropout"]


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

    Attributes
    ----------
    dropped : int
        Of 256 byte values, how many drop an element.
    """

    def __init__(
        self, probability: float, elements: int, device: torch.device, generator: torch.Generator | None = None
    ) -> None:
        self.dropped = round(probability * 256)
        self._used = 0
        if self.dropped == 0:
            return
        words = torch.empty(-(-elements // 8), dtype=torch.int64, device=device)
        self._bytes = words.random_(-(2**63), None, generator=generator).view(torch.uint8)

    def take(self, *shape: int) -> Tensor:
        """The next random bytes, uint8: an element is dropped where its byte is below ``dropped``."""
        start, self._used = self._used, self._used + math.prod(shape)
        return self._bytes[start : self._used].view(shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Zero some elements of x, scale the others up."""
        if self.dropped == 0:
            return x
        # In float32 from the first step on: comparing bytes to booleans and converting these takes twice as long.
        return x * self.take(*x.shape).float().ge_(float(self.dropped)).mul_(256 / (256 - self.dropped))

"""Sequences laid one after the other into rows of equal width, for one causal pass over all of their positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsir.data.ragged import ragged_indices
from rsir.ops import Ragged

__all__ = ["Packed", "pack_rows"]


class Packed(NamedTuple):
    """As in :class:`rsir.data.batches.TrainingBatch`, without targets."""

    items: Tensor
    """(R, W) int64; 0 where a row is not filled."""
    positions: Tensor
    """(R, W) int64"""
    segments: Tensor
    """(R, W) int64; 0 where a row is not filled."""
    places: Tensor
    """(nnz,) int64: where each item stands in the flattened rows."""


def pack_rows(sequences: Ragged, device: torch.device) -> Packed:
    """Pack sequences, none of them empty, into rows as wide as the longest.

    Parameters
    ----------
    sequences : Ragged
        Ids on the CPU.
    device : torch.device
        Of the result.
    """
    from rsir.data import packing

    lengths = sequences.offsets.diff().numpy()
    width = int(lengths.max(initial=1))
    row, column, height = packing.assign(lengths, width)
    position = ragged_indices(np.zeros_like(lengths), lengths)
    place = np.repeat(row * width + column, lengths) + position
    grid = np.zeros((3, height * width), np.int64)
    # segments of a row are told apart by their first column
    grid[:, place] = sequences.ids.numpy(), position, np.repeat(column + 1, lengths)
    items, positions, segments = torch.from_numpy(grid.reshape(3, height, width)).to(device)
    return Packed(items, positions, segments, torch.from_numpy(place).to(device))

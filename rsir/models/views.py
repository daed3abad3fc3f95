"""Random views of packed sequences for contrastive learning: a crop, a mask or a reordering of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Views", "draw_views"]

_CROP, _MASK, _REORDER = range(3)


@dataclass(frozen=True)
class Views:
    """One view of every sequence, where the sequence was.

    Attributes
    ----------
    origin : (R * W,) int64
        Where in the flattened rows each place takes its item from.
    masked : (R * W,) bool
        Whether the item is hidden.
    positions, segments : (R, W) int64
        As in :class:`rsir.data.batches.TrainingBatch`; places that were cut off are not filled.
    last : (S,) int64
        Where in the flattened rows the view of each sequence ends, in the order of the rows.
    """

    origin: Tensor
    masked: Tensor
    positions: Tensor
    segments: Tensor
    last: Tensor


def draw_views(
    positions: Tensor, segments: Tensor, crop: float, mask: float, reorder: float, generator: torch.Generator
) -> Views:
    """Draw one view of each sequence: one of three ways, at equal odds (CL4SRec, section 3.3).

    Parameters
    ----------
    positions, segments : (R, W) int64
        Positions and segments of packed rows, as in :class:`rsir.data.batches.TrainingBatch`.
    crop : float
        Share of a sequence that a crop keeps: a random stretch of at least one item.
    mask : float
        Share that a mask hides, at random places.
    reorder : float
        Share that a reordering shuffles: a random stretch.
        Each share of a sequence's length is rounded down.
    generator : torch.Generator
        On the device of the rows.

    Returns
    -------
    Views
    """
    device = segments.device
    filled = segments.flatten().nonzero()[:, 0]
    position = positions.flatten()[filled]
    sequence = (position == 0).cumsum(0) - 1
    lengths = torch.bincount(sequence)
    shares = torch.tensor([crop, mask, reorder], dtype=torch.float64, device=device)

    way = torch.randint(3, lengths.shape, generator=generator, device=device)
    size = (shares[way] * lengths).long()
    size = torch.where(way == _CROP, size.clamp(min=1), size)
    start = (torch.rand(lengths.shape, generator=generator, device=device).double() * (lengths - size + 1)).long()
    # Single precision, so that a key plus the number of its sequence is exact: keys sort within their sequence.
    key = torch.rand(sequence.shape, generator=generator, device=device).double() + sequence

    way_here, size_here = way[sequence], size[sequence]
    offset = position - start[sequence]
    inside = (offset >= 0) & (offset < size_here)
    kept = inside | (way_here != _CROP)
    rank = torch.empty_like(position)
    rank[key.argsort()] = position  # sorted by sequence first, so place k still belongs to the sequence it did
    hidden = (way_here == _MASK) & (rank < size_here)
    moved = (inside & (way_here == _REORDER)).nonzero()[:, 0]
    shuffled = moved[key[moved].argsort()]

    def laid_out(values: Tensor) -> Tensor:
        rows = torch.zeros(segments.numel(), dtype=values.dtype, device=device)
        rows[filled] = values
        return rows

    origin = torch.arange(segments.numel(), device=device)
    origin[filled[moved]] = filled[shuffled]
    is_crop = way == _CROP
    final = lengths.cumsum(0) - lengths + torch.where(is_crop, start + size, lengths) - 1
    return Views(
        origin,
        laid_out(hidden),
        laid_out(torch.where(way_here == _CROP, offset, position) * kept).view_as(positions),
        laid_out(segments.flatten()[filled] * kept).view_as(segments),
        filled[final],
    )

"""A trained backbone for a larger catalogue: its weights, and rows for the items that are new."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from rsir.config import ModelConfig
from rsir.errors import BackboneError
from rsir.models.itemknn import ItemKnn
from rsir.models.registry import build
from rsir.models.times import uses_times

__all__ = ["grown"]


@torch.no_grad()
def grown(model: nn.Module, config: ModelConfig, knn: ItemKnn, *, seed: int) -> dict[str, Tensor]:
    """A model's weights for the catalogue of a count, whose items begin with the model's.

    Every tensor with a row for each item (and one for the padding) gets rows for the new ones. A new item that has
    known ones for neighbours in the count starts from the sum of their rows, weighted by their shares, as long as
    their mean length; any other from a draw with the mean and standard deviation of the table's columns.

    Parameters
    ----------
    model : torch.nn.Module
        A registered backbone.
    config : ModelConfig
        What it was built by.
    knn : ItemKnn
        Counted over the sequences that are to be trained on.
    seed : int
        Of the draws.

    Returns
    -------
    dict of str to Tensor
        What :func:`rsir.training.fit.fit` starts from.

    Raises
    ------
    BackboneError
        A weight depends on the size of the catalogue in another way.
    """
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    before, after = int(model.num_items), knn.num_items  # type: ignore[arg-type]
    if after == before:
        return weights
    with torch.device("meta"):
        config = replace(config, times="on" if uses_times(model) else "off")
        shapes = {name: tuple(value.shape) for name, value in build(config, after).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    neighbours, known = _neighbours(knn, before)
    for name, value in weights.items():
        wanted = shapes[name]
        if wanted == tuple(value.shape):
            continue
        if wanted != (after + 1, *value.shape[1:]) or len(value) != before + 1:
            raise BackboneError(
                f"{name}: expected a row for each item and one before them, {before + 1} for {before} items, to add "
                f"rows for new ones, got the shape {tuple(value.shape)}"
            )
        rows = value[1:].flatten(1).float()
        drawn = torch.randn(after - before, rows.shape[1], generator=generator)
        new = rows.mean(0) + rows.std(0, correction=0) * drawn
        summed = neighbours @ rows
        lengths = neighbours @ rows.norm(dim=1, keepdim=True)
        summed = summed * (lengths / summed.norm(dim=1, keepdim=True).clamp(min=1e-12))
        new = torch.where(known[:, None], summed, new)
        weights[name] = torch.cat([value, new.to(value.dtype).view(-1, *value.shape[1:])])
    return weights


def _neighbours(knn: ItemKnn, before: int) -> tuple[Tensor, Tensor]:
    """(new, known items) shares of each new item's neighbours among the known ones, sparse; whether it has any."""
    new = np.arange(before + 1, knn.num_items + 1, dtype=np.int32)
    found = knn.shares(new, np.arange(new.size + 1))
    row = np.repeat(np.arange(new.size), np.diff(found.offsets))
    kept = found.ids <= before
    row, ids, values = row[kept], found.ids[kept].astype(np.int64) - 1, found.values[kept]
    sums = np.bincount(row, values, minlength=new.size)
    values = (values / sums[row]).astype(np.float32)
    places = torch.from_numpy(np.stack([row, ids]))
    matrix = torch.sparse_coo_tensor(places, torch.from_numpy(values), (new.size, before), check_invariants=True)
    return matrix, torch.from_numpy(sums > 0)

"""A model's items as the scoring ops take them."""

from __future__ import annotations

from typing import Literal

import torch

from rsir import ops
from rsir.models.protocol import Backbone
from rsir.ops import ItemTable
from rsir.runtime.world import ALONE, World

__all__ = ["pack_items"]


def pack_items(
    model: Backbone,
    table: ItemTable | None = None,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    backend: str = "auto",
    world: World = ALONE,
) -> ItemTable:
    """The model's item table: packed for a backend, or the one that was packed already.

    Parameters
    ----------
    model : Backbone
    table : ItemTable, optional
        Handed back, once it is sure that it is of the model's size and for this backend.
    dtype : {"float32", "float16"}
        float16 rounds a copy to half precision; see :func:`rsir.ops.pack`.
    backend : str
        As for :func:`rsir.ops.pack`.
    world : World, optional
        Processes that divide the work that the table is for.

    Raises
    ------
    ValueError
        The table is of another catalogue or backend, or divided among processes that divide the work; an item is
        too large for float16.
    BackendUnavailable
        The backend asked for cannot run here.
    """
    if table is None:
        return ops.pack(model.item_embeddings(), backend=backend, dtype=getattr(torch, dtype))
    if table.num_items != model.num_items:
        raise ValueError(f"table: expected {model.num_items} items as the model's, got {table.num_items}")
    if backend not in ("auto", table.backend.name):
        raise ValueError(f"backend: the table is packed for {table.backend.name!r}, got {backend!r}; pack it anew")
    if table.backend.name == "sharded" and world.size > 1:
        raise ValueError("table: processes that divide a table do all the work together: expected a world of one")
    return table

"""A model's items as the scoring ops take them."""

from __future__ import annotations

from typing import Literal

import torch

from rsir import ops
from rsir.models.protocol import Backbone
from rsir.ops import PackedItems
from rsir.runtime.world import ALONE, World

__all__ = ["packed_items"]


def packed_items(
    model: Backbone,
    given: PackedItems | None = None,
    *,
    kept: Literal["float32", "float16"] = "float32",
    backend: str = "auto",
    world: World = ALONE,
) -> PackedItems:
    """The model's items packed for a backend, or what was packed of them already.

    Parameters
    ----------
    model : Backbone
    given : PackedItems, optional
        Handed back, once it is sure that it is of the model's size and for this backend.
    kept : {"float32", "float16"}
        float16 rounds a copy to half precision; see :func:`rsir.ops.pack`.
    backend : str
        As for :func:`rsir.ops.pack`.
    world : World, optional
        Processes that divide the work that the table is for.

    Raises
    ------
    ValueError
        The given table is of another catalogue or backend, or divided among processes that divide the work; an item is
        too large for float16.
    BackendUnavailable
        The backend asked for cannot run here.
    """
    if given is None:
        return ops.pack(model.item_embeddings(), backend=backend, dtype=getattr(torch, kept))
    if given.num_items != model.num_items:
        raise ValueError(f"table: expected {model.num_items} items as the model's, got {given.num_items}")
    if backend not in ("auto", given.backend):
        raise ValueError(f"backend: the table is packed for {given.backend!r}, got {backend!r}; pack it anew")
    if given.backend == "sharded" and world.size > 1:
        raise ValueError("table: processes that divide a table do all the work together: expected a world of one")
    return given

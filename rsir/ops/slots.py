"""Decoding on a device, for all slots at once; kernels alone do it, so there is no choice of a backend here."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from rsir.ops.backend import load
from rsir.ops.items import ItemTable

__all__ = ["attend_cached", "slots_of"]


def slots_of(table: ItemTable, count: int, max_length: int, sources: Tensor, **options: Any) -> Any:
    """State of slots that decode by a table packed for Triton; see ``rsir.kernels.Slots`` for what it takes and is."""
    from rsir.ops.triton import packed

    return _kernels().Slots(count, max_length, sources, table=packed(table), **options)


def attend_cached(query: Tensor, key: Tensor, value: Tensor, at: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one new item a sequence over cached keys and values; see ``rsir.kernels.attend_cached``."""
    attended: Tensor = _kernels().attend_cached(query, key, value, at, keys, values)
    return attended


def _kernels() -> Any:
    load("triton")  # or say why it cannot be
    return importlib.import_module("rsir.kernels")

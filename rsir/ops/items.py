"""Item tables laid out for a backend, and what every op does with one before a backend sees it."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rsir.ops import backend as _backend
from rsir.ops.checks import check_matrix

__all__ = ["ItemTable", "module_of", "pack", "prepare"]


_LARGEST_HALF = 65_504.0
_ROWS = 1 << 16  # whose range is looked at, or that are rounded, at a time


@dataclass(frozen=True)
class ItemTable:
    """An item table laid out once for one backend and used by many calls; made by :func:`rsir.ops.pack`."""

    backend: str
    """Name of the backend that packed it and that will score with it."""
    weights: Tensor
    """(N + 1, d) float32 or float16, contiguous; row 0 is padding and never scored. The table may be their rounding."""
    handle: Any = None
    """Whatever the backend made of the weights."""
    instruction_set: str | None = None
    """CPU instruction set in use ("base", "avx2", "avx512"), None for other backends."""
    dtype: torch.dtype = torch.float32
    """What the table is kept in: logits are those of items of float32, or of their rounding to float16."""

    @property
    def num_items(self) -> int:
        """Size N of the catalogue."""
        return self.weights.shape[0] - 1

    @property
    def dim(self) -> int:
        """Width d of the embeddings."""
        return self.weights.shape[1]


def pack(
    items: Tensor,
    *,
    backend: str = "auto",
    instruction_set: str | None = None,
    dtype: torch.dtype | None = None,
) -> ItemTable:
    """Lay an item table out for a backend, once, for use by many calls.

    Parameters
    ----------
    items : (N + 1, d) float32 or float16
        Item embeddings; row 0 is padding and is never scored. A table is a snapshot: pack again after the embeddings
        change.
    backend : {"auto", "reference", "cpp", "triton"}
        "auto" takes cpp on CPU and triton on CUDA.
    instruction_set : str, optional
        For cpp: "base", "avx2" or "avx512"; None takes the best one this CPU has. For triton: the precision of the
        scan, "ieee" (the default, exact float32), "tf32x3", "tf32", "float16" or "bfloat16"; under all but the
        first, ranks and candidates are approximate, while returned logits stay float32.
    dtype : torch.float32 or torch.float16, optional
        What the table is kept in; default: the items' own. A table of float16 takes half the memory. Its items are
        rounded once, to the nearest; from then on every op is exact with respect to the rounded table: products and
        sums are float32, and ranks, ties and draws are those that a float32 table of the rounded values gives.

    Returns
    -------
    ItemTable
        Says in ``backend`` and ``instruction_set`` what was chosen.

    Raises
    ------
    ValueError
        Wrong shape or dtype, an unknown backend or instruction set, or an item too large for float16.
    BackendUnavailable
        The backend asked for cannot run here.
    """
    check_matrix("items", items, (torch.float32, torch.float16))
    if items.shape[0] < 2 or items.shape[1] < 1:
        raise ValueError(
            f"items: expected (N + 1, d) with N >= 1 and d >= 1 (row 0 is padding), got {tuple(items.shape)}"
        )
    name = _backend.resolve(backend, items)
    kept = items.dtype if dtype is None else dtype
    if kept not in (torch.float32, torch.float16):
        raise ValueError(f"dtype: expected torch.float32 or torch.float16, got {dtype}")
    if kept == torch.float16 and items.dtype != torch.float16:
        _check_half(items)
    table: ItemTable = _backend.load(name).pack(items.detach().contiguous(), instruction_set, kept)
    return table


def _check_half(items: Tensor) -> None:
    """Refuse numbers that are finite and not so in half precision."""
    for first in range(1, len(items), _ROWS):
        part = items[first : first + _ROWS].detach()
        wrong = ((part.abs() > _LARGEST_HALF) & part.isfinite()).any(dim=1)
        if bool(wrong.any()):
            item = first + int(wrong.int().argmax())
            raise ValueError(
                f"items: the embedding of item {item} goes up to {float(items[item].abs().max()):g}, and float16 to "
                f"{_LARGEST_HALF:g}: keep the table in float32, or has training diverged?"
            )


def prepare(queries: Tensor, table: Tensor | ItemTable, backend: str) -> ItemTable:
    """The items packed if they were not, and checked against the queries."""
    check_matrix("queries", queries)
    if not isinstance(table, ItemTable):
        table = pack(table, backend=backend)
    elif backend not in ("auto", table.backend):
        raise ValueError(f"backend: the table is packed for {table.backend!r}, got {backend!r}; pack the items anew")
    if queries.shape[1] != table.dim:
        raise ValueError(f"queries: expected width {table.dim} as the items have, got {queries.shape[1]}")
    if queries.device != table.weights.device:
        raise ValueError(f"queries are on {queries.device} and items on {table.weights.device}: move one to the other")
    return table


def module_of(table: ItemTable) -> ModuleType:
    """The backend that packed it."""
    return _backend.load(table.backend)

"""Item tables laid out for a backend, and what every op does with one before a backend sees it."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from rsir.ops import backend as _backend
from rsir.ops.checks import check_matrix
from rsir.ops.types import PackedItems

__all__ = ["module_of", "pack", "prepare"]


_LARGEST_HALF = 65_504.0
_ROWS = 1 << 16  # whose range is looked at, or that are rounded, at a time


def pack(
    items: Tensor,
    *,
    backend: str = "auto",
    instruction_set: str | None = None,
    dtype: torch.dtype | None = None,
) -> PackedItems:
    """Lay an item table out for a backend, once, for use by many calls.

    Parameters
    ----------
    items : (N + 1, d) float32 or float16
        Item embeddings; row 0 is padding and is never scored. Packed items are a snapshot: pack again after
        the embeddings change.
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
    PackedItems
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
    packed: PackedItems = _backend.load(name).pack(items.detach().contiguous(), instruction_set, kept)
    return packed


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


def prepare(queries: Tensor, items: Tensor | PackedItems, backend: str) -> PackedItems:
    """Items packed if they were not, and checked against the queries."""
    check_matrix("queries", queries)
    if isinstance(items, PackedItems):
        if backend not in ("auto", items.backend):
            raise ValueError(f"backend: items are packed for {items.backend!r}, got {backend!r}; pack them anew")
        packed = items
    else:
        packed = pack(items, backend=backend)
    if queries.shape[1] != packed.dim:
        raise ValueError(f"queries: expected width {packed.dim} as the items have, got {queries.shape[1]}")
    if queries.device != packed.weights.device:
        raise ValueError(f"queries are on {queries.device} and items on {packed.weights.device}: move one to the other")
    return packed


def module_of(packed: PackedItems) -> ModuleType:
    """The backend that packed them."""
    return _backend.load(packed.backend)

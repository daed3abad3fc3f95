"""Item tables laid out for a backend, and what every op does with one before a backend sees it."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from . import backend as _backend
from .checks import check_matrix
from .types import PackedItems

__all__ = ["module_of", "pack", "prepare"]


def pack(items: Tensor, *, backend: str = "auto", instruction_set: str | None = None) -> PackedItems:
    """Lay an item table out for a backend, once, for use by many calls.

    Parameters
    ----------
    items : (N + 1, d) float32
        Item embeddings; row 0 is padding and is never scored. Packed items are a snapshot: pack again after
        the embeddings change.
    backend : {"auto", "reference", "cpp", "triton"}
        "auto" takes cpp on CPU and triton on CUDA.
    instruction_set : str, optional
        For cpp: "base", "avx2" or "avx512"; None takes the best one this CPU has. For triton: the precision of the
        scan, "ieee" (the default, exact float32), "tf32x3", "tf32", "float16" or "bfloat16"; under all but the
        first, ranks and candidates are approximate, while returned logits stay float32.

    Returns
    -------
    PackedItems
        Says in ``backend`` and ``instruction_set`` what was chosen.

    Raises
    ------
    ValueError
        Wrong shape or dtype, or an unknown backend or instruction set.
    BackendUnavailable
        The backend asked for cannot run here.
    """
    check_matrix("items", items)
    if items.shape[0] < 2 or items.shape[1] < 1:
        raise ValueError(
            f"items: expected (N + 1, d) with N >= 1 and d >= 1 (row 0 is padding), got {tuple(items.shape)}"
        )
    name = _backend.resolve(backend, items)
    packed: PackedItems = _backend.load(name).pack(items.detach().contiguous(), instruction_set)
    return packed


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

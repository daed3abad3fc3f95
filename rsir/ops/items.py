"""Item tables laid out for a backend, and what every op does with one before a backend sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rsir.ops.backend import Backend, resolve
from rsir.ops.checks import check_matrix

__all__ = ["ItemTable", "Together", "join_tables", "limit_of", "pack", "prepare", "table_part"]


_LARGEST_HALF = 65_504.0
_ROWS = 1 << 16  # whose range is looked at, or that are rounded, at a time


class Together(Protocol):
    """Processes that call the ops together; :class:`rsir.runtime.world.World` is one."""

    rank: int
    size: int

    def all_reduce(self, *tensors: Tensor) -> None:
        """Put the sum over all processes in the place of each tensor."""


@dataclass(frozen=True)
class ItemTable:
    """An item table laid out once for one backend and used by many calls; made by :func:`rsir.ops.pack`."""

    backend: Backend
    """What packed it, and scores with it."""
    weights: Tensor
    """(N + 1, d) float32 or float16, contiguous; row 0 is padding and never scored. The table may be their rounding."""
    handle: Any = None
    """Whatever the backend made of the weights."""
    instruction_set: str | None = None
    """CPU instruction set in use ("base", "avx2", "avx512", "avx512vnni"), None for other backends."""
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
        For cpp: "base", "avx2", "avx512" or "avx512vnni" (AVX-512 with a screen in eight bits: same answers, sooner);
        None takes the best one this CPU has. For triton: the precision of the pass over the catalogue, "ieee"
        (float32), "tf32", "float16" or "bfloat16", which changes speed alone: answers are those of float32 to the bit.
        None takes what `rsir kernels tune` found fastest on this GPU, else "ieee".
    dtype : torch.float32 or torch.float16, optional
        What the table is kept in; default: the items' own. A table of float16 takes half the memory. Its items are
        rounded once, to the nearest; from then on every op is exact with respect to the rounded table: products and
        sums are float32, and ranks, ties and draws are those that a float32 table of the rounded values gives.

    Returns
    -------
    ItemTable
        Says in ``backend.name`` and ``instruction_set`` what was chosen.

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
    chosen = resolve(backend, "pack", items)
    dtype = items.dtype if dtype is None else dtype
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"dtype: expected torch.float32 or torch.float16, got {dtype}")
    if dtype == torch.float16 and items.dtype != torch.float16:
        _check_half(items)
    return chosen.pack(items.detach().contiguous(), instruction_set, dtype)


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
    elif backend not in ("auto", table.backend.name):
        raise ValueError(
            f"backend: the table is packed for {table.backend.name!r}, got {backend!r}; pack the items anew"
        )
    if queries.shape[1] != table.dim:
        raise ValueError(f"queries: expected width {table.dim} as the items have, got {queries.shape[1]}")
    if queries.device != table.weights.device:
        raise ValueError(f"queries are on {queries.device} and items on {table.weights.device}: move one to the other")
    return table


def table_part(items: Tensor, rank: int, size: int) -> Tensor:
    """Rows of an item table (N + 1, d) for one of ``size`` equal parts, with a row 0 of their own: to pack."""
    low, high = ((len(items) - 1) * place // size for place in (rank, rank + 1))
    if not 0 <= rank < size or low == high:
        raise ValueError(f"rank: expected one of 0..{size - 1}, each with an item of {len(items) - 1}, got {rank}")
    return torch.cat([items[:1], items[1 + low : 1 + high]])


def join_tables(parts: Sequence[ItemTable], world: Together | None = None) -> ItemTable:
    """One catalogue of several tables, which every op of :mod:`rsir.ops` takes in place of one table.

    The items of the first table come first, then those of the second, and so on; of several processes, those of the
    first process come first. A process holds its own tables alone, and does its own part of every scan.

    Parameters
    ----------
    parts : sequence of ItemTable
        From :func:`rsir.ops.pack`, of one width, type and device. See :func:`table_part`.
    world : Together, optional
        The processes, each of which calls this, and from then on every op, with equal arguments.

    Returns
    -------
    ItemTable
        Its answers are, to the bit, those of one table of all items on the same backend.

    Raises
    ------
    ValueError
        No part, or parts that differ.
    """
    from rsir.ops.sharded import BACKEND as sharded  # which imports this module

    return sharded.join(parts, world)


def limit_of(tau: int | None, table: ItemTable) -> int:
    """The rank that is looked for at most: all of them, where there is no tau."""
    return table.num_items if tau is None else tau

"""The compiled CPU backend: torch tensors in and out of ``rsir._core`` without copies."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .types import BackendUnavailable, PackedItems, Ragged, RankedSample, Sample, TopK

try:
    from .. import _core
except ImportError as cause:
    raise ImportError(
        f"the compiled module rsir._core does not load ({cause}). In a checkout the folder rsir/ hides an installed "
        "package: build it in place with 'pip install -e .', or run from another folder"
    ) from cause

_INSTRUCTION_SETS = ("avx512", "avx2", "base")


def pack(items: Tensor, instruction_set: str | None) -> PackedItems:
    usable = _core.instruction_sets()
    name = usable[0] if instruction_set is None else instruction_set
    if name not in _INSTRUCTION_SETS:
        raise ValueError(f"instruction_set: expected one of {list(_INSTRUCTION_SETS)} or None, got {name!r}")
    if name not in usable:
        raise BackendUnavailable(f"instruction set {name!r} is not offered by this CPU or build; usable: {usable}")
    if items.device.type != "cpu":
        raise ValueError(f"items: backend 'cpp' scores on cpu, got {items.device}; move them with .cpu()")
    return PackedItems("cpp", items, (_core.PackedTable(items.numpy(), name), _version(items)), name)


def topk(queries: Tensor, packed: PackedItems, k: int, excluded: Ragged | None, threads: int) -> TopK:
    ids, logits = _core.topk(_table(packed), _numpy(queries), k, _optional(excluded), threads)
    return TopK(torch.from_numpy(ids), torch.from_numpy(logits))


def topk_sample(
    queries: Tensor,
    packed: PackedItems,
    k: int,
    temperature: float,
    excluded: Ragged | None,
    seed: int,
    counters: Tensor,
    threads: int,
) -> Sample:
    ids, logits = _core.topk_sample(
        _table(packed), _numpy(queries), k, temperature, _optional(excluded), seed, counters.numpy(), threads
    )
    return Sample(torch.from_numpy(ids), torch.from_numpy(logits))


def pool_sample(
    queries: Tensor,
    packed: PackedItems,
    pool: Ragged,
    k: int,
    temperature: float,
    excluded: Ragged | None,
    seed: int,
    counters: Tensor,
    threads: int,
) -> Sample:
    ids, logits = _core.pool_sample(
        _table(packed),
        _numpy(queries),
        _lists(pool),
        k,
        temperature,
        _optional(excluded),
        seed,
        counters.numpy(),
        threads,
    )
    return Sample(torch.from_numpy(ids), torch.from_numpy(logits))


def rank_within(queries: Tensor, packed: PackedItems, targets: Ragged, tau: int | None, threads: int) -> Tensor:
    ranks = _core.rank_within(_table(packed), _numpy(queries), _lists(targets), _limit(tau, packed), threads)
    return torch.from_numpy(ranks)


def rank_and_sample(
    queries: Tensor,
    packed: PackedItems,
    targets: Ragged,
    tau: int | None,
    k: int,
    temperature: float,
    excluded: Ragged | None,
    seed: int,
    counters: Tensor,
    threads: int,
) -> RankedSample:
    ranks, ids, logits = _core.rank_and_sample(
        _table(packed),
        _numpy(queries),
        _lists(targets),
        _limit(tau, packed),
        k,
        temperature,
        _optional(excluded),
        seed,
        counters.numpy(),
        threads,
    )
    return RankedSample(torch.from_numpy(ranks), torch.from_numpy(ids), torch.from_numpy(logits))


def neighbour_votes(graph: Tensor, items: Tensor, sources: Ragged, threads: int) -> Tensor:
    return torch.from_numpy(_core.neighbour_votes(graph.numpy(), items.numpy(), _lists(sources), threads))


def _version(items: Tensor) -> int:
    return 0 if items.is_inference() else items._version  # inference tensors keep no version


def _table(packed: PackedItems) -> _core.PackedTable:
    """The packed table; refuses one whose weights were trained on since, which would mix old and new logits."""
    table, version = packed.handle
    if _version(packed.weights) != version:
        raise ValueError("items: the embeddings were changed in place after they were packed; pack them again")
    return cast(_core.PackedTable, table)


def _numpy(queries: Tensor) -> NDArray[np.float32]:
    return queries.detach().numpy()


def _lists(lists: Ragged) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    return lists.ids.numpy(), lists.offsets.numpy()


def _optional(lists: Ragged | None) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    return None if lists is None else _lists(lists)


def _limit(tau: int | None, packed: PackedItems) -> int:
    return packed.num_items if tau is None else tau

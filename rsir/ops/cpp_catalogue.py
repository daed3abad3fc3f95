"""The ops of a catalogue on the compiled core, with or without scores that are added."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsir.ops.backend import CatalogueOps
from rsir.ops.checks import check_version
from rsir.ops.items import ItemTable, limit_of
from rsir.ops.types import Draw, Ragged, RankedSample, RankedTopK, Sample, SparseScores, TopK
from rsir.runtime.core import _core


class CppCatalogue:
    """Ops on tables that :class:`rsir.ops.cpp.Cpp` packed."""

    def __init__(self, added: SparseScores | None = None) -> None:
        self._added = None if added is None else (added.ids.numpy(), added.offsets.numpy(), added.values.numpy())

    def adding(self, added: SparseScores) -> CatalogueOps:
        return CppCatalogue(added)

    def topk(self, queries: Tensor, table: ItemTable, k: int, excluded: Ragged | None, threads: int) -> TopK:
        ids, logits = _core.topk(_table(table), _numpy(queries), k, _optional(excluded), threads, self._added)
        return TopK(torch.from_numpy(ids), torch.from_numpy(logits))

    def topk_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> Sample:
        ids, logits = _core.topk_sample(
            _table(table),
            _numpy(queries),
            draw.k,
            draw.temperature,
            _optional(excluded),
            draw.seed,
            draw.counters_of(queries).numpy(),
            threads,
            self._added,
        )
        return Sample(torch.from_numpy(ids), torch.from_numpy(logits))

    def pool_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        pool: Ragged,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> Sample:
        ids, logits = _core.pool_sample(
            _table(table),
            _numpy(queries),
            numpy_lists(pool),
            draw.k,
            draw.temperature,
            _optional(excluded),
            draw.seed,
            draw.counters_of(queries).numpy(),
            threads,
            self._added,
        )
        return Sample(torch.from_numpy(ids), torch.from_numpy(logits))

    def rank_within(self, queries: Tensor, table: ItemTable, targets: Ragged, tau: int | None, threads: int) -> Tensor:
        ranks = _core.rank_within(
            _table(table), _numpy(queries), numpy_lists(targets), limit_of(tau, table), threads, self._added
        )
        return torch.from_numpy(ranks)

    def count_above(self, queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None, threads: int) -> Tensor:
        counts = _core.count_above(
            _table(table), _numpy(queries), bars.numpy(), limit_of(limit, table), threads, self._added
        )
        return torch.from_numpy(counts)

    def place_within(
        self, queries: Tensor, table: ItemTable, targets: Tensor, tau: int, excluded: Ragged | None, threads: int
    ) -> Tensor:
        places = _core.place_within(
            _table(table), _numpy(queries), targets.numpy(), _optional(excluded), tau, threads, self._added
        )
        return torch.from_numpy(places)

    def rank_and_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedSample:
        ranks, ids, logits = _core.rank_and_sample(
            _table(table),
            _numpy(queries),
            numpy_lists(targets),
            limit_of(tau, table),
            draw.k,
            draw.temperature,
            _optional(excluded),
            draw.seed,
            draw.counters_of(queries).numpy(),
            threads,
            self._added,
        )
        return RankedSample(torch.from_numpy(ranks), torch.from_numpy(ids), torch.from_numpy(logits))

    def rank_and_topk(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        k: int,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedTopK:
        found = _core.rank_and_topk(
            _table(table),
            _numpy(queries),
            numpy_lists(targets),
            limit_of(tau, table),
            k,
            _optional(excluded),
            threads,
            self._added,
        )
        return RankedTopK(*map(torch.from_numpy, found))

    def logits_of(self, queries: Tensor, table: ItemTable, lists: Ragged, threads: int) -> Tensor:
        return torch.from_numpy(_core.logits_of(_table(table), _numpy(queries), numpy_lists(lists), threads))


def _table(table: ItemTable) -> _core.PackedTable:
    """The packed table; refuses one whose weights were trained on since, which would mix old and new logits."""
    packed, version = table.handle
    check_version(table.weights, version)
    return cast(_core.PackedTable, packed)


def _numpy(queries: Tensor) -> NDArray[np.float32]:
    return queries.detach().numpy()


def numpy_lists(lists: Ragged) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Ids and offsets for the core."""
    return lists.ids.numpy(), lists.offsets.numpy()


def _optional(lists: Ragged | None) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    return None if lists is None else numpy_lists(lists)

"""Where targets stand in the catalogue, by passes that stop once a row has failed; :mod:`rsir.ops` hands them on."""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.ops.checks import check_count, check_optional, check_ragged, thread_count
from rsir.ops.items import ItemTable, module_of, prepare
from rsir.ops.types import Ragged

__all__ = ["count_above", "place_within", "rank_within"]


def rank_within(
    queries: Tensor,
    table: Tensor | ItemTable,
    targets: Ragged,
    tau: int | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Best rank of any of a row's targets over the whole catalogue, exact up to tau.

    The rank of an item is 1 + the number of items that score strictly higher; nothing is excluded. Counting a row
    may stop once no target can be within tau, which is what makes small thresholds cheap.

    Parameters
    ----------
    targets : Ragged
    tau : int, optional
        Ranks above tau are all reported as tau + 1. None counts exactly.
    queries, table, backend, threads
        As for :func:`topk`.

    Returns
    -------
    (B,) int64
        tau + 1 for a row without targets (N + 1 when tau is None).

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    ranks: Tensor = module_of(table).rank_within(
        queries.contiguous(),
        table,
        check_ragged("targets", targets, queries, table.num_items),
        None if tau is None else check_count("tau", tau),
        thread_count(threads),
    )
    return ranks


def count_above(
    queries: Tensor,
    table: Tensor | ItemTable,
    bars: Tensor,
    limit: int | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """How many items of the whole catalogue score strictly above a logit that is given.

    Of a table that is one part of a catalogue this is the part of a rank that is counted there; where the logit is an
    item's of this table, from :func:`rsir.ops.pool_sample`, the item never counts itself.

    Parameters
    ----------
    bars : (B,) float32
        Not NaN.
    limit : int, optional
        Counts above it are all reported as this number, and counting a row may stop there. None counts exactly.
    queries, table, backend, threads
        As for :func:`rsir.ops.topk`.

    Returns
    -------
    (B,) int64

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`rsir.ops.topk`.
    """
    table = prepare(queries, table, backend)
    if bars.shape != (len(queries),) or bars.dtype != torch.float32 or bars.device != queries.device:
        raise ValueError(
            f"bars: expected ({len(queries)},) float32 on {queries.device}, got {tuple(bars.shape)} {bars.dtype} on "
            f"{bars.device}"
        )
    if bool(bars.isnan().any()):
        raise ValueError(f"bars: expected numbers, got NaN in row {int(bars.isnan().int().argmax())}")
    counts: Tensor = module_of(table).count_above(
        queries.contiguous(),
        table,
        bars.contiguous(),
        None if limit is None else check_count("limit", limit),
        thread_count(threads),
    )
    return counts


def place_within(
    queries: Tensor,
    table: Tensor | ItemTable,
    targets: Tensor,
    tau: int,
    *,
    excluded: Ragged | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Place of each row's target in what :func:`rsir.ops.topk` returns when the target itself is not excluded.

    Unlike a rank a place is unique: equal logits come in the order of their ids. A target at NaN or -inf has none.

    Parameters
    ----------
    targets : (B,) int64
        One id a row, in 1..N.
    tau : int
        Places beyond tau are all reported as tau + 1.
    excluded : Ragged, optional
        Ids that are not counted; the row's target is counted even if it is among them.
    queries, table, backend, threads
        As for :func:`rsir.ops.topk`.

    Returns
    -------
    (B,) int64

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`rsir.ops.topk`.
    """
    table = prepare(queries, table, backend)
    if targets.shape != (len(queries),) or targets.dtype != torch.int64:
        raise ValueError(f"targets: expected ({len(queries)},) int64, got {tuple(targets.shape)} {targets.dtype}")
    one_each = torch.arange(len(queries) + 1, device=targets.device)
    own = check_ragged("targets", Ragged(targets, one_each), queries, table.num_items)
    places: Tensor = module_of(table).place_within(
        queries.contiguous(),
        table,
        own.ids,
        check_count("tau", tau),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )
    return places

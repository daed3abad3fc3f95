"""Ops over a catalogue: the best items, draws among them, and ranks. :mod:`rsir.ops` hands them on."""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.ops.added import scorer
from rsir.ops.backend import resolve
from rsir.ops.checks import check_added, check_count, check_draw, check_optional, check_ragged, thread_count
from rsir.ops.items import ItemTable, prepare
from rsir.ops.types import GREEDY, Draw, Ragged, RankedSample, RankedTopK, Sample, SparseScores, TopK

__all__ = [
    "count_above",
    "logits_of",
    "neighbour_votes",
    "place_within",
    "pool_sample",
    "rank_and_sample",
    "rank_and_topk",
    "rank_within",
    "topk",
    "topk_sample",
]


def topk(
    queries: Tensor,
    table: Tensor | ItemTable,
    k: int,
    *,
    excluded: Ragged | None = None,
    added: SparseScores | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> TopK:
    """The k best items of each query that are not excluded, best first.

    Parameters
    ----------
    queries : (B, d) float32
    table : (N + 1, d) float32 or ItemTable
        With an ItemTable, ``backend`` must be "auto" or the one it was packed for.
    k : int
        At least 1; may exceed the catalogue.
    excluded : Ragged, optional
        Ids that a row must not return.
    added : SparseScores, optional
        Added to the logits of the items it lists; logits returned are the sums.
    backend : {"auto", "reference", "cpp", "triton"}
    threads : int, optional
        CPU threads; default: torch's number.

    Returns
    -------
    TopK
        ids (B, k) int64 and logits (B, k) float32; places without an eligible item hold id 0 and -inf.

    Raises
    ------
    ValueError
        Wrong shapes, dtypes or devices; ids out of range (names the row).
    BackendUnavailable
        The backend asked for cannot run here.
    """
    table = prepare(queries, table, backend)
    k = check_count("k", k)
    return scorer(table, check_added(added, queries, table.num_items)).topk(
        queries.contiguous(),
        table,
        k,
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )


def topk_sample(
    queries: Tensor,
    table: Tensor | ItemTable,
    draw: Draw = GREEDY,
    *,
    excluded: Ragged | None = None,
    added: SparseScores | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Sample:
    """Draw one item per query from its top k over the whole catalogue, by softmax at a temperature.

    Parameters
    ----------
    queries, table, excluded, added, backend, threads
        As for :func:`topk`.
    draw : Draw
        How each row's item is drawn; default: the best one.

    Returns
    -------
    Sample
        ids (B,) int64 and logits (B,) float32; id 0 and -inf where no item is eligible.

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    return scorer(table, check_added(added, queries, table.num_items)).topk_sample(
        queries.contiguous(),
        table,
        check_draw(draw, queries),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )


def pool_sample(
    queries: Tensor,
    table: Tensor | ItemTable,
    pool: Ragged,
    draw: Draw = GREEDY,
    *,
    excluded: Ragged | None = None,
    added: SparseScores | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Sample:
    """Draw one item per query from its own pool of ids: :func:`topk_sample` with the catalogue cut to the pool.

    Parameters
    ----------
    pool : Ragged
        The ids each row may draw; ``excluded`` is taken from it.
    queries, table, draw, excluded, added, backend, threads
        As for :func:`topk_sample`.

    Returns
    -------
    Sample
        id 0 and -inf where the pool has no eligible item.

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    return scorer(table, check_added(added, queries, table.num_items)).pool_sample(
        queries.contiguous(),
        table,
        check_ragged("pool", pool, queries, table.num_items),
        check_draw(draw, queries),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )


def rank_and_sample(
    queries: Tensor,
    table: Tensor | ItemTable,
    targets: Ragged,
    tau: int | None = None,
    draw: Draw = GREEDY,
    *,
    excluded: Ragged | None = None,
    added: SparseScores | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> RankedSample:
    """:func:`rank_within` and :func:`topk_sample` from one pass over the catalogue.

    A row whose rank is worse than tau draws nothing (id 0, logit -inf), so it can be dropped early.

    Parameters
    ----------
    targets, tau
        As for :func:`rank_within`.
    queries, table, draw, excluded, added, backend, threads
        As for :func:`topk_sample`.

    Returns
    -------
    RankedSample

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    return scorer(table, check_added(added, queries, table.num_items)).rank_and_sample(
        queries.contiguous(),
        table,
        check_ragged("targets", targets, queries, table.num_items),
        None if tau is None else check_count("tau", tau),
        check_draw(draw, queries),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )


def rank_and_topk(
    queries: Tensor,
    table: Tensor | ItemTable,
    targets: Ragged,
    tau: int | None,
    k: int,
    *,
    excluded: Ragged | None = None,
    added: SparseScores | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> RankedTopK:
    """:func:`rank_within` and :func:`topk` from one pass over the catalogue.

    A row whose rank is worse than tau has no items (id 0, logit -inf), so it can be dropped early.

    Parameters
    ----------
    targets, tau
        As for :func:`rank_within`.
    queries, table, k, excluded, added, backend, threads
        As for :func:`topk`.

    Returns
    -------
    RankedTopK

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    return scorer(table, check_added(added, queries, table.num_items)).rank_and_topk(
        queries.contiguous(),
        table,
        check_ragged("targets", targets, queries, table.num_items),
        None if tau is None else check_count("tau", tau),
        check_count("k", k),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )


def rank_within(
    queries: Tensor,
    table: Tensor | ItemTable,
    targets: Ragged,
    tau: int | None = None,
    *,
    added: SparseScores | None = None,
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
    queries, table, added, backend, threads
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
    return scorer(table, check_added(added, queries, table.num_items)).rank_within(
        queries.contiguous(),
        table,
        check_ragged("targets", targets, queries, table.num_items),
        None if tau is None else check_count("tau", tau),
        thread_count(threads),
    )


def count_above(
    queries: Tensor,
    table: Tensor | ItemTable,
    bars: Tensor,
    limit: int | None = None,
    *,
    added: SparseScores | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """How many items of the whole catalogue score strictly above a logit that is given.

    Of a table that is one part of a catalogue this is the part of a rank that is counted there; where the logit is an
    item's of this table, from :func:`pool_sample`, the item never counts itself.

    Parameters
    ----------
    bars : (B,) float32
        Not NaN.
    limit : int, optional
        Counts above it are all reported as this number, and counting a row may stop there. None counts exactly.
    queries, table, added, backend, threads
        As for :func:`topk`.

    Returns
    -------
    (B,) int64

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    if bars.shape != (len(queries),) or bars.dtype != torch.float32 or bars.device != queries.device:
        raise ValueError(
            f"bars: expected ({len(queries)},) float32 on {queries.device}, got {tuple(bars.shape)} {bars.dtype} on "
            f"{bars.device}"
        )
    if bool(bars.isnan().any()):
        raise ValueError(f"bars: expected numbers, got NaN in row {int(bars.isnan().int().argmax())}")
    return scorer(table, check_added(added, queries, table.num_items)).count_above(
        queries.contiguous(),
        table,
        bars.contiguous(),
        None if limit is None else check_count("limit", limit),
        thread_count(threads),
    )


def place_within(
    queries: Tensor,
    table: Tensor | ItemTable,
    targets: Tensor,
    tau: int,
    *,
    excluded: Ragged | None = None,
    added: SparseScores | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Place of each row's target in what :func:`topk` returns when the target itself is not excluded.

    Unlike a rank a place is unique: equal logits come in the order of their ids. A target at NaN or -inf has none.

    Parameters
    ----------
    targets : (B,) int64
        One id a row, in 1..N.
    tau : int
        Places beyond tau are all reported as tau + 1.
    excluded : Ragged, optional
        Ids that are not counted; the row's target is counted even if it is among them.
    queries, table, added, backend, threads
        As for :func:`topk`.

    Returns
    -------
    (B,) int64

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    if targets.shape != (len(queries),) or targets.dtype != torch.int64:
        raise ValueError(f"targets: expected ({len(queries)},) int64, got {tuple(targets.shape)} {targets.dtype}")
    one_each = torch.arange(len(queries) + 1, device=targets.device)
    own = check_ragged("targets", Ragged(targets, one_each), queries, table.num_items)
    return scorer(table, check_added(added, queries, table.num_items)).place_within(
        queries.contiguous(),
        table,
        own.ids,
        check_count("tau", tau),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )


def logits_of(
    queries: Tensor,
    table: Tensor | ItemTable,
    lists: Ragged,
    *,
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Logits of the items that each row lists, to the bit those that the other ops compare and return.

    Parameters
    ----------
    lists : Ragged
        In any order; may repeat.
    queries, table, backend, threads
        As for :func:`topk`.

    Returns
    -------
    (nnz,) float32
        -inf for NaN.

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    table = prepare(queries, table, backend)
    return table.backend.logits_of(
        queries.contiguous(), table, check_ragged("lists", lists, queries, table.num_items), thread_count(threads)
    )


def neighbour_votes(
    graph: Tensor, items: Tensor, sources: Ragged, *, backend: str = "auto", threads: int | None = None
) -> Tensor:
    """Count, for each new item, how many of its source's items have it among their nearest neighbours.

    Parameters
    ----------
    graph : (N + 1, K) int32
        Neighbour ids of each item; 0 is padding and matches nothing.
    items : (B,) int64
        One new item a row, in 1..N.
    sources : Ragged
        The source's items of each row; a repeated id votes once.
    backend, threads
        As for :func:`topk`.

    Returns
    -------
    (B,) int64

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    if graph.ndim != 2 or graph.dtype != torch.int32 or len(graph) < 2:
        raise ValueError(f"graph: expected (N + 1, K) int32 with N >= 1, got {tuple(graph.shape)} {graph.dtype}")
    if items.ndim != 1 or items.dtype != torch.int64:
        raise ValueError(f"items: expected (B,) int64, got {tuple(items.shape)} {items.dtype}")
    num_items = len(graph) - 1
    one_each = torch.arange(len(items) + 1, device=items.device)
    checked = check_ragged("items", Ragged(items, one_each), items, num_items)
    return resolve(backend, "neighbour_votes", graph).neighbour_votes(
        graph.contiguous(), checked.ids, check_ragged("sources", sources, items, num_items), thread_count(threads)
    )

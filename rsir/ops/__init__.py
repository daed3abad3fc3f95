"""Scoring, ranking and sampling over a catalogue, fused and batched.

Every op has the same signature and the same answer on every backend: ``"reference"`` (plain torch, the truth),
``"cpp"`` (the default on CPU) and ``"triton"`` (the default on CUDA). Inputs are checked here, once.

Conventions shared by all of them
---------------------------------
* A logit is the dot product of a query and an item embedding, in float32. Item 0 is padding: it is never scored.
* A NaN logit counts as -inf, and an item at -inf is never returned or drawn. +inf beats every finite logit.
* Higher logits come first; among equal logits the lower id comes first.
* Item ids are 1..N. Lists of ids (`Ragged`) may be empty and may repeat an id, which changes nothing.
* Draws (`Draw`) are Gumbel-max with Philox4x32-10 noise keyed by ``(seed, counters[b], item)``: a row's draw does not
  depend on its place in the batch, the batch's size or the number of threads.
* No backend but the reference writes a (B, N) matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.ops import backend as _backend
from rsir.ops.backend import BACKENDS
from rsir.ops.checks import (
    check_count,
    check_draw,
    check_optional,
    check_ragged,
    thread_count,
)
from rsir.ops.encoding import encode_histories, extend_histories
from rsir.ops.items import ItemTable, module_of, pack, prepare
from rsir.ops.learning import adam_rows, full_softmax, sampled_softmax, transformer_layer
from rsir.ops.ranking import count_above, place_within, rank_within
from rsir.ops.reference import average_keeps
from rsir.ops.sharded import Together, join_tables, table_part
from rsir.ops.types import (
    GREEDY,
    AdamMoments,
    Draw,
    FullSoftmax,
    LayerDropout,
    LayerParameters,
    Ragged,
    RankedSample,
    Sample,
    SampledSoftmax,
    TopK,
)

__all__ = [
    "BACKENDS",
    "GREEDY",
    "AdamMoments",
    "Draw",
    "FullSoftmax",
    "ItemTable",
    "LayerDropout",
    "LayerParameters",
    "Ragged",
    "RankedSample",
    "Sample",
    "SampledSoftmax",
    "Together",
    "TopK",
    "adam_rows",
    "average_keeps",
    "count_above",
    "encode_histories",
    "extend_histories",
    "full_softmax",
    "join_tables",
    "neighbour_votes",
    "pack",
    "place_within",
    "pool_sample",
    "rank_and_sample",
    "rank_within",
    "sampled_softmax",
    "table_part",
    "topk",
    "topk_sample",
    "transformer_layer",
]


def topk(
    queries: Tensor,
    table: Tensor | ItemTable,
    k: int,
    *,
    excluded: Ragged | None = None,
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
    result: TopK = module_of(table).topk(
        queries.contiguous(),
        table,
        k,
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )
    return result


def topk_sample(
    queries: Tensor,
    table: Tensor | ItemTable,
    draw: Draw = GREEDY,
    *,
    excluded: Ragged | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Sample:
    """Draw one item per query from its top k over the whole catalogue, by softmax at a temperature.

    Parameters
    ----------
    queries, table, excluded, backend, threads
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
    result: Sample = module_of(table).topk_sample(
        queries.contiguous(),
        table,
        check_draw(draw, queries),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )
    return result


def pool_sample(
    queries: Tensor,
    table: Tensor | ItemTable,
    pool: Ragged,
    draw: Draw = GREEDY,
    *,
    excluded: Ragged | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Sample:
    """Draw one item per query from its own pool of ids: :func:`topk_sample` with the catalogue cut to the pool.

    Parameters
    ----------
    pool : Ragged
        The ids each row may draw; ``excluded`` is taken from it.
    queries, table, draw, excluded, backend, threads
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
    result: Sample = module_of(table).pool_sample(
        queries.contiguous(),
        table,
        check_ragged("pool", pool, queries, table.num_items),
        check_draw(draw, queries),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )
    return result


def rank_and_sample(
    queries: Tensor,
    table: Tensor | ItemTable,
    targets: Ragged,
    tau: int | None = None,
    draw: Draw = GREEDY,
    *,
    excluded: Ragged | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> RankedSample:
    """:func:`rank_within` and :func:`topk_sample` from one pass over the catalogue.

    A row whose rank is worse than tau draws nothing (id 0, logit -inf), so it can be dropped early.

    Parameters
    ----------
    targets, tau
        As for :func:`rank_within`.
    queries, table, draw, excluded, backend, threads
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
    result: RankedSample = module_of(table).rank_and_sample(
        queries.contiguous(),
        table,
        check_ragged("targets", targets, queries, table.num_items),
        None if tau is None else check_count("tau", tau),
        check_draw(draw, queries),
        check_optional("excluded", excluded, queries, table.num_items),
        thread_count(threads),
    )
    return result


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
    name = _backend.resolve(backend, graph)
    votes: Tensor = _backend.load(name).neighbour_votes(
        graph.contiguous(), checked.ids, check_ragged("sources", sources, items, num_items), thread_count(threads)
    )
    return votes

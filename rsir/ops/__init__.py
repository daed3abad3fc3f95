"""Scoring, ranking and sampling over a catalogue, fused and batched.

Every op has the same signature and the same answer on every backend: ``"reference"`` (plain torch, the truth),
``"cpp"`` (the default on CPU) and ``"triton"`` (the default on CUDA). Inputs are checked here, once.

Conventions shared by all of them
---------------------------------
* A logit is the dot product of a query and an item embedding, in float32. Item 0 is padding: it is never scored.
* A NaN logit counts as -inf, and an item at -inf is never returned or drawn. +inf beats every finite logit.
* Higher logits come first; among equal logits the lower id comes first.
* Item ids are 1..N. Lists of ids (`Ragged`) may be empty and may repeat an id, which changes nothing.
* Draws are Gumbel-max with Philox4x32-10 noise keyed by ``(seed, counters[b], item)``: a row's draw does not depend
  on its place in the batch, the batch's size or the number of threads.
* No backend but the reference writes a (B, N) matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import backend as _backend
from .backend import BACKENDS
from .learning import full_softmax, sampled_softmax, transformer_layer
from .types import (
    BackendUnavailable,
    FullSoftmax,
    LayerDropout,
    LayerParameters,
    PackedItems,
    Ragged,
    RankedSample,
    Sample,
    SampledSoftmax,
    TopK,
)

__all__ = [
    "BACKENDS",
    "BackendUnavailable",
    "FullSoftmax",
    "LayerDropout",
    "LayerParameters",
    "PackedItems",
    "Ragged",
    "RankedSample",
    "Sample",
    "SampledSoftmax",
    "TopK",
    "full_softmax",
    "neighbour_votes",
    "pack",
    "pool_sample",
    "rank_and_sample",
    "rank_within",
    "sampled_softmax",
    "topk",
    "topk_sample",
    "transformer_layer",
]


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
    _check_matrix("items", items)
    if items.shape[0] < 2 or items.shape[1] < 1:
        raise ValueError(
            f"items: expected (N + 1, d) with N >= 1 and d >= 1 (row 0 is padding), got {tuple(items.shape)}"
        )
    name = _backend.resolve(backend, items)
    packed: PackedItems = _backend.load(name).pack(items.detach().contiguous(), instruction_set)
    return packed


def topk(
    queries: Tensor,
    items: Tensor | PackedItems,
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
    items : (N + 1, d) float32 or PackedItems
        With packed items, ``backend`` must be "auto" or the one they were packed for.
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
    packed = _prepare(queries, items, backend)
    k = _check_count("k", k)
    result: TopK = _module(packed).topk(
        queries.contiguous(), packed, k, _check_optional("excluded", excluded, queries, packed), _threads(threads)
    )
    return result


def topk_sample(
    queries: Tensor,
    items: Tensor | PackedItems,
    *,
    k: int = 1,
    temperature: float = 1.0,
    excluded: Ragged | None = None,
    seed: int = 0,
    counters: Tensor | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Sample:
    """Draw one item per query from its top k over the whole catalogue, by softmax at a temperature.

    Parameters
    ----------
    queries, items, excluded, backend, threads
        As for :func:`topk`.
    k : int
        1 is greedy decoding: the best eligible item, no randomness.
    temperature : float
        Above 0; unused when k is 1.
    seed : int
        0..2**64 - 1, the Philox key.
    counters : (B, 3) int64, each in 0..2**32 - 1
        What is being sampled (source, trajectory, step ...): rows with equal counters draw equal noise. Needed
        when k > 1.

    Returns
    -------
    Sample
        ids (B,) int64 and logits (B,) float32; id 0 and -inf where no item is eligible.

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    packed = _prepare(queries, items, backend)
    result: Sample = _module(packed).topk_sample(
        queries.contiguous(),
        packed,
        *_check_draw(k, temperature),
        _check_optional("excluded", excluded, queries, packed),
        _check_seed(seed),
        _check_counters(counters, queries, k),
        _threads(threads),
    )
    return result


def pool_sample(
    queries: Tensor,
    items: Tensor | PackedItems,
    pool: Ragged,
    *,
    k: int = 1,
    temperature: float = 1.0,
    excluded: Ragged | None = None,
    seed: int = 0,
    counters: Tensor | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> Sample:
    """Draw one item per query from its own pool of ids: :func:`topk_sample` with the catalogue cut to the pool.

    Parameters
    ----------
    pool : Ragged
        The ids each row may draw; ``excluded`` is taken from it.
    queries, items, k, temperature, excluded, seed, counters, backend, threads
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
    packed = _prepare(queries, items, backend)
    result: Sample = _module(packed).pool_sample(
        queries.contiguous(),
        packed,
        _check_ragged("pool", pool, queries, packed.num_items),
        *_check_draw(k, temperature),
        _check_optional("excluded", excluded, queries, packed),
        _check_seed(seed),
        _check_counters(counters, queries, k),
        _threads(threads),
    )
    return result


def rank_within(
    queries: Tensor,
    items: Tensor | PackedItems,
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
    queries, items, backend, threads
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
    packed = _prepare(queries, items, backend)
    ranks: Tensor = _module(packed).rank_within(
        queries.contiguous(),
        packed,
        _check_ragged("targets", targets, queries, packed.num_items),
        None if tau is None else _check_count("tau", tau),
        _threads(threads),
    )
    return ranks


def rank_and_sample(
    queries: Tensor,
    items: Tensor | PackedItems,
    targets: Ragged,
    tau: int | None = None,
    *,
    k: int = 1,
    temperature: float = 1.0,
    excluded: Ragged | None = None,
    seed: int = 0,
    counters: Tensor | None = None,
    backend: str = "auto",
    threads: int | None = None,
) -> RankedSample:
    """:func:`rank_within` and :func:`topk_sample` from one pass over the catalogue.

    A row whose rank is worse than tau draws nothing (id 0, logit -inf), so it can be dropped early.

    Parameters
    ----------
    targets, tau
        As for :func:`rank_within`.
    queries, items, k, temperature, excluded, seed, counters, backend, threads
        As for :func:`topk_sample`.

    Returns
    -------
    RankedSample

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`topk`.
    """
    packed = _prepare(queries, items, backend)
    result: RankedSample = _module(packed).rank_and_sample(
        queries.contiguous(),
        packed,
        _check_ragged("targets", targets, queries, packed.num_items),
        None if tau is None else _check_count("tau", tau),
        *_check_draw(k, temperature),
        _check_optional("excluded", excluded, queries, packed),
        _check_seed(seed),
        _check_counters(counters, queries, k),
        _threads(threads),
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
    checked = _check_ragged("items", Ragged(items, one_each), items, num_items)
    name = _backend.resolve(backend, graph)
    votes: Tensor = _backend.load(name).neighbour_votes(
        graph.contiguous(), checked.ids, _check_ragged("sources", sources, items, num_items), _threads(threads)
    )
    return votes


# ---------------------------------------------------------------------------------------------- checks


def _check_matrix(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.ndim != 2:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: expected a 2-D tensor, got {shape}")
    if value.dtype != torch.float32:
        raise ValueError(f"{name}: expected float32, got {value.dtype}; convert with .float()")


def _prepare(queries: Tensor, items: Tensor | PackedItems, backend: str) -> PackedItems:
    _check_matrix("queries", queries)
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


def _module(packed: PackedItems):  # type: ignore[no-untyped-def]
    return _backend.load(packed.backend)


def _check_count(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return int(value)


def _check_draw(k: int, temperature: float) -> tuple[int, float]:
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature!r}")
    return _check_count("k", k), float(temperature)


def _check_seed(seed: int) -> int:
    if int(seed) != seed or not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected a whole number in 0..2**64 - 1, got {seed!r}")
    return int(seed)


def _check_counters(counters: Tensor | None, queries: Tensor, k: int) -> Tensor:
    if counters is None:
        if k > 1:
            raise ValueError("counters: needed when k > 1, so that a draw is keyed by what it is drawn for")
        return torch.zeros(len(queries), 3, dtype=torch.int64, device=queries.device)
    if counters.shape != (len(queries), 3) or counters.dtype != torch.int64:
        raise ValueError(f"counters: expected ({len(queries)}, 3) int64, got {tuple(counters.shape)} {counters.dtype}")
    if len(counters) and (int(counters.min()) < 0 or int(counters.max()) >= 2**32):
        raise ValueError("counters: expected every word in 0..2**32 - 1")
    return counters.contiguous()


def _check_optional(name: str, lists: Ragged | None, queries: Tensor, packed: PackedItems) -> Ragged | None:
    return None if lists is None else _check_ragged(name, lists, queries, packed.num_items)


def _check_ragged(name: str, lists: Ragged, queries: Tensor, num_items: int) -> Ragged:
    ids, offsets = lists
    for part, value, kinds in (
        ("ids", ids, (torch.int32, torch.int64)),
        ("offsets", offsets, (torch.int64,)),
    ):
        if value.ndim != 1 or value.dtype not in kinds:
            expected = " or ".join(str(kind) for kind in kinds)
            raise ValueError(f"{name}.{part}: expected a 1-D {expected} tensor, got {tuple(value.shape)} {value.dtype}")
        if value.device != queries.device:
            raise ValueError(f"{name}.{part}: expected on {queries.device} as the queries, got {value.device}")
    if len(offsets) != len(queries) + 1:
        raise ValueError(
            f"{name}.offsets: expected {len(queries) + 1} entries for {len(queries)} rows, got {len(offsets)}"
        )
    found, ends = ids, offsets
    if ids.device.type == "cpu":  # by numpy: torch would start its threads for each of these small reductions
        found, ends = ids.numpy(), offsets.numpy()  # type: ignore[assignment]
    if int(ends[0]) != 0 or int(ends[-1]) != len(found) or bool((ends[1:] < ends[:-1]).any()):
        raise ValueError(f"{name}.offsets: expected to rise from 0 to the number of ids, {len(found)}")
    if len(found) and (int(found.min()) < 1 or int(found.max()) > num_items):
        at = int(((ids < 1) | (ids > num_items)).nonzero()[0, 0])
        row = int(torch.searchsorted(offsets, at, right=True)) - 1
        raise ValueError(f"{name}: row {row} holds id {int(ids[at])}, expected ids in 1..{num_items}")
    return Ragged(ids.int().contiguous(), offsets.contiguous())


def _threads(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else _check_count("threads", threads)

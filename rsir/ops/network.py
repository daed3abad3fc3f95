"""Ops of the network: losses with their gradients, Transformer layers in training and encoding, and steps of Adam.

:mod:`rsir.ops` hands them on. ``"auto"`` is cpp for float32 on a CPU and the reference, plain torch, for any other
dtype or device. :func:`sampled_softmax` has Triton kernels, which "auto" takes for float32 on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from rsir.ops.backend import resolve
from rsir.ops.checks import (
    check_adam,
    check_bytes,
    check_floats,
    check_ids,
    check_layer,
    check_ragged,
    check_stack,
    thread_count,
)
from rsir.ops.types import AdamMoments, FullSoftmax, LayerDropout, LayerParameters, Ragged, SampledSoftmax

_MOST_DIMENSIONS = 256  # of the Triton kernels: "auto" takes the reference for more

__all__ = [
    "adam_rows",
    "encode_histories",
    "extend_histories",
    "full_softmax",
    "sampled_softmax",
    "transformer_layer",
]


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    weights: Tensor,
    *,
    target_offsets: Tensor | None = None,
    negative_offsets: Tensor | None = None,
    bfloat16: bool = False,
    backend: str = "auto",
    threads: int | None = None,
    instruction_set: str | None = None,
) -> SampledSoftmax:
    """Cross-entropy of each target against itself and negatives that all positions share, and its gradients.

    Negatives drawn uniformly, as :class:`rsir.data.batches.Batches` draws them, need no correction for how they were
    sampled: log-Q would add one constant to every logit, which a softmax does not see, and an item drawn twice counts
    twice. Negatives drawn in another way want the offsets.

    A negative that is the target of a position does not count there. A position of weight 0 takes no part: its
    gradients are zero whatever it holds. A logit of NaN or +inf makes the loss NaN; one of -inf counts as no negative.
    No backend but the reference writes a (T, S) matrix; answers of cpp do not depend on the number of threads.

    Parameters
    ----------
    queries, positives : (T, d) float
        Query of each position and embedding of its target.
    negatives : (S, d) float
        S may be 0.
    targets : (T,) int64
    negative_ids : (S,) int64
        In any order; may repeat, and then counts as often.
    weights : (T,) float
        Weight of each position in the sum; divide by their sum for a mean.
    target_offsets : (T,) float, optional
        Added to the logits of the targets: minus the logarithm of their sampling probability, for the log-Q correction.
    negative_offsets : (S,) float, optional
        The same for the negatives.
    bfloat16 : bool, default False
        Round the factors of the three products (of queries and negatives, and of shares with either) to bfloat16. Sums
        are as they are without, and so is what targets add. Not in triton: "auto" is the reference on CUDA then.
    backend : {"auto", "reference", "cpp", "triton"}
        triton takes at most 256 dimensions.
    threads : int, optional
        CPU threads; default: torch's number.
    instruction_set : str, optional
        For cpp: "base", "avx2", "avx512" or "avx512vnni"; None takes the best one this CPU has.

    Returns
    -------
    SampledSoftmax

    Raises
    ------
    ValueError
        Wrong shapes, dtypes or devices.
    BackendUnavailable
        The backend asked for cannot run here.
    """
    check_floats("queries", queries, (None, None), queries)
    positions, dim = queries.shape
    check_floats("positives", positives, (positions, dim), queries)
    check_floats("negatives", negatives, (None, dim), queries)
    check_ids("targets", targets, positions, queries)
    check_ids("negative_ids", negative_ids, len(negatives), queries)
    check_floats("weights", weights, (positions,), queries)
    for name, value, length in (
        ("target_offsets", target_offsets, positions),
        ("negative_offsets", negative_offsets, len(negatives)),
    ):
        if value is not None:
            check_floats(name, value, (length,), queries)
    if backend == "auto" and queries.is_cuda and dim > _MOST_DIMENSIONS:
        backend = "reference"
    return resolve(backend, "sampled_softmax", queries).sampled_softmax(
        _plain(queries),
        _plain(positives),
        _plain(negatives),
        _plain(targets),
        _plain(negative_ids),
        _plain(weights),
        _plain(target_offsets),
        _plain(negative_offsets),
        thread_count(threads),
        instruction_set,
        bfloat16,
    )


def full_softmax(
    queries: Tensor,
    items: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    bfloat16: bool = False,
    backend: str = "auto",
    threads: int | None = None,
    instruction_set: str | None = None,
) -> FullSoftmax:
    """Cross-entropy of each target against the whole catalogue, and its gradients.

    Parameters
    ----------
    queries : (T, d) float
    items : (N + 1, d) float
        Row 0 is padding and takes no part.
    targets : (T,) int64
        In 1..N, but where the weight is 0.
    weights : (T,) float
        As for :func:`sampled_softmax`, like what is said there of weights of 0, NaN and infinity.
    bfloat16 : bool, default False
        As for :func:`sampled_softmax`.
    backend, threads, instruction_set
        As for :func:`sampled_softmax`.

    Returns
    -------
    FullSoftmax

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`sampled_softmax`; a target out of range (names the position).
    """
    check_floats("queries", queries, (None, None), queries)
    positions, dim = queries.shape
    check_floats("items", items, (None, dim), queries)
    if len(items) < 2:
        raise ValueError(f"items: expected (N + 1, d) with N >= 1 (row 0 is padding), got {tuple(items.shape)}")
    check_ids("targets", targets, positions, queries)
    check_floats("weights", weights, (positions,), queries)
    wrong = ((targets < 1) | (targets >= len(items))) & (weights != 0)
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise ValueError(
            f"targets: position {at} holds id {int(targets[at])}, expected ids in 1..{len(items) - 1} "
            "wherever the weight is not 0"
        )
    return resolve(backend, "full_softmax", queries).full_softmax(
        _plain(queries),
        _plain(items),
        _plain(targets),
        _plain(weights),
        thread_count(threads),
        instruction_set,
        bfloat16,
    )


def transformer_layer(
    x: Tensor,
    segments: Tensor,
    parameters: LayerParameters,
    *,
    heads: int,
    epsilon: float = 1e-5,
    dropout: LayerDropout | None = None,
    backend: str = "auto",
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """One post-norm Transformer layer over packed sequences; differentiable once in x and the parameters.

    With s the softmax over a position's own segment up to itself and D for dropout::

        queries, keys, values = in(x)
        y = norm1(x + D(out(D(s(queries keys / sqrt(d / heads))) values)))
        norm2(y + D(down(D(gelu(up(y))))))

    With a filter (BSARec with a causal one, :mod:`rsir.models.bsarec`), s takes a bias for the distance of a key, too,
    and y is, within a segment::

        low[t] = decay low[t - 1] + (1 - decay) x[t]
        y = share norm(x + D(low + beta^2 (x - low))) + (1 - share) norm1(...)

    Parameters
    ----------
    x : (R, W, d) float
    segments : (R, W) int64
        Equal and adjacent within a segment, different from the next one; 0 where a row is not filled, and what comes
        out there means nothing.
    parameters : LayerParameters
        A filter must know at least W distances.
    heads : int
        Divides d.
    epsilon : float
        Epsilon of the layer norms; the default is torch's.
    dropout : LayerDropout, optional
    backend, threads, instruction_set
        As for :func:`sampled_softmax`.

    Returns
    -------
    (R, W, d) float
        The same bits for any number of threads, and so are the gradients (cpp).

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`sampled_softmax`.
    """
    if x.ndim != 3:
        raise ValueError(f"x: expected (R, W, d), got {tuple(x.shape)}")
    rows, width, _ = x.shape
    if segments.shape != (rows, width) or segments.dtype != torch.int64:
        raise ValueError(f"segments: expected ({rows}, {width}) int64, got {tuple(segments.shape)} {segments.dtype}")
    check_layer(parameters, heads, len(parameters.up_weight), x)
    if parameters.filter is not None and (known := parameters.filter.distances.shape[1]) < width:
        raise ValueError(f"filter.distances: expected at least {width} columns, got {known}")
    if dropout is not None:
        check_bytes(dropout, parameters, heads, x)
    return resolve(backend, "transformer_layer", x).transformer_layer(
        x, segments.contiguous(), parameters, heads, epsilon, dropout, thread_count(threads), instruction_set
    )


@torch.no_grad()
def adam_rows(
    weights: Tensor,
    moments: AdamMoments,
    step: int,
    ids: Tensor | None = None,
    gradients: Tensor | None = None,
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    average: Tensor | None = None,
    decay: float = 0.0,
    padding: int | None = None,
    backend: str = "auto",
    threads: int | None = None,
    instruction_set: str | None = None,
) -> None:
    """Adam on the rows of a table that a step looked up, in place.

    Rows that no step looks up keep moving under Adam, by their decaying means. Here they stay behind, and are brought
    to where that would have taken them when asked for: before a step reads them, call this with their ids, its number
    less one and no gradients; after it, with their gradients; and before anything reads the whole table, with neither
    ids nor gradients. What is read is then what Adam over the whole table gives, but for rounding and for how epsilon
    enters, which is averaged over the steps that are made up for.

    Without ``moments.last`` every step takes all rows, the better choice for a table of some ten thousand: one pass,
    in which rows without gradients have zeros.

    Parameters
    ----------
    weights : (N, d) float
        Contiguous, like the moments.
    moments : AdamMoments
    step : int
        From 1. Without gradients: the step up to which to bring the rows.
    ids : (n,) int64, optional
        May repeat: gradients of one row are added up in their order. Default: all rows.
    gradients : (n, d) float, optional
        Without ids (N, d), which only a step of all rows takes.
    learning_rate, betas, epsilon
        As of ``torch.optim.Adam``; the square of the first beta must be below the second.
    average : (N, d) float, optional
        A moving average of the weights, equal to them before the first step; brought up to date with them.
    decay : float, default 0
        0 to below 1; step j keeps :func:`average_keeps` of it.
    padding : int, optional
        A row whose gradients are zero, whatever they hold.
    backend, threads, instruction_set
        As for :func:`sampled_softmax`. The reference takes one step after the other. Answers of cpp do not depend on
        the number of threads. Instruction sets are for steps of all rows, which on all but "base" are, to the bit,
        those of torch's fused Adam.

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`sampled_softmax`; an id or a step out of range.
    """
    check_adam(weights, moments, step, ids, gradients, betas, average, decay, padding)
    settings = (learning_rate, betas, epsilon, average, decay, padding, thread_count(threads), instruction_set)
    resolve(backend, "adam_rows", weights).adam_rows(weights, moments, step, ids, _plain(gradients), *settings)


@torch.no_grad()
def encode_histories(
    histories: Ragged,
    embeddings: Tensor,
    positions: Tensor | None,
    layers: Sequence[LayerParameters],
    *,
    heads: int,
    epsilon: float = 1e-5,
    backend: str = "auto",
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """Query after each history: what the layers, as of :func:`transformer_layer`, give at its last item.

    The layers read the sum of the embeddings of an item and of its position, counted from the oldest item.

    Parameters
    ----------
    histories : Ragged
        Oldest item first; none is empty. Of one that is longer than L its last items are read.
    embeddings : (N + 1, d) float
    positions : (L, d) float or None
        Layers with filters can do without.
    layers : sequence of LayerParameters
        At least one, all of one feed-forward width; all with a filter, of L distances, or none.
    heads, epsilon
        As for :func:`transformer_layer`.
    backend, threads, instruction_set
        As for :func:`sampled_softmax`.

    Returns
    -------
    (n, d) float
        No gradient flows through it. A row has the same bits whatever the other histories are, and for any number of
        threads (cpp).

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`transformer_layer`; an empty history (names it).
    """
    check_stack(embeddings, positions, layers, heads)
    lists = check_ragged("histories", histories, histories.offsets[:-1], len(embeddings) - 1)
    lengths = lists.offsets.diff()
    if len(lengths) and int(lengths.min()) < 1:
        raise ValueError(f"history {int(lengths.argmin())} is empty: expected at least one item to encode")
    return resolve(backend, "encode_histories", embeddings).encode_histories(
        lists,
        embeddings.contiguous(),
        _plain(positions),
        _contiguous(layers),
        heads,
        epsilon,
        thread_count(threads),
        instruction_set,
    )


@torch.no_grad()
def extend_histories(
    slots: Tensor,
    items: Tensor,
    lengths: Tensor,
    keys: Tensor,
    values: Tensor,
    embeddings: Tensor,
    positions: Tensor | None,
    layers: Sequence[LayerParameters],
    *,
    heads: int,
    low: Tensor | None = None,
    epsilon: float = 1e-5,
    backend: str = "auto",
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """Append one item to each of many histories whose keys and values are cached; their queries after it.

    Parameters
    ----------
    slots : (n,) int64
        Places of the histories in the caches, each once.
    items : (n,) int64
        In 1..N.
    lengths : (n,) int64
        Items that each history has already, fewer than L.
    keys, values : (layers, S, heads, L, d / heads) float
        The caches, contiguous; what belongs to the new items is written into them.
    embeddings, positions, layers, heads, epsilon, backend, threads, instruction_set
        As for :func:`encode_histories`.
    low : (layers, S, d) float, optional
        With filters: what each has averaged of each history, contiguous; brought up to date.

    Returns
    -------
    (n, d) float
        The very bits that :func:`encode_histories` gives for the whole histories (cpp).

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`encode_histories`; slots or lengths out of range.
    """
    longest, dim = check_stack(embeddings, positions, layers, heads), embeddings.shape[1]
    if (low is None) != (layers[0].filter is None):
        raise ValueError("low: expected for layers with filters, and only then")
    slots_known = keys.shape[1] if keys.ndim == 5 else 0
    shape: tuple[int, ...] = (len(layers), slots_known, heads, longest, dim // heads)
    caches = {"keys": (keys, shape), "values": (values, shape)}
    if low is not None:
        caches["low"] = (low, (len(layers), slots_known, dim))
    for name, (cache, shape) in caches.items():
        if cache.shape != shape or cache.dtype != embeddings.dtype or not cache.is_contiguous():
            raise ValueError(
                f"{name}: expected contiguous {shape} {embeddings.dtype}, got {tuple(cache.shape)} {cache.dtype}"
            )
    for name, value, least, most in (
        ("slots", slots, 0, keys.shape[1] - 1),
        ("items", items, 1, len(embeddings) - 1),
        ("lengths", lengths, 0, longest - 1),
    ):
        if value.shape != (len(slots),) or value.dtype != torch.int64:
            raise ValueError(f"{name}: expected ({len(slots)},) int64, got {tuple(value.shape)} {value.dtype}")
        if len(value) and not least <= int(value.min()) <= int(value.max()) <= most:
            raise ValueError(f"{name}: expected {least}..{most}, got {int(value.min())}..{int(value.max())}")
    return resolve(backend, "extend_histories", embeddings).extend_histories(
        slots.contiguous(),
        items.contiguous(),
        lengths.contiguous(),
        keys,
        values,
        low,
        embeddings.contiguous(),
        _plain(positions),
        _contiguous(layers),
        heads,
        epsilon,
        thread_count(threads),
        instruction_set,
    )


@overload
def _plain(value: Tensor) -> Tensor: ...
@overload
def _plain(value: Tensor | None) -> Tensor | None: ...
def _plain(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().contiguous()


def _contiguous(layers: Sequence[LayerParameters]) -> list[LayerParameters]:
    return [layer.each(Tensor.contiguous) for layer in layers]

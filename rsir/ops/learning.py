"""Ops of training: softmax losses with their gradients, and a Transformer layer over packed sequences.

:mod:`rsir.ops` hands them on. ``"auto"`` is cpp for float32 on a CPU and the reference, plain torch, for any other
dtype or device. :func:`sampled_softmax` has Triton kernels, which "auto" takes for float32 on CUDA.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsir.ops import backend as _backend
from rsir.ops.checks import thread_count
from rsir.ops.types import AdamMoments, FullSoftmax, LayerDropout, LayerParameters, SampledSoftmax

_MOST_DIMENSIONS = 256  # of the Triton kernels: "auto" takes the reference for more

__all__ = ["adam_rows", "full_softmax", "sampled_softmax", "transformer_layer"]


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
    backend : {"auto", "reference", "cpp", "triton"}
        triton takes at most 256 dimensions.
    threads : int, optional
        CPU threads; default: torch's number.
    instruction_set : str, optional
        For cpp: "base", "avx2" or "avx512"; None takes the best one this CPU has.

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
    _check_floats("queries", queries, (None, None), queries)
    positions, dim = queries.shape
    _check_floats("positives", positives, (positions, dim), queries)
    _check_floats("negatives", negatives, (None, dim), queries)
    _check_ids("targets", targets, positions, queries)
    _check_ids("negative_ids", negative_ids, len(negatives), queries)
    _check_floats("weights", weights, (positions,), queries)
    for name, value, length in (
        ("target_offsets", target_offsets, positions),
        ("negative_offsets", negative_offsets, len(negatives)),
    ):
        if value is not None:
            _check_floats(name, value, (length,), queries)
    chosen = _backend.resolve_training(backend, queries, kernels=backend != "auto" or dim <= _MOST_DIMENSIONS)
    result: SampledSoftmax = _backend.load(chosen).sampled_softmax(
        *(_plain(value) for value in (queries, positives, negatives, targets, negative_ids, weights)),
        _plain(target_offsets),
        _plain(negative_offsets),
        thread_count(threads),
        instruction_set,
    )
    return result


def full_softmax(
    queries: Tensor,
    items: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
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
    _check_floats("queries", queries, (None, None), queries)
    positions, dim = queries.shape
    _check_floats("items", items, (None, dim), queries)
    if len(items) < 2:
        raise ValueError(f"items: expected (N + 1, d) with N >= 1 (row 0 is padding), got {tuple(items.shape)}")
    _check_ids("targets", targets, positions, queries)
    _check_floats("weights", weights, (positions,), queries)
    wrong = ((targets < 1) | (targets >= len(items))) & (weights != 0)
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise ValueError(
            f"targets: position {at} holds id {int(targets[at])}, expected ids in 1..{len(items) - 1} "
            "wherever the weight is not 0"
        )
    chosen = _backend.resolve_training(backend, queries)
    result: FullSoftmax = _backend.load(chosen).full_softmax(
        *(_plain(value) for value in (queries, items, targets, weights)), thread_count(threads), instruction_set
    )
    return result


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

    Parameters
    ----------
    x : (R, W, d) float
    segments : (R, W) int64
        Equal and adjacent within a segment, different from the next one; 0 where a row is not filled, and what comes
        out there means nothing.
    parameters : LayerParameters
    heads : int
        Divides d.
    epsilon : float
        Of the layer norms; the default is torch's.
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
    rows, width, d = x.shape
    if segments.shape != (rows, width) or segments.dtype != torch.int64:
        raise ValueError(f"segments: expected ({rows}, {width}) int64, got {tuple(segments.shape)} {segments.dtype}")
    f = len(parameters.up_weight)
    check_layer(parameters, heads, f, x)
    if dropout is not None:
        if not 0 < dropout.dropped < 256:
            raise ValueError(f"dropout.dropped: expected 1..255, got {dropout.dropped}")
        byte_shapes = ((rows, heads, width, width), (rows, width, d), (rows, width, f), (rows, width, d))
        for name, value, shape in zip(LayerDropout._fields[1:], dropout[1:], byte_shapes, strict=True):
            if value.shape != shape or value.dtype != torch.uint8:
                raise ValueError(f"dropout.{name}: expected {shape} uint8, got {tuple(value.shape)} {value.dtype}")
    chosen = _backend.resolve_training(backend, x)
    y: Tensor = _backend.load(chosen).transformer_layer(
        x, segments.contiguous(), parameters, heads, epsilon, dropout, thread_count(threads), instruction_set
    )
    return y


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
    _check_floats("weights", weights, (None, None), weights)
    for name, value in (("first", moments.first), ("second", moments.second)):
        _check_floats(f"moments.{name}", value, tuple(weights.shape), weights)
    last = moments.last
    if last is not None and (
        last.shape != weights.shape[:1] or last.dtype != torch.int32 or last.device != weights.device
    ):
        raise ValueError(f"moments.last: expected ({len(weights)},) int32, got {tuple(last.shape)} {last.dtype}")
    if average is not None:
        _check_floats("average", average, tuple(weights.shape), weights)
    if not all(value is None or value.is_contiguous() for value in (weights, *moments, average)):
        raise ValueError("weights, moments, average: expected contiguous tensors, which are changed in place")
    if ids is not None:
        _check_ids("ids", ids, len(ids), weights)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(weights):
            raise ValueError(f"ids: expected 0..{len(weights) - 1}, got {int(ids.min())}..{int(ids.max())}")
    if gradients is not None:
        if ids is None and last is not None:
            raise ValueError("gradients: expected ids that say whose they are")
        _check_floats("gradients", gradients, (len(weights if ids is None else ids), weights.shape[1]), weights)
    elif last is None:
        raise ValueError("gradients: expected some, as no row stays behind without moments.last")
    if not 1 <= step < 2**31:
        raise ValueError(f"step: expected 1..2**31 - 1, got {step}")
    if not (0 <= betas[0] < 1 and betas[0] ** 2 < betas[1] < 1):
        raise ValueError(f"betas: expected a first one in [0, 1) whose square is below a second one in (0, 1): {betas}")
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), got {decay}")
    if padding is not None and not 0 <= padding < len(weights):
        raise ValueError(f"padding: expected a row in 0..{len(weights) - 1}, got {padding}")
    settings = (learning_rate, betas, epsilon, average, decay, padding, thread_count(threads), instruction_set)
    chosen = _backend.resolve_training(backend, weights)
    _backend.load(chosen).adam_rows(weights, moments, step, ids, _plain(gradients), *settings)


def check_layer(parameters: LayerParameters, heads: int, f: int, x: Tensor) -> None:
    """Refuse parameters of a layer that do not fit inputs x (..., d), or a feed-forward width other than f."""
    d = x.shape[-1]
    if heads < 1 or d % heads:
        raise ValueError(f"heads: expected a divisor of {d}, got {heads}")
    shapes = ((3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,), (d,), (d,))
    for name, value, shape in zip(LayerParameters._fields, parameters, shapes, strict=True):
        _check_floats(name, value, shape, x)


def _check_floats(name: str, value: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    if value.shape != shape and not _fits(value.shape, shape):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(value.shape)}")
    if not value.is_floating_point() or value.dtype != like.dtype or value.device != like.device:
        raise ValueError(
            f"{name}: expected floats like the first argument's, {like.dtype} on {like.device}, "
            f"got {value.dtype} on {value.device}"
        )


def _fits(got: torch.Size, shape: tuple[int | None, ...]) -> bool:
    return len(got) == len(shape) and all(want in (None, size) for want, size in zip(shape, got, strict=True))


def _check_ids(name: str, value: Tensor, length: int, like: Tensor) -> None:
    if value.shape != (length,) or value.dtype != torch.int64 or value.device != like.device:
        raise ValueError(
            f"{name}: expected ({length},) int64 on {like.device}, "
            f"got {tuple(value.shape)} {value.dtype} on {value.device}"
        )


def _plain(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().contiguous()

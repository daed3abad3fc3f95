"""Histories through a stack of Transformer layers, for what needs no gradient. :mod:`rsir.ops` hands them on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rsir.ops import backend as _backend
from rsir.ops.checks import check_ragged, thread_count
from rsir.ops.learning import check_layer
from rsir.ops.types import LayerParameters, Ragged

__all__ = ["encode_histories", "extend_histories"]


@torch.no_grad()
def encode_histories(
    histories: Ragged,
    embeddings: Tensor,
    positions: Tensor,
    layers: Sequence[LayerParameters],
    *,
    heads: int,
    epsilon: float = 1e-5,
    backend: str = "auto",
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """Query after each history: what the layers, as of :func:`rsir.ops.transformer_layer`, give at its last item.

    The layers read the sum of the embeddings of an item and of its position, counted from the oldest item.

    Parameters
    ----------
    histories : Ragged
        Oldest item first; none is empty. Of one that is longer than there are positions its last items are read.
    embeddings : (N + 1, d) float
    positions : (L, d) float
    layers : sequence of LayerParameters
        At least one, all of one feed-forward width.
    heads, epsilon
        As for :func:`rsir.ops.transformer_layer`.
    backend, threads, instruction_set
        As for :func:`rsir.ops.sampled_softmax`.

    Returns
    -------
    (n, d) float
        No gradient flows through it. A row has the same bits whatever the other histories are, and for any number of
        threads (cpp).

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`rsir.ops.transformer_layer`; an empty history (names it).
    """
    _check_stack(embeddings, positions, layers, heads)
    lists = check_ragged("histories", histories, histories.offsets[:-1], len(embeddings) - 1)
    lengths = lists.offsets.diff()
    if len(lengths) and int(lengths.min()) < 1:
        raise ValueError(f"history {int(lengths.argmin())} is empty: expected at least one item to encode")
    chosen = _backend.resolve_training(backend, embeddings)
    queries: Tensor = _backend.load(chosen).encode_histories(
        lists,
        embeddings.contiguous(),
        positions.contiguous(),
        _contiguous(layers),
        heads,
        epsilon,
        thread_count(threads),
        instruction_set,
    )
    return queries


@torch.no_grad()
def extend_histories(
    slots: Tensor,
    items: Tensor,
    lengths: Tensor,
    keys: Tensor,
    values: Tensor,
    embeddings: Tensor,
    positions: Tensor,
    layers: Sequence[LayerParameters],
    *,
    heads: int,
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

    Returns
    -------
    (n, d) float
        The very bits that :func:`encode_histories` gives for the whole histories (cpp).

    Raises
    ------
    ValueError, BackendUnavailable
        As for :func:`encode_histories`; slots or lengths out of range.
    """
    _check_stack(embeddings, positions, layers, heads)
    shape = (len(layers), keys.shape[1] if keys.ndim == 5 else 0, heads, len(positions), positions.shape[1] // heads)
    for name, cache in (("keys", keys), ("values", values)):
        if cache.shape != shape or cache.dtype != embeddings.dtype or not cache.is_contiguous():
            raise ValueError(
                f"{name}: expected contiguous {shape} {embeddings.dtype}, got {tuple(cache.shape)} {cache.dtype}"
            )
    for name, value, low, high in (
        ("slots", slots, 0, shape[1] - 1),
        ("items", items, 1, len(embeddings) - 1),
        ("lengths", lengths, 0, len(positions) - 1),
    ):
        if value.shape != (len(slots),) or value.dtype != torch.int64:
            raise ValueError(f"{name}: expected ({len(slots)},) int64, got {tuple(value.shape)} {value.dtype}")
        if len(value) and not low <= int(value.min()) <= int(value.max()) <= high:
            raise ValueError(f"{name}: expected {low}..{high}, got {int(value.min())}..{int(value.max())}")
    chosen = _backend.resolve_training(backend, embeddings)
    queries: Tensor = _backend.load(chosen).extend_histories(
        slots.contiguous(),
        items.contiguous(),
        lengths.contiguous(),
        keys,
        values,
        embeddings.contiguous(),
        positions.contiguous(),
        _contiguous(layers),
        heads,
        epsilon,
        thread_count(threads),
        instruction_set,
    )
    return queries


def _check_stack(embeddings: Tensor, positions: Tensor, layers: Sequence[LayerParameters], heads: int) -> None:
    if embeddings.ndim != 2 or positions.ndim != 2 or embeddings.shape[1] != positions.shape[1] or not len(positions):
        raise ValueError(
            f"embeddings, positions: expected (N + 1, d) and (L, d) with L >= 1, got {tuple(embeddings.shape)} and "
            f"{tuple(positions.shape)}"
        )
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    for layer in layers:
        check_layer(layer, heads, len(layers[0].up_weight), embeddings)


def _contiguous(layers: Sequence[LayerParameters]) -> list[LayerParameters]:
    return [LayerParameters(*(parameter.contiguous() for parameter in layer)) for layer in layers]

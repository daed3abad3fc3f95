"""Histories through a stack of Transformer layers, for what needs no gradient. :mod:`rsir.ops` hands it on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import backend as _backend
from .checks import check_ragged, thread_count
from .learning import check_layer
from .types import LayerParameters, Ragged

__all__ = ["encode_histories"]


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
    if embeddings.ndim != 2 or positions.ndim != 2 or embeddings.shape[1] != positions.shape[1] or not len(positions):
        raise ValueError(
            f"embeddings, positions: expected (N + 1, d) and (L, d) with L >= 1, got {tuple(embeddings.shape)} and "
            f"{tuple(positions.shape)}"
        )
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    for layer in layers:
        check_layer(layer, heads, len(layers[0].up_weight), embeddings)
    lists = check_ragged("histories", histories, histories.offsets[:-1], len(embeddings) - 1)
    lengths = lists.offsets.diff()
    if len(lengths) and int(lengths.min()) < 1:
        raise ValueError(f"history {int(lengths.argmin())} is empty: expected at least one item to encode")
    chosen = _backend.resolve_training(backend, embeddings)
    queries: Tensor = _backend.load(chosen).encode_histories(
        lists,
        embeddings.contiguous(),
        positions.contiguous(),
        [LayerParameters(*(parameter.contiguous() for parameter in layer)) for layer in layers],
        heads,
        epsilon,
        thread_count(threads),
        instruction_set,
    )
    return queries

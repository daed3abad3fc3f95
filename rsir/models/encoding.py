"""Encoding many histories with any backbone, so that a history's query does not depend on its company.

A matrix product may round differently at another shape, so every history is encoded in a tile whose shape depends on
its own length alone; a tile that is not full is filled with dummies.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rsir import ops
from rsir.data.ragged import Ragged, Timed
from rsir.models.protocol import AddingBackbone, Backbone, HistoryBackbone, PrefixBackbone, require
from rsir.models.times import given, prefix_times, uses_times

__all__ = ["added_scores", "encode_prefixes", "encode_sequences", "tile_rows", "width_buckets"]

_BUCKET = 4  # against 8: a quarter less time on histories of 6 items on average
_PREFIXES = 1 << 13  # items of sequences that are read at a time, about
_TILE_TOKENS = {"cpu": 4096, "cuda": 65536}


def width_buckets(max_len: int, first: int = _BUCKET) -> list[int]:
    """Widths that rows are padded to: four steps of ``first``, then steps of twice that, and so on, up to max_len."""
    widths = []
    width = step = first
    while width < max_len:
        widths.append(width)
        if width >= 4 * step:
            step *= 2
        width += step
    return [*widths, max_len]


def encode_sequences(model: Backbone, histories: Ragged, *, dropout: bool = False) -> Tensor:
    """Query after each of many histories.

    Parameters
    ----------
    model : Backbone
        Encodes in evaluation mode (but see `dropout`); its mode is restored.
    histories : Ragged
        Item ids (nnz,) int32, oldest first; only the last ``max_len`` items of a history are used. A backbone that uses
        times is given those of :class:`~rsir.data.ragged.Timed` ones.
    dropout : bool, default False
        Encode in training mode, with the dropout of a torch module drawn from torch's global generator.

    Returns
    -------
    (n, d) float32, on the model's device
        Row by row the same bits whatever the other rows are, for a given device and number of threads; with dropout,
        the same for the same rows in the same order.

    Raises
    ------
    ValueError
        An empty history (the message names it), or something that is no backbone.
    """
    require(model, Backbone)
    items, full = histories.values, histories.lengths
    if full.size and full.min() < 1:
        raise ValueError(f"history {int(full.argmin())} is empty: expected at least one item to encode")
    lengths = np.minimum(full, model.max_len)
    starts = histories.offsets[1:] - lengths
    if isinstance(model, HistoryBackbone) and len(lengths) and not dropout:
        together = model.encode_histories(ops.Ragged.from_numpy(items, histories.offsets))
        if together is not None:
            return together
    table = model.item_embeddings()
    queries = torch.empty(len(lengths), table.shape[1], dtype=torch.float32, device=table.device)
    widths = width_buckets(model.max_len)
    bucket = np.searchsorted(widths, lengths)
    was_training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.train(dropout)
    try:
        with torch.no_grad():
            for number, width in enumerate(widths):
                rows = np.flatnonzero(bucket == number)
                about = _TILE_TOKENS.get(table.device.type, _TILE_TOKENS["cuda"]) // width
                # masks of dropout are drawn by tile, whose size must not depend on the number of threads then
                size = tile_rows(about, 1 if dropout else torch.get_num_threads())
                for first in range(0, len(rows), size):
                    part = rows[first : first + size]
                    tile, tile_lengths = _tile(items, starts[part], lengths[part], size, width)
                    times = None
                    if isinstance(histories, Timed) and uses_times(model):
                        times = _tile_of_times(histories, part, starts[part], lengths[part], size, width)
                        times = times.to(table.device)
                    timed: Any = model  # for one that uses times
                    encoded = timed.encode(tile.to(table.device), tile_lengths.to(table.device), **given(model, times))
                    queries[torch.from_numpy(part).to(table.device)] = encoded[: len(part)]
    finally:
        if isinstance(model, nn.Module):
            model.train(was_training)
    return queries


def encode_prefixes(model: Backbone, sequences: Ragged) -> Tensor | None:
    """Query after every item of sequences, (nnz, d) float32; None of a model that has no causal pass for it.

    Parameters
    ----------
    model : Backbone
        Encodes in evaluation mode; its mode is restored.
    sequences : Ragged
        Item ids (nnz,) int32, oldest first, 1 to ``max_len`` a sequence.
    """
    if not isinstance(model, PrefixBackbone):
        return None
    was_training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        with torch.no_grad():
            part = sequences.offsets[:-1] // _PREFIXES
            firsts = [*np.flatnonzero(np.diff(part, prepend=-1)).tolist(), len(sequences)]
            queries = []
            for first, last in pairwise(firsts):
                own = sequences.rows(first, last)
                times = None
                if isinstance(own, Timed) and uses_times(model):
                    times = torch.from_numpy(prefix_times(own.times, own.offsets, own.asked))
                timed: Any = model  # for one that uses times
                rows = ops.Ragged.from_numpy(own.values, own.offsets)
                queries.append(timed.encode_prefixes(rows, **given(model, times)))
    finally:
        if isinstance(model, nn.Module):
            model.train(was_training)
    return torch.cat(queries)


def added_scores(model: Backbone, histories: Ragged) -> ops.SparseScores | None:
    """What a model adds to its logits after each of many histories, for the ops; None of a model that adds nothing.

    Parameters
    ----------
    model : Backbone
    histories : Ragged
        As for :func:`encode_sequences`.
    """
    if not isinstance(model, AddingBackbone):
        return None
    return model.added_scores(ops.Ragged.from_numpy(histories.values, histories.offsets))


def tile_rows(about: int, threads: int) -> int:
    """Number of rows for a tile: a multiple of 8 a thread, so that no thread's share of an elementwise kernel ends
    within a vector, whose rest would be rounded by other code."""
    unit = 8 * threads
    return max(1, about // unit) * unit


def _tile_of_times(
    histories: Timed,
    rows: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    size: int,
    width: int,
) -> Tensor:
    """(size, width + 1) int64: when the items of a tile came, and after them when the next is asked for."""
    columns = np.arange(width + 1)
    tile = np.zeros((size, width + 1), np.int64)
    own, filled = tile[: len(starts)], columns < lengths[:, None]
    own[filled] = histories.times[(starts[:, None] + columns)[filled]]
    own[np.arange(len(starts)), lengths] = histories.asked[rows]
    return torch.from_numpy(tile)


def _tile(
    items: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    rows: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """(rows, width) int64 items padded with 0, and (rows,) int64 lengths; missing rows hold one padding item."""
    columns = np.arange(width)
    filled = columns < lengths[:, None]
    tile = np.zeros((rows, width), np.int64)
    tile[: len(starts)][filled] = items[(starts[:, None] + columns)[filled]]
    tile_lengths = np.ones(rows, np.int64)
    tile_lengths[: len(starts)] = lengths
    return torch.from_numpy(tile), torch.from_numpy(tile_lengths)

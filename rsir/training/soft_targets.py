"""Soft targets: a teacher's expectations, from which a model learns beside the items that came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsir import ops
from rsir.config import DistillationConfig
from rsir.data.batches import SoftTargets
from rsir.data.ragged import Ragged
from rsir.data.sequences import Sequences, ragged_indices
from rsir.models.encoding import added_scores, encode_prefixes, encode_sequences
from rsir.models.itemknn import ItemKnn
from rsir.models.protocol import Backbone
from rsir.models.times import uses_times
from rsir.runtime.runtime import RUNTIME, Runtime

__all__ = ["counted_targets", "soft_targets"]

_POSITIONS = 8192  # scored at a time
_COUNTED = 1 << 17  # by the item-kNN


def soft_targets(
    model: Backbone,
    sequences: Sequences,
    config: DistillationConfig,
    *,
    runtime: Runtime = RUNTIME,
) -> SoftTargets:
    """What a model expects at every position of sequences: its top k items, the history left out, and their shares.

    Self-distillation (Furlanello et al., "Born-again neural networks", ICML 2018), with the generation before as the
    teacher.

    Parameters
    ----------
    model : Backbone
        The generator of the round.
    sequences : Sequences
        The successor's training set.
    config : DistillationConfig
    runtime : Runtime, optional
        Threads of the scoring, and the processes that divide the positions.

    Returns
    -------
    SoftTargets
        8 * config.k bytes for each interaction.
    """
    world = runtime.world
    place, positions = _positions(sequences, config)
    if uses_times(model):  # the same items may have come at other times
        distinct, copies = positions, np.arange(len(positions))
    else:
        distinct, copies = _distinct_prefixes(sequences, positions)
    ids = np.zeros((len(distinct), config.k), np.int32)
    cumulative = np.zeros((len(distinct), config.k), np.float32)
    table = ops.pack(model.item_embeddings().detach())
    parts = range(0, len(distinct), _POSITIONS)
    for number in world.claims(len(parts)):
        own = slice(parts[number], parts[number] + _POSITIONS)
        part = distinct[own]
        histories = Ragged.windows(sequences.items, part - place[part], place[part])
        queries = _queries(model, sequences, part, place[part])
        excluded = ops.Ragged.from_numpy(histories.values, histories.offsets, queries.device)
        added = added_scores(model, histories)
        best = ops.topk(queries, table, config.k, excluded=excluded, added=added, threads=runtime.threads)
        shares = torch.softmax(best.logits.double() / config.temperature, 1).cumsum(1)
        ids[own], cumulative[own] = best.ids.cpu().numpy(), shares.cpu().numpy()
    world.all_reduce(torch.from_numpy(ids), torch.from_numpy(cumulative))
    cumulative[ids[:, 0] == 0] = 1
    every = SoftTargets(
        np.zeros((len(place), config.k), np.int32), np.ones((len(place), config.k), np.float32), config.share
    )
    every.ids[positions], every.cumulative[positions] = ids[copies], cumulative[copies]
    return every


def _distinct_prefixes(
    sequences: Sequences, positions: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions, ascending, no two of which come after the same items, as those of trajectories of one source often do;
    and for each given position its number among them."""
    order = np.argsort(-sequences.lengths, kind="stable")
    alive = np.searchsorted(-sequences.lengths[order], -np.arange(1, sequences.lengths.max(initial=0) + 1), "right")
    prefix = np.zeros(len(sequences.items), np.int64)  # that ends with each interaction, by number
    current, count = np.zeros(len(sequences), np.int64), 0
    for place, number in enumerate(alive):
        rows = order[:number]
        at = sequences.offsets[rows] + place
        known, own = np.unique(current[rows] * (sequences.num_items + 1) + sequences.items[at], return_inverse=True)
        current[rows] = prefix[at] = count + own
        count += len(known)
    _, first, copies = np.unique(prefix[positions - 1], return_index=True, return_inverse=True)
    ascending = np.argsort(first)
    number = np.empty_like(ascending)
    number[ascending] = np.arange(len(ascending))
    return positions[first[ascending]], number[copies]


def _queries(
    model: Backbone, sequences: Sequences, positions: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Tensor:
    """Query after the items before each position, (n, d).

    Parameters
    ----------
    positions, lengths : (n,) int64
        Ascending, and how many items of the same sequence come before each.
    """
    short = np.flatnonzero(lengths <= model.max_len)
    starts, row = np.unique(positions[short] - lengths[short], return_inverse=True)
    longest = np.zeros(len(starts), np.int64)
    np.maximum.at(longest, row, lengths[short])
    timed = uses_times(model)
    read = sequences.windows(starts, longest, timed=timed)
    found = encode_prefixes(model, read) if len(short) else None
    if found is None:
        return encode_sequences(model, sequences.windows(positions - lengths, lengths, timed=timed))
    queries = found.new_empty(len(positions), found.shape[1])
    queries[torch.from_numpy(short).to(found.device)] = found[
        torch.from_numpy(read.offsets[row] + lengths[short] - 1).to(found.device)
    ]
    rest = np.flatnonzero(lengths > model.max_len)
    if len(rest):
        lengths = np.full(len(rest), model.max_len)
        windows = sequences.windows(positions[rest] - model.max_len, lengths, timed=timed)
        queries[torch.from_numpy(rest).to(found.device)] = encode_sequences(model, windows)
    return queries


def counted_targets(
    knn: ItemKnn, sequences: Sequences, config: DistillationConfig, *, threads: int | None = None
) -> SoftTargets:
    """What the item-kNN expects at every position of sequences, as :func:`soft_targets` gives a model's.

    Parameters
    ----------
    knn : ItemKnn
    sequences : Sequences
        The training set.
    config : DistillationConfig
        A temperature other than 1 raises shares to its inverse.
    threads : int, optional
        Default: torch's number.
    """
    place, positions = _positions(sequences, config)
    ids = np.zeros((len(place), config.k), np.int32)
    cumulative = np.ones((len(place), config.k), np.float32)
    for first in range(0, len(positions), _COUNTED):
        part = positions[first : first + _COUNTED]
        found = knn.shares_between(
            sequences.items, part - place[part], part, most=config.k, without_own=True, threads=threads
        )
        lengths = np.diff(found.offsets)
        column = np.arange(config.k)
        listed = column < lengths[:, None]
        shares = np.zeros(listed.shape)
        shares[listed] = found.values.astype(np.float64) ** (1 / config.temperature)
        own = np.zeros(listed.shape, np.int32)
        own[listed] = found.ids
        some = lengths > 0
        ids[part], sums = own, shares.cumsum(1)
        cumulative[part[some]] = sums[some] / sums[some, -1:]
    return SoftTargets(ids, cumulative, config.share)


def _positions(sequences: Sequences, config: DistillationConfig) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(nnz,) place of each interaction in its sequence, and which interactions get soft targets."""
    place = ragged_indices(np.zeros(len(sequences), np.int64), sequences.lengths)
    wanted = place > 0
    if config.targets == "synthetic":
        wanted &= np.repeat(~sequences.is_real, sequences.lengths)
    return place, np.flatnonzero(wanted)

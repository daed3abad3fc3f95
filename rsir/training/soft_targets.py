"""Soft targets: a teacher's expectations, from which a model learns beside the items that came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rsir import ops
from rsir.config import DistillationConfig
from rsir.data.batches import SoftTargets
from rsir.data.ragged import Ragged
from rsir.data.sequences import Sequences, ragged_indices
from rsir.models.encoding import encode_sequences
from rsir.models.itemknn import ItemKnn
from rsir.models.protocol import Backbone
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
    ids = np.zeros((len(place), config.k), np.int32)
    cumulative = np.zeros((len(place), config.k), np.float32)
    table = ops.pack(model.item_embeddings().detach())
    parts = world.parts(len(positions), _POSITIONS)
    for number in world.claims(len(parts)):
        part = positions[parts[number]]
        lengths = place[part]
        histories = Ragged.windows(sequences.items, part - lengths, lengths)
        queries = encode_sequences(model, histories)
        excluded = ops.Ragged.from_numpy(histories.values, histories.offsets, queries.device)
        best = ops.topk(queries, table, config.k, excluded=excluded, threads=runtime.threads)
        shares = torch.softmax(best.logits.double() / config.temperature, 1).cumsum(1)
        ids[part], cumulative[part] = best.ids.cpu().numpy(), shares.cpu().numpy()
    world.all_reduce(torch.from_numpy(ids), torch.from_numpy(cumulative))
    cumulative[ids[:, 0] == 0] = 1
    return SoftTargets(ids, cumulative, config.share)


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

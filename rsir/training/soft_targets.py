"""Soft targets: the generator's own expectations, from which its successor learns beside the items that came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rsir import ops
from rsir.config import DistillationConfig
from rsir.data.batches import SoftTargets
from rsir.data.sequences import Sequences, offsets_of, ragged_indices
from rsir.models.encoding import encode_sequences
from rsir.models.protocol import Backbone
from rsir.runtime.world import ALONE, World

__all__ = ["soft_targets"]

_POSITIONS = 8192  # scored at a time


def soft_targets(
    model: Backbone,
    sequences: Sequences,
    config: DistillationConfig,
    *,
    threads: int | None = None,
    world: World = ALONE,
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
    threads : int, optional
        As for :func:`rsir.ops.topk`.
    world : World, optional
        Processes that call this together, with the same arguments: they divide the positions, and each returns what
        one process would.

    Returns
    -------
    SoftTargets
        8 * config.k bytes for each interaction.
    """
    place = ragged_indices(np.zeros(len(sequences), np.int64), sequences.lengths)
    wanted = place > 0
    if config.targets == "synthetic":
        wanted &= np.repeat(~sequences.is_real, sequences.lengths)
    positions: npt.NDArray[np.int64] = np.flatnonzero(wanted)
    ids = np.zeros((len(place), config.k), np.int32)
    cumulative = np.zeros((len(place), config.k), np.float32)
    table = ops.pack(model.item_embeddings().detach())
    parts = world.parts(len(positions), _POSITIONS)
    for number in world.claims(len(parts)):
        part = positions[parts[number]]
        lengths = place[part]
        history, offsets = sequences.items[ragged_indices(part - lengths, lengths)], offsets_of(lengths)
        queries = encode_sequences(model, history, offsets)
        excluded = ops.Ragged(*(torch.from_numpy(array).to(queries.device) for array in (history, offsets)))
        best = ops.topk(queries, table, config.k, excluded=excluded, threads=threads)
        shares = torch.softmax(best.logits.double() / config.temperature, 1).cumsum(1)
        ids[part], cumulative[part] = best.ids.cpu().numpy(), shares.cpu().numpy()
    world.all_reduce(torch.from_numpy(ids), torch.from_numpy(cumulative))
    cumulative[ids[:, 0] == 0] = 1
    return SoftTargets(ids, cumulative, config.share)

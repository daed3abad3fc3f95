"""How much a model disagrees with itself about a sequence, under dropout (DA-RSIR, arXiv 2610.04302)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rsir.data.sequences import Sequences, ragged_indices
from rsir.errors import BackboneError
from rsir.models.encoding import encode_sequences
from rsir.models.protocol import Backbone
from rsir.models.times import uses_times
from rsir.runtime.runtime import RUNTIME, Runtime

__all__ = ["disagreement"]

_POSITIONS = 4096  # encoded at a time; fixed, as dropout is drawn for all of them at once
_LOGITS = 2**22  # held at a time


@torch.no_grad()
def disagreement(
    model: Backbone, sequences: Sequences, *, passes: int, seed: int, runtime: Runtime = RUNTIME
) -> npt.NDArray[np.float64]:
    """The target's part of the BALD score, averaged over a sequence's positions after the first.

    BALD, the information that an item would give about the model's weights, is the entropy of the mean prediction
    less the mean entropy of the predictions, over passes with dropout. Both are sums over items, and the part of the
    target i is ``-log(mean(p_i)) * mean(p_i) + mean(p_i * log(p_i))``, the means taken over passes: 0 where
    all agree, never negative.

    Parameters
    ----------
    model : Backbone
        A torch module with dropout.
    sequences : Sequences
        Every item after a sequence's first is a target, predicted from those before it.
    passes : int
        Forward passes with dropout, T of the paper; at least 2.
    seed : int
        Seed of the dropout. torch's global generator is left as it was.
    runtime : Runtime, optional
        The processes that divide the targets.

    Returns
    -------
    (n,) float64
        0 for a sequence of fewer than two items.

    Raises
    ------
    BackboneError
        The model is no torch module, or has no dropout that acts when it encodes.
    """
    if not isinstance(model, nn.Module):
        raise BackboneError(
            f"acquisition by disagreement: expected a torch module with dropout, got {type(model).__name__}"
        )
    world = runtime.world
    place = ragged_indices(np.zeros(len(sequences), np.int64), sequences.lengths)
    targets = np.flatnonzero(place > 0)
    scores = np.zeros(len(sequences.items))
    table = model.item_embeddings()
    differs = False
    devices = [table.device] if table.is_cuda else []
    blocks = range(0, len(targets), _POSITIONS)
    for number in world.claims(len(blocks)):
        first = blocks[number]
        part = targets[first : first + _POSITIONS]
        lengths = place[part]
        histories = sequences.windows(part - lengths, lengths, timed=uses_times(model))
        ids = torch.from_numpy(sequences.items[part].astype(np.int64)).to(table.device)
        log_p = torch.empty(passes, len(part), dtype=torch.float64)
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(np.random.SeedSequence([seed, first]).generate_state(1, np.uint64)[0]) >> 1)
            for number in range(passes):
                queries = encode_sequences(model, histories, dropout=True)
                log_p[number] = _log_probability(queries, table, ids).cpu()
        differs = differs or not torch.equal(log_p[0], log_p[-1])
        p = log_p.exp()
        mean = p.mean(0)
        scores[part] = (torch.special.entr(mean) - torch.special.entr(p).mean(0)).clamp_(min=0).numpy()
    world.all_reduce(torch.from_numpy(scores))
    if len(targets) and not world.any(differs):
        raise BackboneError(
            "acquisition by disagreement: dropout changes no prediction; expected a model with dropout above 0"
        )
    row = np.repeat(np.arange(len(sequences)), sequences.lengths)
    sums = np.bincount(row, scores, minlength=len(sequences))
    return sums / np.maximum(sequences.lengths - 1, 1)


def _log_probability(queries: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    """Log of each id's share in a softmax over the catalogue, (B,) float64; a bounded part of the logits at a time."""
    rows = max(1, min(len(queries), 512))
    columns = max(1, _LOGITS // rows)
    total = torch.full((len(queries),), -torch.inf, dtype=torch.float64, device=queries.device)
    for first in range(0, len(queries), rows):
        part = queries[first : first + rows]
        for start in range(1, len(table), columns):
            logits = part @ table[start : start + columns].T
            here = total[first : first + rows]
            here.copy_(torch.logaddexp(here, logits.logsumexp(1).double()))
    return (queries * table[ids]).sum(1).double() - total

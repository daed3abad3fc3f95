"""How much the item-kNN's vote counts beside the networks', chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsir import ops
from rsir.data.ragged import Ragged
from rsir.data.splits import EvaluationSet
from rsir.evaluation import CUTOFFS, Evaluation
from rsir.metrics import CRITERION
from rsir.models.encoding import encode_sequences
from rsir.models.itemknn import ItemKnn
from rsir.models.items import pack_items
from rsir.models.protocol import Backbone
from rsir.ops import ItemTable
from rsir.ops.composed import keys_of, sum_by_row
from rsir.runtime import memory
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.runtime.torch_state import plain_torch

__all__ = ["WEIGHTS", "best_vote", "ranks_by_weight", "vote_weight"]

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What is tried; 0: no vote."""

_TASKS, _FEWEST = 4096, 128  # at a time; of several processes at least


def vote_weight(
    network: Backbone,
    knn: ItemKnn,
    validation: EvaluationSet,
    *,
    table: ItemTable | None = None,
    runtime: Runtime = RUNTIME,
) -> float:
    """The weight of :data:`WEIGHTS` with the highest validation NDCG@20; among equals the lowest.

    Parameters
    ----------
    network : Backbone
        Or an ensemble of several.
    knn : ItemKnn
    validation : EvaluationSet
    table, runtime
        As for :func:`rsir.evaluation.evaluate`.
    """
    return best_vote(network, [knn], validation, table=table, runtime=runtime)[1]


def best_vote(
    network: Backbone,
    counts: Sequence[ItemKnn],
    validation: EvaluationSet,
    *,
    table: ItemTable | None = None,
    runtime: Runtime = RUNTIME,
) -> tuple[ItemKnn, float]:
    """Which of several counts votes with which weight, by validation NDCG@20; among equals the first and the lowest."""
    table = pack_items(network, table, world=runtime.world)
    values = np.array(
        [
            [Evaluation({}, ranks).gains(CRITERION).mean() for ranks in found]
            for found in (ranks_by_weight(network, knn, validation, table=table, runtime=runtime) for knn in counts)
        ]
    )
    number, weight = np.unravel_index(int(values.argmax()), values.shape)
    return counts[int(number)], WEIGHTS[int(weight)]


@plain_torch()
def ranks_by_weight(
    network: Backbone,
    knn: ItemKnn,
    tasks: EvaluationSet,
    *,
    table: ItemTable | None = None,
    runtime: Runtime = RUNTIME,
) -> npt.NDArray[np.int64]:
    """What :func:`rsir.evaluation.evaluate` finds of :class:`rsir.models.WithItemKnn`, for every weight at once.

    One pass over the catalogue serves all weights: the best of the items that the count does not list are always the
    same, and so are the logits of the others.

    Returns
    -------
    (len(WEIGHTS), n) int64
        As :class:`rsir.evaluation.Evaluation` has them.
    """
    world = runtime.world
    table = pack_items(network, table, world=world)
    ranks = torch.zeros(len(WEIGHTS), len(tasks), dtype=torch.int64)
    parts = world.parts(len(tasks), _TASKS, _FEWEST)
    for number in world.claims(len(parts)):
        memory.release()
        first, last = parts[number].start, parts[number].stop
        histories, targets = tasks.histories.rows(first, last), tasks.targets[first:last]
        left_out = None
        if tasks.repeats != "included":
            left_out = histories
            if tasks.repeats == "targets":
                left_out = histories.where(histories.values != np.repeat(targets, histories.lengths))
        found = _ranks(network, knn, histories, left_out, torch.tensor(targets).long(), table, runtime.threads)
        ranks[:, first:last] = found.cpu()
    world.all_reduce(ranks)
    return ranks.numpy()


def _ranks(
    network: Backbone,
    knn: ItemKnn,
    histories: Ragged,
    left_out: Ragged | None,
    targets: Tensor,
    table: ItemTable,
    threads: int | None,
) -> Tensor:
    """(len(WEIGHTS), n) int64, of n histories, without what is left out of the ranking after each."""
    most = max(CUTOFFS)
    queries = encode_sequences(network, histories)
    device = queries.device
    listed, logarithms = knn.logarithms(ops.Ragged.from_numpy(histories.values, histories.offsets))
    listed, logarithms, targets = ops.Ragged(*(t.to(device) for t in listed)), logarithms.to(device), targets.to(device)
    excluded = None if left_out is None else ops.Ragged.from_numpy(left_out.values, left_out.offsets, device)
    none_listed = ops.SparseScores(*listed, torch.full(listed.ids.shape, -torch.inf, device=device))
    others = ops.topk(queries, table, most, excluded=excluded, added=none_listed, threads=threads)
    logits = ops.logits_of(queries, table, listed, threads=threads)
    if excluded is not None:
        known = torch.isin(keys_of(listed, table.num_items), keys_of(excluded, table.num_items))
        logits = torch.where(known, -torch.inf, logits)
    row = torch.repeat_interleave(listed.offsets.diff())
    is_target, lower = listed.ids == targets[row], listed.ids < targets[row]
    own = torch.where(others.ids == targets[:, None], others.logits, -torch.inf).amax(1)
    found = []
    for weight in WEIGHTS:
        scores = logits + (weight * logarithms).float()
        score = own.index_put((row[is_target],), scores[is_target])
        before = (scores > score[row]) | ((scores == score[row]) & lower)
        among = (others.logits > score[:, None]) | ((others.logits == score[:, None]) & (others.ids < targets[:, None]))
        place = 1 + sum_by_row(before, listed.offsets) + among.sum(1)
        found.append(torch.where((score > -torch.inf) & (place <= most), place, 0))
    return torch.stack(found)

"""The slow, obvious truth of every op in plain torch: the whole logit matrix, sorted.

Logits are computed in float64 and rounded once to float32, so that they do not depend on the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..philox import gumbel
from .types import PackedItems, Ragged, RankedSample, Sample, TopK


def pack(items: Tensor, instruction_set: str | None) -> PackedItems:
    if instruction_set is not None:
        raise ValueError(f"backend 'reference' has no instruction sets, got {instruction_set!r}")
    return PackedItems("reference", items)


def topk(queries: Tensor, packed: PackedItems, k: int, excluded: Ragged | None, threads: int) -> TopK:
    logits = _masked(_logits(queries, packed), excluded)
    values, ids = logits.sort(dim=1, descending=True, stable=True)  # stable: equal logits stay in id order
    values, ids = values[:, :k], ids[:, :k]
    ids = torch.where(values == -torch.inf, 0, ids)
    missing = k - ids.shape[1]
    if missing > 0:
        ids = torch.nn.functional.pad(ids, (0, missing), value=0)
        values = torch.nn.functional.pad(values, (0, missing), value=-torch.inf)
    return TopK(ids, values)


def topk_sample(
    queries: Tensor,
    packed: PackedItems,
    k: int,
    temperature: float,
    excluded: Ragged | None,
    seed: int,
    counters: Tensor,
    threads: int,
) -> Sample:
    best = topk(queries, packed, min(k, packed.num_items), excluded, threads)
    if best.ids.shape[1] == 1:
        return Sample(best.ids[:, 0], best.logits[:, 0])
    noise = gumbel(seed, counters.cpu().numpy(), best.ids.cpu().numpy())
    noisy = best.logits.double() / temperature + torch.from_numpy(noise).to(best.ids.device)
    noisy = torch.where(best.ids == 0, -torch.inf, noisy)
    winner = noisy.amax(dim=1, keepdim=True)
    # Equal noisy logits (two of +inf, say) go to the lowest id.
    ids = torch.where((noisy == winner) & (best.ids > 0), best.ids, packed.num_items + 1)
    place = ids.argmin(dim=1, keepdim=True)
    return Sample(best.ids.gather(1, place)[:, 0], best.logits.gather(1, place)[:, 0])


def pool_sample(
    queries: Tensor,
    packed: PackedItems,
    pool: Ragged,
    k: int,
    temperature: float,
    excluded: Ragged | None,
    seed: int,
    counters: Tensor,
    threads: int,
) -> Sample:
    outside = ~_membership(pool, len(queries), packed.num_items)
    if excluded is not None:
        outside |= _membership(excluded, len(queries), packed.num_items)
    outside[:, 0] = False  # row 0 is no item and is masked anyway
    everything_else = Ragged(outside.nonzero()[:, 1].int(), torch.nn.functional.pad(outside.sum(1).cumsum(0), (1, 0)))
    return topk_sample(queries, packed, k, temperature, everything_else, seed, counters, threads)


def rank_within(queries: Tensor, packed: PackedItems, targets: Ragged, tau: int | None, threads: int) -> Tensor:
    logits = _logits(queries, packed)
    is_target = _membership(targets, len(queries), packed.num_items)
    best = torch.where(is_target, logits, -torch.inf).amax(dim=1, keepdim=True)
    ranks = 1 + (logits[:, 1:] > best).sum(dim=1)
    worst = (packed.num_items if tau is None else tau) + 1
    return torch.where(is_target.any(dim=1), ranks.clamp(max=worst), worst)


def rank_and_sample(
    queries: Tensor,
    packed: PackedItems,
    targets: Ragged,
    tau: int | None,
    k: int,
    temperature: float,
    excluded: Ragged | None,
    seed: int,
    counters: Tensor,
    threads: int,
) -> RankedSample:
    ranks = rank_within(queries, packed, targets, tau, threads)
    drawn = topk_sample(queries, packed, k, temperature, excluded, seed, counters, threads)
    failed = ranks > (packed.num_items if tau is None else tau)
    return RankedSample(ranks, torch.where(failed, 0, drawn.ids), torch.where(failed, -torch.inf, drawn.logits))


def neighbour_votes(graph: Tensor, items: Tensor, sources: Ragged, threads: int) -> Tensor:
    num_items = len(graph) - 1
    row, source = _membership(sources, len(items), num_items).nonzero(as_tuple=True)
    agrees = (graph[source] == items[row, None]).any(dim=1)
    return torch.zeros(len(items), dtype=torch.int64, device=items.device).index_add_(0, row, agrees.long())


def _logits(queries: Tensor, packed: PackedItems) -> Tensor:
    """(B, N + 1) float32 logits; NaN and the padding column are -inf."""
    logits = (queries.double() @ packed.weights.double().T).float()
    logits = torch.where(logits.isnan(), -torch.inf, logits)
    logits[:, 0] = -torch.inf
    return logits


def _membership(lists: Ragged, rows: int, num_items: int) -> Tensor:
    """(B, N + 1) bool: which ids each row lists."""
    member = torch.zeros(rows, num_items + 1, dtype=torch.bool, device=lists.ids.device)
    row = torch.repeat_interleave(lists.offsets.diff())
    member[row, lists.ids.long()] = True
    return member


def _masked(logits: Tensor, excluded: Ragged | None) -> Tensor:
    if excluded is None:
        return logits
    return torch.where(
        _membership(excluded, len(logits), logits.shape[1] - 1), torch.full_like(logits, -torch.inf), logits
    )

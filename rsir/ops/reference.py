"""The slow, obvious truth of every op in plain torch: the whole logit matrix, sorted.

Logits are computed in float64 and rounded once to float32, so that they do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor

from rsir.ops.backend import Backend, CatalogueOps
from rsir.ops.items import ItemTable, limit_of
from rsir.ops.types import (
    AdamMoments,
    Draw,
    FullSoftmax,
    LayerDropout,
    LayerParameters,
    Ragged,
    RankedSample,
    RankedTopK,
    Sample,
    SampledSoftmax,
    SparseScores,
    TopK,
)
from rsir.runtime.philox import gumbel

_CHUNK = 4096  # positions whose logits exist at a time: 16 MiB with 1,024 negatives


class Reference:
    """Every op in plain torch."""

    name = "reference"

    def pack(self, items: Tensor, instruction_set: str | None, dtype: torch.dtype) -> ItemTable:
        _no_instruction_set(instruction_set)
        return ItemTable(self, items.to(dtype), dtype=dtype)

    def adding(self, added: SparseScores) -> CatalogueOps | None:
        """None: scores that are added are composed of the other ops, by :mod:`rsir.ops.added`."""
        return None

    def topk(self, queries: Tensor, table: ItemTable, k: int, excluded: Ragged | None, threads: int) -> TopK:
        logits = _masked(_logits(queries, table), excluded)
        values, ids = logits.sort(dim=1, descending=True, stable=True)  # stable: equal logits stay in id order
        values, ids = values[:, :k], ids[:, :k]
        ids = torch.where(values == -torch.inf, 0, ids)
        missing = k - ids.shape[1]
        if missing > 0:
            ids = functional.pad(ids, (0, missing), value=0)
            values = functional.pad(values, (0, missing), value=-torch.inf)
        return TopK(ids, values)

    def topk_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> Sample:
        return drawn(self.topk(queries, table, min(draw.k, table.num_items), excluded, threads), draw)

    def pool_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        pool: Ragged,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> Sample:
        outside = ~_membership(pool, len(queries), table.num_items)
        if excluded is not None:
            outside |= _membership(excluded, len(queries), table.num_items)
        outside[:, 0] = False  # row 0 is no item and is masked anyway
        everything_else = Ragged(outside.nonzero()[:, 1].int(), functional.pad(outside.sum(1).cumsum(0), (1, 0)))
        return self.topk_sample(queries, table, draw, everything_else, threads)

    def rank_within(self, queries: Tensor, table: ItemTable, targets: Ragged, tau: int | None, threads: int) -> Tensor:
        logits = _logits(queries, table)
        is_target = _membership(targets, len(queries), table.num_items)
        best = torch.where(is_target, logits, -torch.inf).amax(dim=1, keepdim=True)
        ranks = 1 + (logits[:, 1:] > best).sum(dim=1)
        worst = limit_of(tau, table) + 1
        return torch.where(is_target.any(dim=1), ranks.clamp(max=worst), worst)

    def count_above(self, queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None, threads: int) -> Tensor:
        counts = (_logits(queries, table)[:, 1:] > bars[:, None]).sum(dim=1)
        return counts if limit is None else counts.clamp(max=limit)

    def place_within(
        self, queries: Tensor, table: ItemTable, targets: Tensor, tau: int, excluded: Ragged | None, threads: int
    ) -> Tensor:
        logits, own = _logits(queries, table), targets[:, None].long()
        target = logits.gather(1, own)
        ids = torch.arange(logits.shape[1], device=logits.device)
        ahead = (_masked(logits, excluded) > target) | ((_masked(logits, excluded) == target) & (ids < own))
        places = 1 + ahead.scatter(1, own, False)[:, 1:].sum(dim=1)
        return torch.where(target[:, 0] == -torch.inf, tau + 1, places.clamp(max=tau + 1))

    def rank_and_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedSample:
        ranks = self.rank_within(queries, table, targets, tau, threads)
        sample = self.topk_sample(queries, table, draw, excluded, threads)
        failed = ranks > limit_of(tau, table)
        return RankedSample(ranks, torch.where(failed, 0, sample.ids), torch.where(failed, -torch.inf, sample.logits))

    def rank_and_topk(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        k: int,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedTopK:
        ranks = self.rank_within(queries, table, targets, tau, threads)
        best = self.topk(queries, table, k, excluded, threads)
        failed = (ranks > limit_of(tau, table))[:, None]
        return RankedTopK(ranks, torch.where(failed, 0, best.ids), torch.where(failed, -torch.inf, best.logits))

    def logits_of(self, queries: Tensor, table: ItemTable, lists: Ragged, threads: int) -> Tensor:
        row = torch.repeat_interleave(lists.offsets.diff())
        return _logits(queries, table)[row, lists.ids.long()]

    def neighbour_votes(self, graph: Tensor, items: Tensor, sources: Ragged, threads: int) -> Tensor:
        num_items = len(graph) - 1
        row, source = _membership(sources, len(items), num_items).nonzero(as_tuple=True)
        agrees = (graph[source] == items[row, None]).any(dim=1)
        return torch.zeros(len(items), dtype=torch.int64, device=items.device).index_add_(0, row, agrees.long())

    def sampled_softmax(
        self,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        negative_ids: Tensor,
        weights: Tensor,
        target_offsets: Tensor | None,
        negative_offsets: Tensor | None,
        threads: int,
        instruction_set: str | None,
        bfloat16: bool,
    ) -> SampledSoftmax:
        _no_instruction_set(instruction_set)
        offsets = target_offsets, negative_offsets
        return _softmax(queries, positives, negatives, targets, negative_ids, weights, *offsets, bfloat16)

    def full_softmax(
        self,
        queries: Tensor,
        items: Tensor,
        targets: Tensor,
        weights: Tensor,
        threads: int,
        instruction_set: str | None,
        bfloat16: bool,
    ) -> FullSoftmax:
        _no_instruction_set(instruction_set)
        ids = torch.arange(1, len(items), device=items.device)
        known = torch.where(weights != 0, targets, 0)
        loss, grad_queries, grad_positives, grad_negatives = _softmax(
            queries, items[known], items[1:], known, ids, weights, None, None, bfloat16
        )
        grad_items = torch.cat([torch.zeros_like(items[:1]), grad_negatives])
        return FullSoftmax(loss, grad_queries, grad_items.index_add_(0, known, grad_positives))

    def transformer_layer(
        self,
        x: Tensor,
        segments: Tensor,
        parameters: LayerParameters,
        heads: int,
        epsilon: float,
        dropout: LayerDropout | None,
        threads: int,
        instruction_set: str | None,
    ) -> Tensor:
        _no_instruction_set(instruction_set)
        p = parameters
        rows, width, dim = x.shape

        def drop(values: Tensor, name: str) -> Tensor:
            if dropout is None:
                return values
            return values * (getattr(dropout, name) >= dropout.dropped) * (256 / (256 - dropout.dropped))

        projected = functional.linear(x, p.in_weight, p.in_bias)
        queries, keys, values = projected.view(rows, width, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        place = torch.arange(width, device=x.device)
        visible = (segments[:, :, None] == segments[:, None]) & (place[:, None] >= place)
        logits = (queries * (dim // heads) ** -0.5) @ keys.transpose(-1, -2)
        distance = (place[:, None] - place).clamp(min=0)
        if p.filter is not None:
            logits = logits + p.filter.distances[:, distance]
        shares = drop(logits.masked_fill(~visible[:, None], -torch.inf).softmax(-1), "attention")
        attended = (shares @ values).transpose(1, 2).flatten(2)
        out = drop(functional.linear(attended, p.out_weight, p.out_bias), "out")
        y = functional.layer_norm(x + out, (dim,), p.norm1_weight, p.norm1_bias, epsilon)
        if (f := p.filter) is not None:
            low = (1 - f.decay) * (f.decay ** distance.to(x.dtype) * visible) @ x
            filtered = x + drop(low + f.beta**2 * (x - low), "low")
            filtered = functional.layer_norm(filtered, (dim,), f.norm_weight, f.norm_bias, epsilon)
            y = f.share * filtered + (1 - f.share) * y
        hidden = drop(functional.gelu(functional.linear(y, p.up_weight, p.up_bias)), "hidden")
        down = drop(functional.linear(hidden, p.down_weight, p.down_bias), "down")
        return functional.layer_norm(y + down, (dim,), p.norm2_weight, p.norm2_bias, epsilon)

    def adam_rows(
        self,
        weights: Tensor,
        moments: AdamMoments,
        step: int,
        ids: Tensor | None,
        gradients: Tensor | None,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        average: Tensor | None,
        decay: float,
        padding: int | None,
        threads: int,
        instruction_set: str | None,
    ) -> None:
        if padding is not None and ids is not None and gradients is not None:
            ids, gradients = ids[ids != padding], gradients[ids != padding]
        everything = torch.arange(len(weights), device=weights.device)
        rows = everything if ids is None or moments.last is None else ids.unique()
        total = torch.zeros_like(weights)
        if gradients is not None:
            total.index_add_(0, everything if ids is None else ids, gradients)
            if padding is not None:
                total[padding] = 0.0
        last = torch.full_like(rows, step - 1) if moments.last is None else moments.last[rows]
        ready = int(last[last > 0].min()) if bool((last > 0).any()) else step
        for now in range(min(ready + 1, step), step + 1):
            # Rows that had no gradient yet have means of zero, which move nothing.
            own = rows if now == step and gradients is not None else rows[(last > 0) & (last < now)]
            gradient = total[own] if now == step else torch.zeros_like(weights[own])
            moments.first[own] = betas[0] * moments.first[own] + (1 - betas[0]) * gradient
            moments.second[own] = betas[1] * moments.second[own] + (1 - betas[1]) * gradient**2
            mean, square = moments.first[own] / (1 - betas[0] ** now), moments.second[own] / (1 - betas[1] ** now)
            weights[own] -= learning_rate * mean / (square.sqrt() + epsilon)
            if average is not None:
                average[own] = torch.lerp(weights[own], average[own], average_keeps(decay, now))
            if moments.last is not None:
                moments.last[own] = now

    def encode_histories(
        self,
        histories: Ragged,
        embeddings: Tensor,
        positions: Tensor | None,
        layers: Sequence[LayerParameters],
        heads: int,
        epsilon: float,
        threads: int,
        instruction_set: str | None,
    ) -> Tensor:
        ids, offsets = histories.ids.long(), histories.offsets.tolist()
        queries = embeddings.new_empty(len(offsets) - 1, embeddings.shape[1])
        own = layers[0].filter
        longest = own.distances.shape[1] if positions is None and own is not None else len(cast(Tensor, positions))
        for row, (begin, end) in enumerate(pairwise(offsets)):
            items = ids[max(begin, end - longest) : end]
            x = embeddings[items][None] if positions is None else (embeddings[items] + positions[: len(items)])[None]
            together = torch.ones(1, len(items), dtype=torch.int64, device=x.device)
            for layer in layers:
                x = self.transformer_layer(x, together, layer, heads, epsilon, None, threads, instruction_set)
            queries[row] = x[0, -1]
        return queries

    def extend_histories(
        self,
        slots: Tensor,
        items: Tensor,
        lengths: Tensor,
        keys: Tensor,
        values: Tensor,
        low: Tensor | None,
        embeddings: Tensor,
        positions: Tensor | None,
        layers: Sequence[LayerParameters],
        heads: int,
        epsilon: float,
        threads: int,
        instruction_set: str | None,
    ) -> Tensor:
        _no_instruction_set(instruction_set)
        queries = embeddings.new_empty(len(slots), embeddings.shape[1])
        for row, (slot, item, at) in enumerate(zip(slots.tolist(), items.tolist(), lengths.tolist(), strict=True)):
            x = embeddings[item] if positions is None else embeddings[item] + positions[at]
            dim = len(x)
            for number, (p, own_keys, own_values) in enumerate(
                zip(layers, keys[:, slot], values[:, slot], strict=True)
            ):
                query, key, value = functional.linear(x, p.in_weight, p.in_bias).view(3, heads, -1)
                own_keys[:, at], own_values[:, at] = key, value
                logits = (own_keys[:, : at + 1] @ query[:, :, None])[..., 0] * (dim // heads) ** -0.5
                if p.filter is not None:
                    logits = logits + p.filter.distances[:, : at + 1].flip(1)
                attended = (logits.softmax(-1)[:, None] @ own_values[:, : at + 1]).flatten()
                out = functional.linear(attended, p.out_weight, p.out_bias)
                y = functional.layer_norm(x + out, (dim,), p.norm1_weight, p.norm1_bias, epsilon)
                if (f := p.filter) is not None and low is not None:
                    own_low = low[number, slot]
                    own_low[:] = (f.decay * own_low if at else 0.0) + (1 - f.decay) * x
                    filtered = x + own_low + f.beta**2 * (x - own_low)
                    filtered = functional.layer_norm(filtered, (dim,), f.norm_weight, f.norm_bias, epsilon)
                    y = f.share * filtered + (1 - f.share) * y
                down = functional.linear(functional.gelu(functional.linear(y, p.up_weight, p.up_bias)), p.down_weight)
                x = functional.layer_norm(y + down + p.down_bias, (dim,), p.norm2_weight, p.norm2_bias, epsilon)
            queries[row] = x
        return queries


BACKEND: Backend = Reference()


def _softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    weights: Tensor,
    target_offsets: Tensor | None,
    negative_offsets: Tensor | None,
    bfloat16: bool,
) -> SampledSoftmax:
    """The loss of both softmaxes and its gradients; with factors of the three products rounded to bfloat16, or not."""

    def rounded(factor: Tensor) -> Tensor:
        return factor.bfloat16().to(factor.dtype) if bfloat16 else factor

    loss = queries.new_zeros(())
    grad_queries, grad_positives = torch.zeros_like(queries), torch.zeros_like(positives)
    grad_negatives = torch.zeros_like(negatives)
    for part in (weights != 0).nonzero()[:, 0].split(_CHUNK):
        query, positive, weight = queries[part], positives[part], weights[part, None]
        target_logit = (query * positive).sum(1, keepdim=True)
        logits = rounded(query) @ rounded(negatives).T
        if target_offsets is not None:
            target_logit = target_logit + target_offsets[part, None]
        if negative_offsets is not None:
            logits += negative_offsets
        logits.masked_fill_(targets[part, None] == negative_ids, -torch.inf)
        top = torch.cat([logits, target_logit], 1).amax(1, keepdim=True)
        share = (logits - top).exp_()
        target_share = (target_logit - top).exp_()
        total = share.sum(1, keepdim=True) + target_share
        loss += (weight * (total.log() + top - target_logit)).sum()
        scale, share = weight / total, rounded(share)
        pull = weight * (target_share / total - 1)
        grad_queries[part] = scale * (share @ rounded(negatives)) + pull * positive
        grad_positives[part] = pull * query
        grad_negatives += share.T @ rounded(scale * query)
    return SampledSoftmax(loss, grad_queries, grad_positives, grad_negatives)


def drawn(best: TopK, draw: Draw) -> Sample:
    """One of each row's best items, by softmax at a temperature; the best one if there is one place alone."""
    if best.ids.shape[1] == 1:
        return Sample(best.ids[:, 0], best.logits[:, 0])
    noise = gumbel(draw.seed, draw.counters_of(best.ids).cpu().numpy(), best.ids.cpu().numpy())
    noisy = best.logits.double() / draw.temperature + torch.from_numpy(noise).to(best.ids.device)
    noisy = torch.where(best.ids == 0, -torch.inf, noisy)
    winner = noisy.amax(dim=1, keepdim=True)
    # Equal noisy logits (two of +inf, say) go to the lowest id.
    ids = torch.where((noisy == winner) & (best.ids > 0), best.ids, torch.iinfo(torch.int64).max)
    place = ids.argmin(dim=1, keepdim=True)
    return Sample(best.ids.gather(1, place)[:, 0], best.logits.gather(1, place)[:, 0])


def _logits(queries: Tensor, table: ItemTable) -> Tensor:
    """(B, N + 1) float32 logits; NaN and the padding column are -inf."""
    logits = (queries.detach().double() @ table.weights.detach().double().T).float()
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


def average_keeps(decay: float, step: int) -> float:
    """What a moving average of weights keeps of itself in a step: less than its decay in the first ones.

    Parameters
    ----------
    decay : float
    step : int
        From 1, in which the average becomes the weights.
    """
    return 0.0 if step == 1 else min(decay, step / (9 + step))


def _no_instruction_set(instruction_set: str | None) -> None:
    if instruction_set is not None:
        raise ValueError(f"backend 'reference' has no instruction sets, got {instruction_set!r}")

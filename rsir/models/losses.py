"""Softmax losses against negatives shared by a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["sampled_softmax"]

_CHUNK = 4096  # positions whose logits exist at a time: 16 MiB with 1,024 negatives


class _SampledSoftmax(torch.autograd.Function):
    """Computes the gradient along with the loss, so that logits live for one chunk only."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        negative_ids: Tensor,
        weights: Tensor,
    ) -> Tensor:
        needs_gradient = any(ctx.needs_input_grad)
        grad_queries = torch.empty_like(queries)
        grad_positives = torch.empty_like(positives)
        grad_negatives = torch.zeros_like(negatives)
        loss = queries.new_zeros(())
        transposed = negatives.T
        for start in range(0, len(queries), _CHUNK):
            part = slice(start, start + _CHUNK)
            query, positive, weight = queries[part], positives[part], weights[part, None]
            target_logit = (query * positive).sum(1, keepdim=True)
            logits = query @ transposed
            _mask_collisions(logits, targets[part], negative_ids)
            top = torch.maximum(logits.amax(1, keepdim=True), target_logit)
            share = logits.sub_(top).exp_()
            target_share = (target_logit - top).exp_()
            total = share.sum(1, keepdim=True) + target_share
            loss += (weight * (total.log() + top - target_logit)).sum()
            if needs_gradient:
                scale = weight / total
                share.mul_(scale)
                pull = target_share.mul_(scale).sub_(weight)
                torch.addcmul(share @ negatives, pull, positive, out=grad_queries[part])
                torch.mul(query, pull, out=grad_positives[part])
                grad_negatives.addmm_(share.T, query)
        ctx.save_for_backward(grad_queries, grad_positives, grad_negatives)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        scale = upstream[0]
        return (*(grad * scale for grad in ctx.saved_tensors), None, None, None)


def _mask_collisions(logits: Tensor, targets: Tensor, negative_ids: Tensor) -> None:
    """Set logits[i, j] to -inf where negative j is the target of position i. ``negative_ids`` is ascending."""
    first = torch.searchsorted(negative_ids, targets)
    count = torch.searchsorted(negative_ids, targets, right=True) - first
    rows = torch.repeat_interleave(count)
    if len(rows):
        within = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
        logits[rows, first[rows] + within] = -torch.inf


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    weights: Tensor,
) -> Tensor:
    """Cross-entropy of each target against itself and the shared negatives, summed with weights.

    A negative that is the target of a position does not count there.

    Parameters
    ----------
    queries, positives : (T, d) float
        Query of each position and embedding of its target.
    negatives : (S, d) float
        Embeddings of the shared negatives.
    targets : (T,) int64
    negative_ids : (S,) int64
        Ascending; may repeat.
    weights : (T,) float
        Weight of each position; divide by their sum for a mean.

    Returns
    -------
    scalar
        Differentiable once, in the first three arguments.
    """
    loss: Tensor = _SampledSoftmax.apply(queries, positives, negatives, targets, negative_ids, weights)
    return loss

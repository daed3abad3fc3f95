"""Softmax losses that autograd can differentiate, over the fused ops."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rsir import ops

__all__ = ["full_softmax", "sampled_softmax"]


class _WithGradients(torch.autograd.Function):
    """Takes a loss and the gradients that came along with it: logits are then needed once only."""

    @staticmethod
    def forward(ctx: Any, op: Any, count: int, *arguments: Tensor) -> Tensor:
        loss, *gradients = op(*arguments)
        ctx.rest = len(arguments) - count
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        scale, gradients = upstream[0], ctx.saved_tensors
        if scale.device.type != "cpu" or scale != 1:  # 1: the loss itself is what is differentiated
            gradients = [gradient * scale for gradient in gradients]
        return (None, None, *gradients, *([None] * ctx.rest))


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    weights: Tensor,
    threads: int | None = None,
    corrections: Tensor | None = None,
    bfloat16: bool = False,
) -> Tensor:
    """Weighted cross-entropy of each target against itself and shared negatives; see :func:`rsir.ops.sampled_softmax`.

    Parameters
    ----------
    queries, positives : (T, d) float
    negatives : (S, d) float
    targets : (T,) int64
    negative_ids : (S,) int64
    weights : (T,) float
    threads : int, optional
        CPU threads; default: torch's number.
    corrections : (N + 1,) float, optional
        By item, what is added to its logit wherever it stands.
    bfloat16 : bool, default False
        Whether the factors of its products are rounded to bfloat16.

    Returns
    -------
    scalar
        Differentiable once, in the first three arguments.
    """
    arguments = (queries, positives, negatives, targets, negative_ids, weights)
    op = partial(ops.sampled_softmax, threads=threads, bfloat16=bfloat16)
    if corrections is not None:
        added = corrections.to(queries.dtype)
        op = partial(op, target_offsets=added[targets], negative_offsets=added[negative_ids])
    loss: Tensor = _WithGradients.apply(op, 3, *arguments)
    return loss


def full_softmax(
    queries: Tensor,
    items: Tensor,
    targets: Tensor,
    weights: Tensor,
    threads: int | None = None,
    bfloat16: bool = False,
) -> Tensor:
    """Weighted cross-entropy of each target against the whole catalogue; see :func:`rsir.ops.full_softmax`.

    Parameters
    ----------
    queries : (T, d) float
    items : (N + 1, d) float
    targets : (T,) int64
    weights : (T,) float
    threads : int, optional
        CPU threads; default: torch's number.
    bfloat16 : bool, default False
        Whether the factors of its products are rounded to bfloat16.

    Returns
    -------
    scalar
        Differentiable once, in the first two arguments.
    """
    op = partial(ops.full_softmax, threads=threads, bfloat16=bfloat16)
    loss: Tensor = _WithGradients.apply(op, 2, queries, items, targets, weights)
    return loss

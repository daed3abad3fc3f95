"""Training by plain torch, written with care: what a training step is timed against.

Dropout multiplies by bytes that are drawn once a step; attention adds its mask in ``baddbmm``; the softmax goes over
some rows at a time in a buffer that is kept, takes its gradients on the way, and never copies logits; Adam is torch's
fused one. ``bfloat16`` runs the layers under autocast, and rounds the factors of the softmax's products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rsir.config import ModelConfig
from rsir.data.batches import TrainingBatch
from rsir.models.dropout import Dropout

__all__ = ["Plain", "softmax"]

LOGITS = 2**20  # at a time


class _Softmax(torch.autograd.Function):
    """Weighted cross-entropy of targets against rows of a table, and its gradients, some positions at a time.

    ``own`` holds the embeddings of the targets and is empty where the table has their rows; ``hits`` are the places
    (position, row) of the table's rows that are a position's target.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, own: Tensor, table: Tensor, hits: Tensor, weights: Tensor, rounded: bool
    ) -> Tensor:
        apart = len(own) > 0
        positions, rows = len(queries), len(table)
        step = max(64, LOGITS // max(rows, 1))
        grad_queries, grad_table = torch.empty_like(queries), torch.zeros_like(table)
        grad_own = torch.empty_like(own)
        factors = table.bfloat16() if rounded else table
        logits = torch.empty(min(step, positions), rows)
        loss = queries.new_zeros(())
        ends = torch.searchsorted(hits[0], torch.arange(0, positions + step, step)).tolist()
        for number, first in enumerate(range(0, positions, step)):
            part = slice(first, first + step)
            query, weight = queries[part], weights[part, None]
            left = query.bfloat16() if rounded else query
            here = logits[: len(query)]
            if rounded:
                here.copy_(left @ factors.T)
            else:
                torch.mm(left, factors.T, out=here)
            row, column = hits[:, ends[number] : ends[number + 1]]
            row = row - first
            if apart:
                here[row, column] = -torch.inf
                target = (query * own[part]).sum(1, keepdim=True)
                total = torch.logaddexp(here.logsumexp(1, keepdim=True), target)
            else:
                target = here[row, column][:, None]
                total = here.logsumexp(1, keepdim=True)
            loss += (weight * (total - target)).sum()
            here.sub_(total).exp_().mul_(weight)
            pull = weight * (target - total).exp_() - weight
            if not apart:
                here[row, column] = pull[:, 0]
            shares = here.bfloat16() if rounded else here
            if rounded:
                grad_queries[part] = shares @ factors
                grad_table += shares.T @ left
            else:
                torch.mm(shares, factors, out=grad_queries[part])
                grad_table.addmm_(shares.T, left)
            if apart:
                grad_queries[part] += pull * own[part]
                torch.mul(pull, query, out=grad_own[part])
        ctx.save_for_backward(grad_queries, grad_own, grad_table)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.saved_tensors, None, None, None)


def softmax(queries: Tensor, own: Tensor, table: Tensor, hits: Tensor, weights: Tensor, bfloat16: bool) -> Tensor:
    """Weighted cross-entropy, differentiable once in the first three arguments, where what follows is its sum.

    Parameters
    ----------
    queries : (T, d) float32
    own : (T, d) float32
        Embeddings of the targets; (0, d) where the table holds them.
    table : (S, d) float32
    hits : (2, n) int64
        Position and row wherever a row of the table is a position's target, by position; without ``own`` one each.
    weights : (T,) float32
    bfloat16 : bool
        Round the factors of products.
    """
    loss: Tensor = _Softmax.apply(queries, own, table, hits, weights, bfloat16)
    return loss


class Layer(nn.Module):
    """A layer of SASRec, or of BSARec."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.filters = config.heads, config.name == "bsarec"
        self.in_projection = nn.Linear(config.dim, 3 * config.dim)
        self.out_projection = nn.Linear(config.dim, config.dim)
        self.norm1 = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, config.feedforward)
        self.down = nn.Linear(config.feedforward, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)
        if self.filters:
            self.share = config.filter_share
            self.distances = nn.Parameter(torch.empty(config.heads, config.max_len))
            self.beta = nn.Parameter(torch.empty(config.dim))
            self.filter_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, mask: Tensor, distance: Tensor, average: Tensor, dropout: Dropout) -> Tensor:
        rows, width, dim = x.shape
        queries, keys, values = (
            part.view(rows, width, self.heads, -1).transpose(1, 2) for part in self.in_projection(x).chunk(3, -1)
        )
        if self.filters:
            mask = mask + self.distances[:, distance].to(mask.dtype)
        flat = [part.reshape(-1, *part.shape[2:]) for part in (queries, keys.transpose(2, 3), values)]
        bias = mask.expand(rows, self.heads, width, width).reshape(rows * self.heads, width, width)
        scores = torch.baddbmm(bias.to(flat[0].dtype), flat[0], flat[1], alpha=(dim // self.heads) ** -0.5)
        shares = dropout(scores.softmax(-1)).to(flat[2].dtype)
        attended = torch.bmm(shares, flat[2]).view(rows, self.heads, width, -1).transpose(1, 2).flatten(2)
        y = self.norm1(x + dropout(self.out_projection(attended)))
        if self.filters:
            low = torch.bmm(average, x)
            y = self.share * self.filter_norm(x + dropout(low + self.beta**2 * (x - low))) + (1 - self.share) * y
        return self.norm2(y + dropout(self.down(dropout(functional.gelu(self.up(y))))))


class Plain(nn.Module):
    """SASRec or BSARec with the parameters of rsir's by the same names.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    bfloat16 : bool, default False
        Products in bfloat16.
    """

    def __init__(self, config: ModelConfig, num_items: int, bfloat16: bool = False) -> None:
        super().__init__()
        self.config, self.bfloat16 = config, bfloat16
        self.items = nn.Embedding(num_items + 1, config.dim, padding_idx=0)
        self.positions = nn.Embedding(config.max_len, config.dim) if config.name == "sasrec" else None
        self.blocks = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def loss(self, batch: TrainingBatch, negatives: Tensor) -> Tensor:
        config, (rows, width) = self.config, batch.items.shape
        each = config.dim * (1 + 4 * config.layers) + config.layers * (config.feedforward + config.heads * width)
        dropout = Dropout(config.dropout if self.training else 0.0, rows * width * each, torch.device("cpu"))
        place = torch.arange(width)
        distance = (place[:, None] - place).clamp(min=0)
        visible = (batch.segments[:, :, None] == batch.segments[:, None]) & (place[:, None] >= place)
        mask = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)[:, None]
        average = (1 - config.filter_decay) * config.filter_decay**distance * visible
        x = self.items(batch.items)
        x = dropout(x if self.positions is None else x + self.positions(batch.positions))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            for block in self.blocks:
                x = block(x, mask, distance, average, dropout)
        filled = batch.segments.flatten() > 0
        queries, targets = x.float().flatten(0, 1)[filled], batch.targets.flatten()[filled]
        weights = (batch.weights / batch.weights.sum()).flatten()[filled]
        if batch.full:
            hits = torch.stack([torch.arange(len(targets)), targets - 1])
            return softmax(queries, queries[:0], self.items.weight[1:], hits, weights, self.bfloat16)
        order = negatives.argsort()
        inside = torch.isin(targets, negatives).nonzero()[:, 0]
        some = (targets[inside, None] == negatives[order]).nonzero().T
        hits = torch.stack([inside[some[0]], order[some[1]]])
        return softmax(queries, self.items(targets), self.items(negatives), hits, weights, self.bfloat16)

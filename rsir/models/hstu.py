"""HSTU (Zhai et al., 2024, arXiv 2402.17152): attention without softmax, weighed by a gate.

A layer is, element by element where no matrix is named, with silu(x) = x * sigmoid(x)::

    u, q, k, v = silu(f1(norm(x)))
    a = silu(q k' + b) / n          over a position's own past
    x = x + f2(norm(a v) * u)

where n is the longest history and b is learned for every distance between two items. The paper adds a bias for their
distance in time; it is left out here, so that no timestamps are needed. As in the authors' code the item embeddings are
scaled by sqrt(d) and added to those of positions. That code scores by a cosine over a temperature; here a last norm
gives the query and the score is a dot product, as for every backbone.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir.config import ModelConfig
from rsir.models.attention import AttentionBackbone, AttentionBlock, Reach
from rsir.models.dropout import Dropout
from rsir.models.registry import register

__all__ = ["HSTU", "HSTUBlock"]

_EPSILON = 1e-6  # the authors'; their norms have no weights


class HSTUBlock(AttentionBlock):
    """One layer of pointwise aggregated attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.max_len = config.max_len
        self.gate = nn.Linear(config.dim, config.dim)
        self.out_projection = nn.Linear(config.dim, config.dim)
        self.distances = nn.Embedding(config.max_len, 1)

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> Tensor:
        return F.silu(super().project(_norm(x), first, last))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        bias = self.distances.weight[:, 0][reach.distance.clamp(min=0)]
        visible = (reach.mask == 0) * (1 / self.max_len)
        shares = F.silu(queries @ keys.transpose(-1, -2) + bias) * visible
        return (shares @ values).transpose(1, 2).flatten(2)

    def finish(self, x: Tensor, attended: Tensor, dropout: Dropout) -> Tensor:
        gated = _norm(attended) * F.silu(self.gate(_norm(x)))
        return x + self.out_projection(dropout(gated))

    def dropout_elements(self, width: int) -> int:
        return self.out_projection.in_features


@register("hstu")
class HSTU(AttentionBackbone):
    """HSTU without its bias for time.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights as the authors' code does: those of f2 uniform within sqrt(3 / d), other matrices and
        the biases of distances normal(0, 0.02), other biases 0.
    """

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__(config, num_items, generator, HSTUBlock, pre_norm=True)
        bound = math.sqrt(3 / config.dim)
        with torch.no_grad():
            for block in cast("list[HSTUBlock]", self.layers):
                block.out_projection.weight.uniform_(-bound, bound, generator=generator)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=_EPSILON)

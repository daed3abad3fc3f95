"""eSASRec (Tikhonovich et al., 2025, arXiv 2508.06450): SASRec's objective, LiGR layers and a sampled softmax.

The layers come from LiGR (Borisyuk et al., 2025, arXiv 2502.03417); a learned gate scales what each half adds::

    x = x + sigmoid(gate(x)) * attention(norm(x))
    x = x + sigmoid(gate(x)) * down(silu(a) * b)    with a, b = up(norm(x))

The authors' code draws initial weights as here, but neither scales the item embeddings that the first layer reads nor
norms the query. Without these, trainings of a few hundred steps did not get beyond popularity.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir.config import ModelConfig
from rsir.models.attention import AttentionBackbone, AttentionBlock
from rsir.models.dropout import Dropout
from rsir.models.registry import register

__all__ = ["ESASRec", "LiGRBlock"]


class LiGRBlock(AttentionBlock):
    """One LiGR layer: pre-norm, gated attention and a gated SwiGLU feed-forward net without biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.norm1 = nn.LayerNorm(config.dim)
        self.out_projection = nn.Linear(config.dim, config.dim)
        self.attention_gate = nn.Linear(config.dim, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, 2 * config.feedforward, bias=False)
        self.down = nn.Linear(config.feedforward, config.dim, bias=False)
        self.feedforward_gate = nn.Linear(config.dim, config.dim)

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> Tensor:
        return super().project(self.norm1(x), first, last)

    def finish(self, x: Tensor, attended: Tensor, dropout: Dropout) -> Tensor:
        x = x + torch.sigmoid(self.attention_gate(x)) * dropout(self.out_projection(attended))
        a, b = self.up(self.norm2(x)).chunk(2, dim=-1)
        added = dropout(self.down(dropout(F.silu(a) * b)))
        return x + torch.sigmoid(self.feedforward_gate(x)) * added

    def dropout_elements(self, width: int) -> int:
        return 2 * self.down.out_features + self.down.in_features + self.heads * width


@register("esasrec")
class ESASRec(AttentionBackbone):
    """eSASRec.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights: embeddings normal(0, 0.02), matrices normal(0, sqrt(2 / (rows + columns))), biases 0.
    """

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__(config, num_items, generator, LiGRBlock, pre_norm=True)
        with torch.no_grad():
            for parameter in self.blocks.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, math.sqrt(2 / sum(parameter.shape)), generator=generator)

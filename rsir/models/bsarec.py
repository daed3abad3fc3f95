"""BSARec (Shin et al., AAAI 2024, arXiv 2312.10325): beside attention, a fixed low-pass filter of a layer's input.

With s the filter's share, D for dropout and beta learned, a layer is::

    f = low + beta^2 (x - low)
    y = s norm(x + D(f)) + (1 - s) norm1(x + D(out(attention)))
    norm2(y + D(down(D(gelu(up(y))))))

The paper's filter keeps the lowest frequencies of a whole padded history, and so reads what comes after a position;
every prefix must then be a sample of its own. Here it is causal, an exponential average of what came so far::

    low[t] = decay low[t - 1] + (1 - decay) x[t]

One pass trains all prefixes, and a history grows by an item in O(d). In place of learned positions, attention learns a
bias for every distance between two items, layer by layer and head by head, as in HSTU. Embeddings are not normed.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir import ops
from rsir.config import ModelConfig
from rsir.models.attention import Reach
from rsir.models.dropout import Dropout
from rsir.models.registry import register
from rsir.models.sasrec import Block, SASRec
from rsir.models.stepping import KeyValueState

__all__ = ["BSARec", "BSARecBlock"]


class BSARecBlock(Block):
    """SASRec's layer with a bias for distances, and the filter mixed into what follows attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.share, self.decay = config.filter_share, config.filter_decay
        self.distances = nn.Parameter(torch.empty(config.heads, config.max_len))
        self.beta = nn.Parameter(torch.empty(config.dim))
        self.filter_norm = nn.LayerNorm(config.dim)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        distance = reach.distance.clamp(min=0)  # (Q, K), or (B, 1, 1, K)
        bias = self.distances[:, distance] if distance.ndim == 2 else self.distances[:, distance[:, 0]].transpose(0, 1)
        return super().attend(queries, keys, values, Reach(reach.mask + bias, distance), dropout)

    def low_pass(self, x: Tensor, reach: Reach) -> Tensor:
        """The exponential average of x (B, K, d) at every query, (B, Q, d)."""
        shares = self.decay ** reach.distance.clamp(min=0).to(x.dtype) * (reach.mask == 0) * (1 - self.decay)
        return (shares[:, 0] if shares.ndim == 4 else shares) @ x

    def mix(self, x: Tensor, low: Tensor, attended: Tensor, dropout: Dropout) -> Tensor:
        """The layer's output from its input, the average of that and what attention gathered, all (B, Q, d)."""
        y = self.norm1(x + dropout(self.out_projection(attended)))
        filtered = low + self.beta**2 * (x - low)
        y = self.share * self.filter_norm(x + dropout(filtered)) + (1 - self.share) * y
        hidden = dropout(F.gelu(self.up(y)))
        return self.norm2(y + dropout(self.down(hidden)))

    def dropout_elements(self, width: int) -> int:
        return super().dropout_elements(width) + self.up.in_features

    def dropout_shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        attention, out, *others = super().dropout_shapes(width).items()
        return dict([attention, out, ("low", out[1]), *others])

    def parameters_of_op(self) -> ops.LayerParameters:
        norm = self.filter_norm
        own = ops.LayerFilter(self.distances, self.beta, norm.weight, norm.bias, self.share, self.decay)
        return super().parameters_of_op()._replace(filter=own)

    def forward(self, x: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        queries, keys, values = self.project(x).unbind(0)
        attended = self.attend(queries, keys, values, reach, dropout)
        return self.mix(x, self.low_pass(x, reach), attended, dropout)

    def at_last(self, x: Tensor, lengths: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        last = x[torch.arange(x.shape[0], device=x.device), lengths - 1, None]
        queries = self.project(last, 0, 1)[0]
        keys, values = self.project(x, 1, 3).unbind(0)
        attended = self.attend(queries, keys, values, reach, dropout)
        return self.mix(last, self.low_pass(x, reach), attended, dropout)


@register("bsarec")
class BSARec(SASRec):
    """BSARec with a causal filter, trained by one fused op a layer.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights: normal(0, 0.02), biases of linear maps and norms 0.
    """

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__(config, num_items, generator, BSARecBlock, positions=False)
        with torch.no_grad():
            for block in self._blocks:
                block.beta.normal_(0, 0.02, generator=generator)

    @property
    def _blocks(self) -> list[BSARecBlock]:
        return cast("list[BSARecBlock]", self.layers)

    def new_state(self, slots: int) -> KeyValueState:
        """State for extending this many sequences: SASRec's, and 4 * layers * dim bytes a slot."""
        return KeyValueState(self.config, slots, self.items.weight.device, filtered=True)

    def finish_step(self, number: int, x: Tensor, attended: Tensor, state: KeyValueState, slots: Tensor) -> Tensor:
        block, kept = self._blocks[number], cast(Tensor, state.low)[number]
        before = torch.where(state.lengths[slots, None] > 0, kept[slots], 0.0)
        low = block.decay * before + (1 - block.decay) * x[:, 0]
        kept[slots] = low
        return block.mix(x, low[:, None], attended, Dropout(0.0, 0, x.device))

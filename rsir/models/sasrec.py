"""SASRec (Kang and McAuley, 2018) as the RSIR authors configure it: a causal Transformer over a user's items."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir import ops
from rsir.config import ModelConfig
from rsir.models.attention import AttentionBackbone, AttentionBlock
from rsir.models.dropout import Dropout
from rsir.models.registry import register
from rsir.models.stepping import KeyValueState, lengths_after

__all__ = ["SASRec"]


class Block(AttentionBlock):
    """One post-norm Transformer layer: attention, then a GELU feed-forward net."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.out_projection = nn.Linear(config.dim, config.dim)
        self.norm1 = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, config.feedforward)
        self.down = nn.Linear(config.feedforward, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)

    def finish(self, x: Tensor, attended: Tensor, dropout: Dropout) -> Tensor:
        x = self.norm1(x + dropout(self.out_projection(attended)))
        hidden = dropout(F.gelu(self.up(x)))
        return self.norm2(x + dropout(self.down(hidden)))

    def dropout_elements(self, width: int) -> int:
        return 2 * self.up.in_features + self.up.out_features + self.heads * width

    def parameters_of_op(self) -> ops.LayerParameters:
        linears = (self.in_projection, self.out_projection, self.norm1, self.up, self.down, self.norm2)
        values = [value for linear in linears for value in (linear.weight, linear.bias)]
        return ops.LayerParameters._make([*values, None])

    def dropout_shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """What a row of a packed batch drops, in the order in which it is drawn; names are those of the op's bytes."""
        wide = (width, self.up.in_features)
        hidden = (width, self.up.out_features)
        return {"attention": (self.heads, width, width), "out": wide, "hidden": hidden, "down": wide}

    def packed(self, x: Tensor, segments: Tensor, dropout: Dropout, threads: int | None) -> Tensor:
        """The layer over a packed batch, (R, W, d), within each segment of (R, W) alone: one fused op."""
        rows, width, _ = x.shape
        parameters = self.parameters_of_op()
        random = None
        if dropout.dropped:
            shapes = self.dropout_shapes(width).items()
            random = ops.LayerDropout(dropout.dropped, **{name: dropout.take(rows, *shape) for name, shape in shapes})
        return ops.transformer_layer(
            x, segments, parameters, heads=self.heads, epsilon=self.norm1.eps, dropout=random, threads=threads
        )


@register("sasrec")
class SASRec(AttentionBackbone):
    """SASRec: post-norm layers, trained by one fused op each.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights: normal(0, 0.02), biases 0.
    block : callable, optional
        Makes a layer from the config.
    positions : bool, default True
        As of :class:`rsir.models.attention.AttentionBackbone`.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_items: int,
        generator: torch.Generator,
        block: Callable[[ModelConfig], Block] = Block,
        positions: bool = True,
    ) -> None:
        super().__init__(config, num_items, generator, block, positions=positions)

    def packed_layers(self, x: Tensor, segments: Tensor, dropout: Dropout, times: Tensor | None = None) -> Tensor:
        for block in cast("list[Block]", self.layers):
            x = block.packed(x, segments, dropout, self.threads)
        return x

    def encode_histories(self, histories: ops.Ragged) -> Tensor | None:
        """Queries without padding, by one fused op; see :class:`rsir.models.HistoryBackbone`."""
        if not self._fused:
            return None
        return ops.encode_histories(histories, *self._of_op(), heads=self.config.heads, threads=self.threads)

    def step(self, state: KeyValueState, slots: Tensor, items: Tensor) -> Tensor:
        if not self._fused:
            return super().step(state, slots, items)
        lengths = lengths_after(self, state, slots, self.max_len)
        table, positions, layers = self._of_op()
        queries = ops.extend_histories(
            slots,
            items,
            lengths - 1,
            state.keys,
            state.values,
            table,
            positions,
            layers,
            heads=self.config.heads,
            low=state.low,
            threads=self.threads,
        )
        state.lengths[slots] = lengths
        return queries

    @property
    def _fused(self) -> bool:
        return self.items.weight.device.type == "cpu" and self.items.weight.dtype == torch.float32

    def _of_op(self) -> tuple[Tensor, Tensor | None, list[ops.LayerParameters]]:
        layers = [block.parameters_of_op() for block in cast("list[Block]", self.layers)]
        return self.items.weight, None if self.positions is None else self.positions.weight, layers

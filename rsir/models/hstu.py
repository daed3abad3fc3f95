"""HSTU (Zhai et al., 2024, arXiv 2402.17152): attention without softmax, weighed by a gate.

A layer is, element by element where no matrix is named, with silu(x) = x * sigmoid(x)::

    u, q, k, v = silu(f1(norm(x)))
    a = silu(q k' + b) / n          over a position's own past
    x = x + f2(norm(a v) * u)

where n is the longest history and b is learned for every distance between two items. Where the data have times, a part
of b is learned for the time between an item and the event after the query's, in 129 buckets of its logarithm. As in the
authors' code the item embeddings are scaled by sqrt(d) and added to those of positions. That code scores by a cosine
over a temperature; here a last norm gives the query and the score is a dot product, as for every backbone.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsir.config import ModelConfig
from rsir.errors import BackboneError
from rsir.models.attention import AttentionBackbone, AttentionBlock, Reach
from rsir.models.dropout import Dropout
from rsir.models.registry import register
from rsir.models.stepping import KeyValueState
from rsir.models.times import BUCKETS, checked, spaced

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
        self.times = nn.Embedding(BUCKETS + 1, 1) if config.times == "on" else None

    def project(self, x: Tensor, first: int = 0, last: int = 3) -> Tensor:
        return F.silu(super().project(_norm(x), first, last))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, reach: Reach, dropout: Dropout) -> Tensor:
        bias = self.distances.weight[:, 0][reach.distance.clamp(min=0)]
        if self.times is not None and reach.bucket is not None:
            bias = bias + self.times(reach.bucket)[..., 0]
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
    """HSTU.

    Parameters
    ----------
    config : ModelConfig
        Of its ``times`` only "on" gives it a bias for time; "auto" is decided by who has the data.
    num_items : int
    generator : torch.Generator
        Draws the initial weights as the authors' code does: those of f2 uniform within sqrt(3 / d), other matrices and
        the biases of distances and times normal(0, 0.02), other biases 0.

    Attributes
    ----------
    gap : () int64
        With a bias for time: what lies between two items whose times are not known, as of a history typed by hand; set
        by training to the usual gap of its data (:func:`rsir.models.times.usual_gap`).
    """

    uses_times = True
    gap: Tensor

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__(config, num_items, generator, HSTUBlock, pre_norm=True)
        self.uses_times = config.times == "on"
        if self.uses_times:
            self.register_buffer("gap", torch.zeros((), dtype=torch.int64))
        bound = math.sqrt(3 / config.dim)
        with torch.no_grad():
            for block in cast("list[HSTUBlock]", self.layers):
                block.out_projection.weight.uniform_(-bound, bound, generator=generator)

    def clock(self, times: Tensor | None, rows: int, width: int) -> Tensor:
        if times is None:
            return spaced(self.gap, width).expand(rows, -1)
        return checked(times, (rows, width + 1), self)

    def new_state(self, slots: int) -> KeyValueState:
        """State for extending this many sequences; with a bias for time, 8 * (max_len + 1) bytes a slot more."""
        return KeyValueState(self.config, slots, self.items.weight.device, timed=self.uses_times)

    def step(self, state: KeyValueState, slots: Tensor, items: Tensor, times: Tensor | None = None) -> Tensor:
        if state.clock is not None:
            place = state.lengths[slots, None] + torch.arange(2, device=slots.device)
            place = place.clamp(max=self.max_len)  # who steps a full slot is told so
            state.clock[slots[:, None], place] = self.gap * place if times is None else times
        return super().step(state, slots, items)

    def step_all(self, state: KeyValueState, items: Tensor, at: Tensor) -> Tensor:
        if self.uses_times:
            raise BackboneError("HSTU with model.times on is stepped by step: step_all knows no times")
        return super().step_all(state, items, at)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=_EPSILON)

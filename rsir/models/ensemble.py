"""Several backbones as one that ranks by the mean of their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsir import ops
from rsir.data.ragged import Ragged
from rsir.errors import BackboneError
from rsir.models.encoding import encode_sequences
from rsir.models.protocol import Backbone, IncrementalBackbone, PrefixBackbone, State, require
from rsir.models.times import given, uses_times

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Rank by the mean of the members' log-probabilities, as one backbone.

    A member's log-probability of an item is its logit less a constant of the history, and constants change no rank.
    The mean of logits is one dot product, of the members' queries and of their item embeddings laid side by side. So
    an ensemble is a backbone as any other: the ops score it, check fidelity and draw from it in one pass. Its logits
    are the mean log-probabilities but for that constant, which a softmax over them takes away, too.

    Parameters
    ----------
    members : sequence of Backbone
        At least one, over one catalogue; put into evaluation mode, weights shared and not copied. The ensemble steps if
        all of them do.

    Attributes
    ----------
    max_len : int
        The shortest of the members'.

    Raises
    ------
    BackboneError
        No member, or members of different catalogues.
    """

    def __init__(self, members: Sequence[Backbone]) -> None:
        super().__init__()
        if not members:
            raise BackboneError("members: expected at least one backbone, got none")
        for member in members:
            require(member, Backbone)
        sizes = [member.num_items for member in members]
        if len(set(sizes)) > 1:
            raise BackboneError(f"members: expected one catalogue, got catalogues of {sizes} items")
        self.members: list[Any] = list(members)
        self.networks = nn.ModuleList(member for member in members if isinstance(member, nn.Module))
        self.num_items = sizes[0]
        self.max_len = min(member.max_len for member in members)
        self.uses_times = any(uses_times(member) for member in members)
        if not self.uses_times:  # one that does encodes tiles, which have times
            self.encode_histories = self._encode_histories
        if all(isinstance(member, IncrementalBackbone) for member in members):
            self.new_state, self.step = self._new_state, self._step
        if all(isinstance(member, PrefixBackbone) for member in members):
            self.encode_prefixes = self._encode_prefixes
        self.eval()

    def encode(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """Query after each history; see :class:`rsir.models.Backbone`. (B, sum of the members' d)"""
        queries = [member.encode(items, lengths, **given(member, times)) for member in self.members]
        return torch.cat(queries, 1) / len(self.members)

    def _encode_histories(self, histories: ops.Ragged) -> Tensor:
        """Query after each history, each member in its own fastest way; see :class:`rsir.models.HistoryBackbone`."""
        lists = Ragged(histories.ids.numpy(), histories.offsets.numpy())
        if any(member.max_len > self.max_len for member in self.members):
            lengths = np.minimum(lists.lengths, self.max_len)
            lists = Ragged.windows(lists.values, lists.offsets[1:] - lengths, lengths)
        return torch.cat([encode_sequences(member, lists) for member in self.members], 1) / len(self.members)

    def _encode_prefixes(self, sequences: ops.Ragged, times: Tensor | None = None) -> Tensor:
        queries = [member.encode_prefixes(sequences, **given(member, times)) for member in self.members]
        return torch.cat(queries, 1) / len(self.members)

    def item_embeddings(self) -> Tensor:
        """(N + 1, sum of the members' d) float32; row 0 is zero."""
        return torch.cat([member.item_embeddings() for member in self.members], 1)

    def _new_state(self, slots: int) -> EnsembleState:
        return EnsembleState([member.new_state(slots) for member in self.members])

    def _step(self, state: EnsembleState, slots: Tensor, items: Tensor, times: Tensor | None = None) -> Tensor:
        steps = zip(self.members, state.states, strict=True)
        queries = [member.step(its, slots, items, **given(member, times)) for member, its in steps]
        return torch.cat(queries, 1) / len(self.members)


class EnsembleState:
    """The members' states, side by side."""

    def __init__(self, states: list[State]) -> None:
        self.states = states

    def reset(self, slots: Tensor) -> None:
        """Empty these slots, (n,) int64."""
        for state in self.states:
            state.reset(slots)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Let each target slot, (n,) int64, hold what its source slot holds; no target is a source."""
        for state in self.states:
            state.copy(sources, targets)

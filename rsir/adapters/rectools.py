"""RecTools' SASRec as a backbone (written against RecTools 0.19)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rsir.adapters.base import Adapter, check_scores
from rsir.errors import BackboneError

__all__ = ["from_rectools"]


def from_rectools(model: Any) -> Adapter:
    """A fitted ``rectools.models.SASRecModel`` as a backbone.

    Its catalogue is the items it was fitted on, under their external ids, in the order of RecTools' internal ones.
    Histories are padded on the left to the model's ``session_max_len``, as it pads them itself.

    Parameters
    ----------
    model : rectools.models.SASRecModel
        Or another causal transformer of RecTools whose only extra token is the padding. Dot and cosine similarity.

    Raises
    ------
    BackboneError
        It is not fitted, is no transformer (ALS), needs times (HSTU by default), uses other extra tokens (BERT4Rec), or
        does not score by dot products.
    """
    name = type(model).__name__
    if not getattr(model, "is_fitted", False):
        raise BackboneError(f"{name}: expected a fitted model of RecTools; call fit(dataset) on it first")
    if not hasattr(model, "data_preparator") or not hasattr(model, "torch_model"):
        raise BackboneError(f"{name}: no transformer of RecTools; {_HINT}")
    preparator, network = model.data_preparator, model.torch_model
    if preparator.n_item_extra_tokens != 1:
        raise BackboneError(f"{name}: expected a causal model whose only extra token is the padding, got "
                            f"{preparator.n_item_extra_tokens} extra tokens")  # fmt: skip
    labels = preparator.item_id_map.get_external_sorted_by_internal()[1:]
    cosine = str(getattr(network.similarity_module, "distance", "dot")).lower().endswith("cosine")
    with torch.no_grad():
        table = network.eval().item_model.get_all_embeddings()
    return _RecTools(f"RecTools {name}", network, list(labels), table, preparator.session_max_len, cosine)


_HINT = "give a fitted SASRecModel, or an HSTUModel made with relative_time_attention=False"


class _RecTools(Adapter):
    def __init__(self, name: str, network: Any, labels: list[Any], table: Tensor, max_len: int, cosine: bool) -> None:
        super().__init__(network, labels, table, max_len)
        self.inputs, self.cosine = table.detach().clone(), cosine
        if cosine:
            self.item_table = F.normalize(self.item_table, dim=1, eps=1e-8)
        check_scores(self, self._own_scores, name, _HINT)

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        table = self.inputs.to(items.device)
        network: Any = self.network
        query: Tensor = network.encode_sessions({"x": self._left(items, lengths)}, table)[:, -1]
        return F.normalize(query, dim=1, eps=1e-8) if self.cosine else query

    def _left(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Padding moved from the right to the left, (B, max_len)."""
        place = torch.arange(self.max_len, device=items.device) - (self.max_len - lengths[:, None])
        moved = items.gather(1, place.clamp(min=0))
        return torch.where(place >= 0, moved, 0)

    def _own_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        scores: Tensor = self.network({"x": self._left(items, lengths)})[:, -1, 1:]
        return scores

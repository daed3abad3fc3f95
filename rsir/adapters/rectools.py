"""RecTools' SASRec and HSTU as backbones (written against RecTools 0.19)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rsir.adapters.base import Adapter, check_scores
from rsir.errors import BackboneError

__all__ = ["from_rectools"]


def from_rectools(model: Any, *, per_second: int = 1) -> Adapter:
    """A fitted ``rectools.models.SASRecModel`` or ``HSTUModel`` as a backbone.

    Its catalogue is the items it was fitted on, under their external ids, in the order of RecTools' internal ones.
    Histories are padded on the left to the model's ``session_max_len``, as it pads them itself.

    Parameters
    ----------
    model : rectools.models.SASRecModel
        Or another causal transformer of RecTools whose only extra token is the padding. Dot and cosine similarity. One
        that attends to times, as its HSTU does by default, uses those of the data; items of histories without times
        are taken to have come a day apart.
    per_second : int, default 1
        How many of the units of the data's times a second has, as RecTools counts seconds: 1,000,000 where rsir has
        read dates.

    Raises
    ------
    BackboneError
        It is not fitted, is no transformer (ALS), uses other extra tokens (BERT4Rec), or does not score by dot
        products; or ``per_second`` is no whole number of at least 1.
    """
    if isinstance(per_second, bool) or not isinstance(per_second, int) or per_second < 1:
        raise BackboneError(f"per_second: expected a whole number of at least 1, got {per_second!r}")
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
    own = _RecTools if not getattr(preparator, "add_unix_ts", False) else partial(_Timed, per_second=per_second)
    return own(f"RecTools {name}", network, list(labels), table, preparator.session_max_len, cosine)


_HINT = "give a fitted SASRecModel or HSTUModel"
_DAY = 86_400


class _RecTools(Adapter):
    uses_times = False

    def __init__(self, name: str, network: Any, labels: list[Any], table: Tensor, max_len: int, cosine: bool) -> None:
        super().__init__(network, labels, table, max_len)
        self.inputs, self.cosine = table.detach().clone(), cosine
        if cosine:
            self.item_table = F.normalize(self.item_table, dim=1, eps=1e-8)
        check_scores(self, self._own_scores, name, _HINT)

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        return self._queries(self._batch(items, lengths))

    def _queries(self, batch: dict[str, Tensor]) -> Tensor:
        network: Any = self.network
        query: Tensor = network.encode_sessions(batch, self.inputs.to(batch["x"].device))[:, -1]
        return F.normalize(query, dim=1, eps=1e-8) if self.cosine else query

    def _batch(self, items: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return {"x": self._left(items, lengths, self.max_len)}

    def _left(self, values: Tensor, lengths: Tensor, width: int) -> Tensor:
        """Padding moved from the right to the left, (B, width)."""
        place = torch.arange(width, device=values.device) - (self.max_len - lengths[:, None])
        moved = values.gather(1, place.clamp(min=0))
        return torch.where(place >= 0, moved, 0)

    def _own_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        scores: Tensor = self.network(self._batch(items, lengths))[:, -1, 1:]
        return scores


class _Timed(_RecTools):
    """One that attends to times."""

    uses_times = True

    def __init__(self, *arguments: Any, per_second: int) -> None:
        self.per_second = per_second
        super().__init__(*arguments)

    def encode(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        return self._queries(self._batch(items, lengths, times))

    def _batch(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> dict[str, Tensor]:
        if times is None:
            apart = torch.arange(items.shape[1] + 1, device=items.device)
            times = apart.expand(len(items), -1) * _DAY * self.per_second
        seconds = torch.div(times, self.per_second, rounding_mode="floor")
        return super()._batch(items, lengths) | {"unix_ts": self._left(seconds, lengths, self.max_len + 1)}

"""RecBole's SASRec as a backbone (written against RecBole 1.2.1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rsir.adapters.base import Adapter, check_scores
from rsir.errors import BackboneError

__all__ = ["from_recbole"]


def from_recbole(model: Any, dataset: Any) -> Adapter:
    """A trained ``recbole.model.sequential_recommender.SASRec`` as a backbone.

    Its catalogue is the items of the dataset, under their tokens (text), in the order of RecBole's ids.

    Parameters
    ----------
    model : recbole SASRec
        Or another sequential model with ``forward(item_seq, item_seq_len)`` and tied item embeddings.
    dataset : recbole.data.dataset.Dataset
        That it was built for.

    Raises
    ------
    BackboneError
        The two do not belong together, or the model does not score by dot products.
    """
    name = f"RecBole {type(model).__name__}"
    missing = [part for part in ("forward", "item_embedding", "max_seq_length", "ITEM_SEQ") if not hasattr(model, part)]
    if missing:
        raise BackboneError(f"{name}: lacks {', '.join(missing)}; {_HINT}")
    tokens = dataset.field2id_token[dataset.iid_field]
    if len(tokens) != model.n_items:
        raise BackboneError(
            f"{name}: has {model.n_items} items with the padding, but the dataset has {len(tokens)}: give the dataset "
            "that the model was built for"
        )
    labels = [str(token) for token in tokens[1:]]
    adapter = _RecBole(model, labels, model.item_embedding.weight[: len(tokens)], int(model.max_seq_length))
    check_scores(adapter, adapter.own_scores, name, _HINT)
    return adapter


_HINT = "give a sequential model with forward(item_seq, item_seq_len): SASRec, GRU4Rec, NARM, STAMP or LightSANs"


class _RecBole(Adapter):
    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        query: Tensor = self.network(items, lengths)
        return query

    def own_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        network: Any = self.network
        interaction = {network.ITEM_SEQ: items, network.ITEM_SEQ_LEN: lengths}
        scores: Tensor = network.full_sort_predict(interaction).view(len(items), -1)[:, 1:]
        return scores

"""A causal transformer of Hugging Face over item ids as a backbone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rsir.adapters.base import Adapter, check_scores
from rsir.errors import BackboneError

__all__ = ["from_huggingface"]


def from_huggingface(model: Any, item_labels: Any = None, *, tokens: Any = None, max_len: int | None = None) -> Adapter:
    """A causal language model over items, such as ``transformers.GPT2LMHeadModel``, as a backbone.

    The query is the last hidden state of a history and the item embeddings are the rows of the output layer (of the
    input embeddings where there is none). An output bias is kept as one more dimension, at which queries are 1.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    item_labels : sequence of str or int, optional
        Outside names of the items; default: their numbers 1..N.
    tokens : (N,) int, optional
        Token of each item in the model's vocabulary; default: item i is token i (and token 0 padding), for every token
        of the vocabulary or, with labels, as many as there are.
    max_len : int, optional
        Default: the positions that the model's configuration has.

    Raises
    ------
    BackboneError
        Tokens outside of the vocabulary or named twice, as many labels as tokens are not there, no known number of
        positions, or scores that are not dot products.
    """
    name = f"Hugging Face {type(model).__name__}"
    output = model.get_output_embeddings()
    embeddings = model.get_input_embeddings() if output is None else output
    vocabulary = len(embeddings.weight)
    if tokens is None:
        tokens = range(1, vocabulary if item_labels is None else len(item_labels) + 1)
    token_of = torch.as_tensor(tokens, dtype=torch.int64) if not isinstance(tokens, range) else torch.tensor(tokens)
    if len(token_of) == 0 or token_of.min() < 0 or token_of.max() >= vocabulary:
        raise BackboneError(f"{name}: expected tokens in 0..{vocabulary - 1}, its vocabulary, got {len(token_of)} "
                            f"tokens up to {int(token_of.max()) if len(token_of) else 0}")  # fmt: skip
    if len(token_of.unique()) < len(token_of):
        raise BackboneError(f"{name}: expected a token of its own for each item, got one twice")
    labels = list(range(1, len(token_of) + 1)) if item_labels is None else list(item_labels)
    if len(labels) != len(token_of):
        raise BackboneError(f"{name}: expected a label for each of the {len(token_of)} tokens, got {len(labels)}")
    if max_len is None:
        max_len = getattr(model.config, "max_position_embeddings", None)
        if max_len is None:
            raise BackboneError(f"{name}: its configuration has no max_position_embeddings; give max_len")
    adapter = _HuggingFace(model, labels, embeddings, token_of, max_len)
    if output is not None:
        check_scores(adapter, adapter.own_scores, name, "give a causal language model over item ids")
    return adapter


class _HuggingFace(Adapter):
    token_of: Tensor

    def __init__(self, network: Any, labels: list[Any], embeddings: Any, tokens: Tensor, max_len: int) -> None:
        table = embeddings.weight.detach()[tokens.to(embeddings.weight.device)]
        bias: Any = getattr(embeddings, "bias", None)
        if bias is not None:
            table = torch.cat([table, bias.detach()[tokens.to(bias.device), None]], 1)
        super().__init__(network, labels, F.pad(table, (0, 0, 1, 0)), max_len)
        self.biased = bias is not None
        self.register_buffer("token_of", F.pad(tokens, (1, 0)).to(table.device))

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        network: Any = self.network
        hidden = network.base_model(**self._inputs(items, lengths)).last_hidden_state
        rows = torch.arange(items.shape[0], device=items.device)
        query: Tensor = hidden[rows, lengths - 1].float()
        return F.pad(query, (0, 1), value=1.0) if self.biased else query

    def own_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        rows = torch.arange(items.shape[0], device=items.device)
        logits: Tensor = self.network(**self._inputs(items, lengths)).logits[rows, lengths - 1]
        return logits[:, self.token_of[1:]]

    def _inputs(self, items: Tensor, lengths: Tensor) -> dict[str, Any]:
        mask = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
        return {"input_ids": self.token_of[items], "attention_mask": mask.long(), "use_cache": False}

"""Models that cannot be adapted are refused by name; stand-ins of what RecTools and RecBole have."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rsir.adapters import from_recbole, from_rectools
from rsir.errors import BackboneError


class ImplicitALSWrapperModel:
    is_fitted = True


class HSTUModel:
    """Fitted, and its network reads times that a history of ids does not have."""

    is_fitted = True

    def __init__(self):
        table = torch.randn(4, 2)
        external = SimpleNamespace(get_external_sorted_by_internal=lambda: np.array(["PAD", "a", "b", "c"]))
        self.data_preparator = SimpleNamespace(n_item_extra_tokens=1, item_id_map=external, session_max_len=5)
        self.torch_model = nn.Module()
        self.torch_model.item_model = SimpleNamespace(get_all_embeddings=lambda: table)
        self.torch_model.similarity_module = SimpleNamespace(distance="dot")
        self.torch_model.encode_sessions = lambda batch, _: table[batch["x"]] + batch["unix_ts"]


class BERT4Rec(nn.Module):
    """Its forward takes no lengths."""

    ITEM_SEQ, ITEM_SEQ_LEN, n_items, max_seq_length = "seq", "len", 4, 5

    def __init__(self):
        super().__init__()
        self.item_embedding = nn.Embedding(5, 2)

    def forward(self, item_seq):
        return self.item_embedding(item_seq)


class Pop(nn.Module):
    pass


DATASET = SimpleNamespace(field2id_token={"item_id": np.array(["[PAD]", "a", "b", "c"])}, iid_field="item_id")


def test_rectools_without_a_network():
    with pytest.raises(
        BackboneError, match="ImplicitALSWrapperModel: no transformer of RecTools; give a fitted SASRecM"
    ):
        from_rectools(ImplicitALSWrapperModel())


def test_rectools_that_needs_times_and_does_not_say_so():
    with pytest.raises(BackboneError, match=r"HSTUModel: does not .* ids alone \(KeyError: 'unix_ts'\); give a fitted"):
        from_rectools(HSTUModel())


def test_recbole_without_lengths():
    with pytest.raises(BackboneError, match=r"BERT4Rec: does not .* ids alone \(TypeError: .*\); give .*GRU4Rec"):
        from_recbole(BERT4Rec(), DATASET)


def test_recbole_without_histories():
    with pytest.raises(BackboneError, match="Pop: lacks item_embedding, max_seq_length, ITEM_SEQ; give a sequential"):
        from_recbole(Pop(), DATASET)

"""A model of one's own that breaks the protocol is refused before any work, in words that say what to change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rsir
from rsir.errors import BackboneError, DataError
from rsir.models import check_backbone

ROWS = [[1, 2, 3, 4], [2, 3, 5, 4], [5, 1, 2, 3]]


class Mean(nn.Module):
    """Query: the mean of the history's embeddings."""

    def __init__(self, num_items=5, rows=6):
        super().__init__()
        self.num_items, self.max_len = num_items, 10
        self.table = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))

    def item_embeddings(self):
        return self.table

    def encode(self, items, lengths):
        return self.table[items].sum(1) / lengths[:, None]


def changed(name, value):
    """A class whose member is another."""
    return type("Mine", (Mean,), {name: value})


WRONG = {
    "one query a place": (changed("encode", lambda self, items, _: self.table[items]), r"got \(2, 2, 4\); take each"),
    "NumPy": (changed("encode", lambda self, items, _: self.table[items].mean(1).numpy()), "got ndarray; use torch"),
    "float64": (changed("encode", lambda self, items, _: self.table[items].mean(1).double()), r"\.float\(\)"),
    "NaN": (changed("encode", lambda self, items, _: self.table[items].mean(1) / 0), "not finite"),
    "narrow": (changed("encode", lambda self, items, _: self.table[items, :3].mean(1)), r"\(2, 4\) here, got \(2, 3\)"),
    "no lengths": (changed("encode", lambda self, items: self.table[items].mean(1)), "positional argument"),
    "no padding row": (lambda: Mean(rows=5), r"expected 6 rows.*got 5; put a row of zeros"),
    "another catalogue": (lambda: Mean(rows=9), "expected 6 rows, got 9"),
    "table of NumPy": (changed("item_embeddings", lambda self: self.table.numpy()), "got ndarray"),
    "table of NaN": (changed("item_embeddings", lambda self: self.table / 0), "not finite"),
    "flat table": (changed("item_embeddings", lambda self: self.table.flatten()), r"got \(24,\)"),
    "nothing": (object, "lacks num_items, max_len, encode, item_embeddings"),
}


@pytest.mark.parametrize(("model", "message"), WRONG.values(), ids=list(WRONG))
@pytest.mark.parametrize(
    "use", [rsir.enrich, lambda data, model: rsir.evaluate(model, data)], ids=["enrich", "evaluate"]
)
def test_refused(use, model, message):
    with pytest.raises(BackboneError, match=message):
        use(rsir.Sequences.from_lists(ROWS, 5), model())


@pytest.mark.parametrize("value", ["10", 0, 2.5, True, None])
@pytest.mark.parametrize("attribute", ["num_items", "max_len"])
def test_sizes(attribute, value):
    model = Mean()
    setattr(model, attribute, value)
    with pytest.raises(BackboneError, match=rf"Mean.{attribute}: expected an int of at least 1, got {value!r}"):
        check_backbone(model)


def test_nothing_is_left_changed():
    model = Mean()
    model.drop = nn.Dropout(0.5)
    model.train()
    state = torch.get_rng_state()
    check_backbone(model)
    assert model.training
    assert model.drop.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("data", [ROWS, "log.csv", None, {"user": [1]}], ids=str)
def test_data_that_are_no_sequences(data):
    with pytest.raises(DataError, match=f"expected Sequences.*got {type(data).__name__}; read a frame by rsir.from_fr"):
        rsir.enrich(data, Mean())


def test_data_of_another_catalogue():
    with pytest.raises(DataError, match=r"expected the 5 items of Mean, got a catalogue of 7.*align"):
        rsir.enrich(rsir.Sequences.from_lists(ROWS, 7), Mean())

"""What every adapter must do, whichever library its model is from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

import rsir
from rsir.config import FidelityConfig, GenerationConfig
from rsir.data import EvaluationSet, Sequences
from rsir.data.ragged import Ragged
from rsir.errors import DataError, DataWarning
from rsir.models import Backbone, encode_sequences


def log(users=60, items=30, seed=0):
    """Users who walk through a ring of items; enough for a model of any library to learn something."""
    random = np.random.default_rng([seed])
    rows = [[(int(random.integers(items)) + step) % items + 1 for step in range(random.integers(4, 9))]
            for _ in range(users - items)]  # fmt: skip
    rows += [[(start + step) % items + 1 for step in range(4)] for start in range(items)]  # every item occurs
    labels = pa.array([f"item {number}" for number in range(1, items + 1)])
    return Sequences.from_lists(rows, items, item_labels=labels, user_labels=pa.array([f"u{n}" for n in range(users)]))


def check(adapter, data, own_scores):
    """Scores, ids, batches, alignment and enrichment; `own_scores(labels of a history)` -> {label: score}."""
    assert isinstance(adapter, Backbone)
    aligned = adapter.align(data)
    names = data.item_labels.to_pylist()
    theirs = [str(label) for label in adapter.item_labels.to_pylist()]
    for row in range(len(data)):
        assert [theirs[i - 1] for i in aligned[row]] == [names[i - 1] for i in data[row]]
    with torch.no_grad():
        for row in (0, len(data) - 1):
            query = encode_sequences(adapter, Ragged.from_lists([aligned[row]]))
            ours = (query @ adapter.item_embeddings()[1:].T)[0]
            wanted = own_scores([names[i - 1] for i in data[row]])
            expected = torch.tensor([float(wanted[label]) for label in theirs])
            torch.testing.assert_close(ours - ours.mean(), expected - expected.mean(), rtol=1e-3, atol=1e-3)
        together = encode_sequences(adapter, aligned.lists)
        alone = encode_sequences(adapter, Ragged.from_lists([aligned[3]]))
        torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=1e-5)
    assert not adapter.item_embeddings()[0].any()
    enriched = rsir.enrich(aligned, adapter, generation=GenerationConfig(m=2, k=3), fidelity=FidelityConfig(tau=20))
    assert len(enriched) > len(data)
    assert enriched.item_labels.equals(aligned.item_labels)

    more = Sequences.from_lists([[1, 2, 3], [3, 1]], 3, item_labels=pa.array(["item 2", "nobody's", "item 1"]))
    with pytest.warns(DataWarning, match="does not know 1 of the items: omitted 1 of 5 events"):
        part = adapter.align(more)
    assert [[theirs[i - 1] for i in part[row]] for row in range(2)] == [["item 2", "item 1"], ["item 1", "item 2"]]
    tasks = EvaluationSet(
        rows=np.arange(3),
        histories=Ragged.from_lists([[1, 2], [2], [3, 1]]),
        targets=np.array([3, 1, 2], np.int32),
        repeats="included",
    )
    kept = adapter.align_tasks(tasks, more)  # the second history is unknown, and so is the third target
    assert (kept.rows.tolist(), kept.histories.offsets.tolist(), kept.repeats) == ([0], [0, 1], "included")
    assert [theirs[i - 1] for i in (*kept.histories.values, *kept.targets)] == ["item 2", "item 1"]
    with pytest.raises(DataError, match="knows none of the items, 'x' for one"):
        adapter.align(Sequences.from_lists([[1, 1, 1]], 1, item_labels=pa.array(["x"])))

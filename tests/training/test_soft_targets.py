"""Soft targets against a loop over positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir import ops
from rsir.config import DistillationConfig, ModelConfig
from rsir.data import Sequences
from rsir.models import Ensemble, ItemKnn, WithItemKnn, build, names
from rsir.training import soft_targets as distillation
from rsir.training.soft_targets import counted_targets, soft_targets
from tests.harness.toys import ToyBackbone


@pytest.mark.parametrize("targets", ["all", "synthetic"])
@pytest.mark.parametrize("positions", [8192, 2], ids=["at once", "in parts"])
def test_they_are_the_models_best_items_and_their_shares(
    targets: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "_POSITIONS", positions)
    real = Sequences.from_lists([[3, 4, 5, 6], [7], [], [9, 1, 2]], num_items=12)
    made = Sequences.from_lists([[3, 8, 1], [9, 2]], num_items=12, source=[0, 3], round=[1, 1])
    sequences, model = Sequences.concat(real, made), ToyBackbone(12)
    config = DistillationConfig(share=0.3, targets=targets, k=4, temperature=2.0)
    found = soft_targets(model, sequences, config)
    assert found.share == 0.3
    assert found.ids.shape == found.cumulative.shape == (len(sequences.items), 4)
    at = 0
    for row in range(len(sequences)):
        items = sequences[row].astype(np.int64)
        for place in range(len(items)):
            if place == 0 or (targets == "synthetic" and sequences.is_real[row]):
                assert found.ids[at, 0] == 0
            else:
                query = model.encode(torch.from_numpy(items[:place])[None], torch.tensor([place]))[0]
                logits = (model.item_embeddings() @ query).numpy().astype(np.float64)
                logits[[0, *items[:place]]] = -np.inf
                best = np.lexsort((np.arange(13), -logits))[:4]
                assert found.ids[at].tolist() == best.tolist()
                shares = np.exp((logits[best] - logits[best[0]]) / 2.0)
                assert found.cumulative[at] == pytest.approx(shares.cumsum() / shares.sum(), abs=1e-6)
            at += 1


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("targets", ["all", "synthetic"])
def test_one_pass_over_sequences_finds_what_every_prefix_by_itself_does(
    name: str, targets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Histories longer than max_len, equal beginnings, repeats of an item, and parts that cut sequences."""
    rng = np.random.default_rng(2)
    real = Sequences.from_lists([rng.integers(1, 61, length) for length in (2, 9, 1, 30, 5, 12)], 60)
    made = [[*real[row][:cut], *rng.integers(1, 61, 4)] for row, cut in ((1, 3), (1, 3), (3, 1), (3, 9), (4, 5))]
    made.append(made[-1])
    synthetic = Sequences.from_lists(made, 60, source=[1, 1, 3, 3, 4, 4], round=[1] * 6)
    sequences = Sequences.concat(real, synthetic)
    config = ModelConfig(dim=8, heads=1, feedforward=8, max_len=8).for_backbone(name)
    models = [build(config, 60, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        for parameter in (value for model in models for value in model.parameters() if value.ndim > 1):
            parameter.mul_(0.5 / parameter.std())
    settings = DistillationConfig(share=0.5, targets=targets, k=5)
    for teacher in (models[0], Ensemble(models), WithItemKnn(Ensemble(models), ItemKnn.fit(real), 4.0)):
        with monkeypatch.context() as patch:
            patch.setattr(distillation, "encode_prefixes", lambda *_: None)
            patch.setattr(
                distillation, "_distinct_prefixes", lambda _, positions: (positions, np.arange(len(positions)))
            )
            expected = soft_targets(teacher, sequences, settings)
        for positions in (8192, 7):
            monkeypatch.setattr(distillation, "_POSITIONS", positions)
            found = soft_targets(teacher, sequences, settings)
            assert found.ids.tolist() == expected.ids.tolist()
            assert found.cumulative == pytest.approx(expected.cumulative, abs=1e-4)
    assert (expected.ids[:, 0] > 0).sum() == (np.maximum(sequences.lengths - 1, 0)[6 * (targets != "all") :]).sum()


def test_a_prefix_is_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    topk = ops.topk
    monkeypatch.setattr(
        ops, "topk", lambda queries, *_, **options: scored.append(len(queries)) or topk(queries, *_, **options)
    )
    rows = Sequences.from_lists([[1, 2, 3], [1, 2, 3, 4], [2, 1, 3], [1, 3, 2], [1, 2, 5]], 9)
    soft_targets(ToyBackbone(9), rows, DistillationConfig(share=1, k=2))
    assert scored == [6]  # after 1, 1 2, 1 2 3, 2, 2 1, 1 3


def test_a_history_that_leaves_fewer_items_than_k() -> None:
    found = soft_targets(ToyBackbone(4), Sequences.from_lists([[1, 2, 3, 4]], 4), DistillationConfig(share=1, k=4))
    assert (found.ids > 0).sum(1).tolist() == [0, 3, 2, 1]
    assert found.cumulative[3].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("targets", ["all", "synthetic"])
@pytest.mark.parametrize("positions", [1 << 17, 2], ids=["at once", "in parts"])
def test_those_of_the_count_are_its_best_items_and_their_shares(
    targets: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "_COUNTED", positions)
    real = Sequences.from_lists([[3, 4, 5, 6], [7], [], [9, 1, 2, 4], [10, 11]], num_items=12)
    made = Sequences.from_lists([[3, 8, 1], [9, 2]], num_items=12, source=[0, 3], round=[1, 1])
    sequences, knn = Sequences.concat(real, made), ItemKnn.fit(real)
    config = DistillationConfig(share=0.3, teacher="itemknn", targets=targets, k=2, temperature=2.0)
    found = counted_targets(knn, sequences, config)
    at, with_targets = 0, 0
    for row in range(len(sequences)):
        for place in range(len(sequences[row])):
            history = sequences[row][:place]
            shares = knn.shares(history, np.array([0, place]), without_own=True)
            if place == 0 or (targets == "synthetic" and sequences.is_real[row]) or not len(shares.ids):
                assert found.ids[at].tolist() == [0, 0]
            else:
                best = np.sort(np.lexsort((shares.ids, -shares.values))[:2])
                assert found.ids[at, : len(best)].tolist() == shares.ids[best].tolist()
                assert not found.ids[at, len(best) :].any()
                expected = np.sqrt(shares.values[best].astype(np.float64)).cumsum()
                assert found.cumulative[at, : len(best)] == pytest.approx(expected / expected[-1], abs=1e-6)
                assert found.cumulative[at, -1] == 1
                with_targets += 1
            at += 1
    assert found.share == 0.3
    assert with_targets >= 3

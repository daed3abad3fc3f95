"""Negatives drawn by popularity: how often, with which correction, and what a model then learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rsir.config import ModelConfig, SimulationConfig, TrainingConfig
from rsir.data import Sequences, leave_one_out, simulate
from rsir.data.batches import Batches
from rsir.errors import ConfigError
from rsir.models import build
from rsir.models.losses import sampled_softmax
from rsir.training.fit import fit

ROWS = [[1, 2, 2, 3]] * 10 + [[2, 1]] * 30 + [[2, 4, 2]] * 20  # item 5 never occurs


def batches(proposal: str, negatives: int = 4, seed: int = 3, items: int = 5) -> Batches:
    train = Sequences.from_lists(ROWS, items)
    generator = torch.Generator()
    return Batches(
        train, 16, 6, negatives, seed=seed, device=torch.device("cpu"), generator=generator, proposal=proposal
    )


def taken(stream, count: int):
    found = [next(stream) for _ in range(count)]
    stream.close()
    return found


def test_items_are_drawn_as_often_as_they_occur():
    found = taken(batches("popularity").stream(), 400)
    drawn = np.bincount(torch.cat([negatives for _, negatives in found]).numpy(), minlength=6)
    counts = np.bincount(np.concatenate(ROWS), minlength=6) + 1
    counts[0] = 0
    probability = counts / counts.sum()
    assert drawn[0] == 0
    expected = drawn.sum() * probability
    assert np.abs(drawn - expected)[1:].max() < 4 * np.sqrt(expected.max())
    corrections = found[0][0].corrections
    np.testing.assert_allclose(corrections[1:].numpy(), -np.log(probability[1:]), rtol=1e-6)
    assert torch.equal(corrections, found[-1][0].corrections)


def test_a_batch_does_not_depend_on_those_before_it():
    first = [negatives for _, negatives in taken(batches("popularity").stream(), 9)]
    later = [negatives for _, negatives in taken(batches("popularity").stream(5), 4)]
    assert all(torch.equal(a, b) for a, b in zip(first[5:], later, strict=True))


def test_by_default_and_with_the_whole_catalogue_nothing_is_corrected():
    for wanted in (batches("uniform"), batches("popularity", negatives=5)):
        ((batch, _),) = taken(wanted.stream(), 1)
        assert batch.corrections is None
    assert TrainingConfig().proposal == "uniform"
    with pytest.raises(ConfigError, match=r"training\.proposal: expected one of uniform, popularity, got 'zipf'"):
        TrainingConfig(proposal="zipf")


@pytest.mark.parametrize("name", ["sasrec", "hstu", "gru4rec", "cl4srec"])
def test_every_backbone_corrects_its_logits(name):
    """One constant more for all items changes nothing, and the corrections do."""
    config = ModelConfig(dim=8, layers=1, heads=1, feedforward=8, dropout=0.0, contrastive_weight=0.0)
    model = build(dataclasses.replace(config, name=name), 5, seed=0)
    ((batch, negatives),) = taken(batches("popularity").stream(), 1)
    uncorrected = dataclasses.replace(batch, corrections=None)
    shifted = dataclasses.replace(batch, corrections=batch.corrections + 7)
    loss = model.loss(batch, negatives)
    assert abs((loss - model.loss(uncorrected, negatives)).item()) > 1e-3
    torch.testing.assert_close(model.loss(shifted, negatives), loss)


def test_the_formula():
    random = torch.Generator().manual_seed(0)
    items, queries = torch.randn(6, 3, generator=random), torch.randn(4, 3, generator=random)
    targets, negatives = torch.tensor([1, 2, 3, 2]), torch.tensor([2, 2, 5])
    weights, corrections = torch.tensor([0.5, 0.25, 0.25, 0.0]), torch.rand(6, generator=random)
    wanted = 0.0
    for row in range(3):
        against = [int(item) for item in negatives if item != targets[row]]
        logits = [float(queries[row] @ items[item] + corrections[item]) for item in [int(targets[row]), *against]]
        wanted += float(weights[row]) * (np.log(np.exp(logits).sum()) - logits[0])
    loss = sampled_softmax(
        queries, items[targets], items[negatives], targets, negatives, weights, corrections=corrections
    )
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_what_is_learned_are_the_probabilities_of_the_data():
    """One context, five items: logits learned with corrected negatives approach log-probabilities; without they lean
    towards rare items."""

    def learned(corrected: bool) -> np.ndarray:
        items = torch.eye(6).requires_grad_()
        query = torch.zeros(1, 6, requires_grad=True)
        optimizer = torch.optim.SGD([query], lr=0.5)
        random = np.random.default_rng(0)
        mean = torch.zeros(6)
        stream = batches("popularity", negatives=3).stream()
        for step in range(500):
            batch, negatives = next(stream)
            targets = torch.from_numpy(random.choice(np.arange(1, 6), 64, p=[0.2, 0.2, 0.2, 0.2, 0.2]))
            optimizer.param_groups[0]["lr"] = 0.5 / (1 + step / 50)
            loss = sampled_softmax(
                query.expand(64, -1),
                items[targets],
                items[negatives],
                targets,
                negatives,
                torch.full((64,), 1 / 64),
                corrections=batch.corrections if corrected else None,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean += query.detach()[0] / 500
        stream.close()
        return mean[1:].softmax(0).numpy()

    assert np.abs(learned(True) - 0.2).max() < 0.05
    assert np.abs(learned(False) - 0.2).max() > 0.1


def test_a_training_with_popular_negatives():
    parts = leave_one_out(simulate(SimulationConfig(num_users=60, num_items=80)).sequences)
    model = ModelConfig(dim=8, layers=1, heads=1, feedforward=8)
    config = TrainingConfig(batch_size=16, negatives=8, max_evaluations=1, proposal="popularity")
    weights = [
        fit(model, one, parts.train, parts.validation, seed=0).model.state_dict()["items.weight"]
        for one in (config, config, dataclasses.replace(config, proposal="uniform"))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])

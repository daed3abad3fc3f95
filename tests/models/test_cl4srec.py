"""The views of CL4SRec, and its contrastive loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir.config import ModelConfig
from rsir.data import Sequences
from rsir.data.batches import Batches
from rsir.errors import ConfigError
from rsir.models import build
from rsir.models.views import draw_views

NUM_ITEMS, MAX_LEN = 500, 24


def packed(lists, weights=None, seed=0):
    """The lists without their last items, packed."""
    stream = iter(
        Batches(
            Sequences.from_lists(lists, NUM_ITEMS),
            len(lists),
            MAX_LEN,
            8,
            seed=seed,
            device=torch.device("cpu"),
            generator=torch.Generator().manual_seed(seed),
            weights=weights,
        )
    )
    batch, negatives = next(stream)
    stream.close()
    return batch, negatives


def distinct_lists(count, seed=0):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, MAX_LEN + 2, count)
    return [generator.choice(NUM_ITEMS, length, replace=False) + 1 for length in lengths]


def sequences_of(batch):
    """Items of every packed sequence, in the order of the rows."""
    filled = batch.segments.flatten() > 0
    items, positions = batch.items.flatten()[filled], batch.positions.flatten()[filled]
    starts = (positions == 0).nonzero()[:, 0].tolist()
    return [part.tolist() for part in items.tensor_split(starts[1:])]


def views_of(batch, views):
    """(items, hidden or not) of every view, in the order of the rows."""
    kept = views.segments.flatten() > 0
    items, masked = batch.items.flatten()[views.origin], views.masked
    positions = views.positions.flatten()
    assert not positions[~kept].any()
    starts = (positions[kept] == 0).nonzero()[:, 0].tolist()
    groups = [part.tolist() for part in kept.nonzero()[:, 0].tensor_split(starts[1:])]
    for places, last in zip(groups, views.last.tolist(), strict=True):
        assert places == list(range(places[0], last + 1))
        assert positions[places].tolist() == list(range(len(places)))
        assert len(set(views.segments.flatten()[places].tolist())) == 1
    return [(items[places].tolist(), masked[places].tolist()) for places in groups]


@pytest.fixture(scope="module")
def drawn():
    """200 sequences, each with ten views."""
    batch, _ = packed(distinct_lists(200))
    generator = torch.Generator().manual_seed(1)
    views = [draw_views(batch.positions, batch.segments, 0.6, 0.3, 0.6, generator) for _ in range(10)]
    return [
        (row, *view)
        for each in views
        for row, view in zip(sequences_of(batch), views_of(batch, each), strict=True)
        if len(row) > 3  # each way changes something, as a rule
    ]


def way_of(row, items, hidden):
    if len(items) < len(row):
        return "crop"
    return "mask" if any(hidden) else "reorder"


def test_views_are_what_the_paper_says(drawn):
    for row, items, hidden in drawn:
        way = way_of(row, items, hidden)
        if way == "crop":
            assert len(items) == int(0.6 * len(row))
            at = row.index(items[0])
            assert items == row[at : at + len(items)]
            assert not any(hidden)
        elif way == "mask":
            assert items == row
            assert sum(hidden) == int(0.3 * len(row))
        else:
            assert sorted(items) == sorted(row)
            changed = [place for place, (a, b) in enumerate(zip(items, row, strict=True)) if a != b]
            assert not changed or changed[-1] - changed[0] < int(0.6 * len(row))


def test_ways_and_places_are_drawn_evenly(drawn):
    ways = [way_of(*each) for each in drawn]
    for way in ("crop", "mask", "reorder"):
        assert 0.29 < ways.count(way) / len(ways) < 0.38
    long = [each for each in drawn if len(each[0]) >= 10]
    starts = [row.index(items[0]) / (len(row) - len(items)) for row, items, _ in long if len(items) < len(row)]
    assert 0.4 < np.mean(starts) < 0.6
    assert (min(starts), max(starts)) == (0, 1)
    hidden = np.concatenate([np.flatnonzero(h) / (len(h) - 1) for _, _, h in long if any(h)])
    assert 0.45 < hidden.mean() < 0.55
    moved = [items != row for row, items, h in long if len(items) == len(row) and not any(h)]
    assert np.mean(moved) > 0.95


def test_one_item_stays_itself():
    batch, _ = packed([[1, 2], [3, 4]])
    views = draw_views(batch.positions, batch.segments, 0.6, 0.3, 0.6, torch.Generator().manual_seed(0))
    assert sorted(views_of(batch, views)) == [([1], [False]), ([3], [False])]


def test_views_come_from_the_generator():
    batch, _ = packed(distinct_lists(30))
    first, again, other = (
        draw_views(batch.positions, batch.segments, 0.6, 0.3, 0.6, torch.Generator().manual_seed(seed))
        for seed in (4, 4, 5)
    )
    assert torch.equal(first.origin, again.origin)
    assert torch.equal(first.segments, again.segments)
    assert torch.equal(first.masked, again.masked)
    assert not torch.equal(first.segments, other.segments)


def contrastive_model(**settings):
    config = ModelConfig(name="cl4srec", dim=8, heads=2, feedforward=8, max_len=MAX_LEN, dropout=0.0, **settings)
    model = build(config, NUM_ITEMS, seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(number))
        model.items.weight[0] = 0
    return model


def test_contrastive_loss_is_that_of_the_views_alone():
    """Every view encoded by itself, and the paper's formula written out."""
    lists = distinct_lists(9)
    weights = np.linspace(0.5, 2, 9)
    batch, _ = packed(lists, weights)
    model = contrastive_model()
    loss = model.contrast(batch)

    generator = torch.Generator().manual_seed(0)  # what the batch's one began with
    twice = [torch.cat([value, value]) for value in (batch.positions, batch.segments)]
    views = draw_views(*twice, 0.6, 0.3, 0.6, generator)
    model.eval()
    rows = batch.items.repeat(2, 1).flatten()[views.origin].view_as(views.segments)
    queries = []
    for last in views.last.tolist():
        row, end = divmod(last, MAX_LEN)
        start = end - int(views.positions[row, end])
        x = model.items.weight[rows[row, start : end + 1]].clone()
        x[views.masked.view_as(rows)[row, start : end + 1]] = model.mask_item
        x = x + model.positions.weight[: len(x)]
        reach = torch.full((len(x), len(x)), -torch.inf).triu(1)
        for block in model.layers:
            q, k, v = (part.view(len(x), 2, 4).transpose(0, 1) for part in block.in_projection(x).chunk(3, -1))
            shares = torch.softmax(q @ k.transpose(1, 2) / 2 + reach, -1)
            x = block.finish(x, (shares @ v).transpose(0, 1).flatten(1), lambda value: value)
        queries.append(x[-1] / 8**0.25)
    count = len(lists)
    weight = batch.weights.repeat(2, 1).flatten()[views.last]
    total = 0.0
    for i in range(2 * count):
        twin = (i + count) % (2 * count)
        logits = torch.stack([queries[i] @ queries[j] for j in range(2 * count) if j != i])
        total -= weight[i] * (queries[i] @ queries[twin] - torch.logsumexp(logits, 0))
    torch.testing.assert_close(loss, total / weight.sum(), rtol=1e-4, atol=1e-4)


def test_loss_in_training_is_sasrecs_and_the_weighed_contrast():
    batch, negatives = packed(distinct_lists(20))
    plain = contrastive_model(contrastive_weight=0.0).train().loss(batch, negatives)
    batch.generator.manual_seed(0)
    contrast = contrastive_model().train().contrast(batch)
    batch.generator.manual_seed(0)
    loss = contrastive_model(contrastive_weight=0.25).train().loss(batch, negatives)
    torch.testing.assert_close(loss, plain + 0.25 * contrast)
    assert contrastive_model().eval().loss(batch, negatives) == plain


def test_weights_begin_as_sasrecs():
    config = ModelConfig(name="cl4srec", dim=8, feedforward=8, max_len=7)
    ours = build(config, 20, seed=1).state_dict()
    theirs = build(ModelConfig("sasrec", dim=8, feedforward=8, max_len=7), 20, seed=1).state_dict()
    assert set(ours) - set(theirs) == {"mask_item"}
    for name, value in theirs.items():
        assert torch.equal(ours[name], value)


@pytest.mark.parametrize("name", ["crop", "mask", "reorder", "contrastive_weight"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(ConfigError, match=f"model.{name}"):
        ModelConfig(**{name: -0.1})

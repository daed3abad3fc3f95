"""Backbones that use times: HSTU's bias, the pieces that hand times on, and what decides whether there are any."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.config import ModelConfig, TrainingConfig
from rsir.data import Sequences, leave_one_out
from rsir.data.batches import Batches
from rsir.data.ragged import Ragged, Timed
from rsir.errors import BackboneError, ConfigError, DataError
from rsir.models import Ensemble, ItemKnn, WithItemKnn, build, checkpoint, encode_sequences
from rsir.models.encoding import encode_prefixes
from rsir.models.growth import grown
from rsir.models.recomputing import Recomputed
from rsir.models.times import bucket_of, decided, prefix_times, usual_gap
from rsir.runtime.world import World
from rsir.training.fit import fit
from tests.models.naive import norm, silu
from tests.models.timed import DAY, HSTU, ITEMS, MAX_LEN, sequences, timed_model


def rows(count=20, longest=MAX_LEN, seed=0):
    rng = np.random.default_rng(seed)
    lists = [rng.integers(1, ITEMS + 1, rng.integers(1, longest + 1)) for _ in range(count)]
    plain = Ragged.from_lists(lists)
    times = Ragged.from_lists([np.sort(rng.integers(0, 400 * DAY, len(one))) for one in lists], np.int64).values
    last = times[plain.offsets[1:] - 1]
    return Timed(plain.values, plain.offsets, times, last + rng.integers(0, 30 * DAY, count))


def padded(histories):
    lengths, width = torch.from_numpy(histories.lengths), int(histories.lengths.max())
    items = torch.zeros(len(histories), width, dtype=torch.int64)
    times = torch.zeros(len(histories), width + 1, dtype=torch.int64)
    for number, (a, b) in enumerate(pairwise(histories.offsets)):
        items[number, : b - a] = torch.from_numpy(histories.values[a:b].astype(np.int64))
        times[number, : b - a] = torch.from_numpy(histories.times[a:b])
        times[number, b - a] = histories.asked[number]
    return items, lengths, times


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=50))
@settings(max_examples=100)
def test_buckets_are_those_of_the_authors(elapsed):
    """(log(abs(x).clamp(min=1)) / 0.301).long(), at most 128, but where rounding decides: a ten-thousandth away."""
    exact = [math.log(max(1, abs(x))) / 0.301 for x in elapsed]
    found = bucket_of(torch.tensor(elapsed)).tolist()
    for bucket, value in zip(found, exact, strict=True):
        assert bucket in {min(128, math.floor(value + apart)) for apart in (-1e-4, 0, 1e-4)}


def test_some_buckets():
    assert bucket_of(torch.tensor([0, 1, -1, 2, -2, 60, DAY, 365 * DAY])).tolist() == [0, 0, 0, 2, 2, 13, 37, 57]
    assert bucket_of(torch.tensor([2**62])).tolist() == [128]


def naive_layer(block, x, times):
    """(L, d) -> (L, d), with times (L + 1,) of the items and of what comes next, one pair of places at a time."""
    length, dim = x.shape
    part = dim // block.heads
    projected = [silu(block.in_projection.weight @ norm(row) + block.in_projection.bias) for row in x]
    out = []
    for i in range(length):
        attended = torch.zeros(dim)
        for head in range(block.heads):
            own = slice(head * part, (head + 1) * part)
            for j in range(i + 1):
                query, key, value = projected[i][:dim], projected[j][dim : 2 * dim], projected[j][2 * dim :]
                bucket = math.floor(math.log(max(1, int(times[i + 1] - times[j]))) / 0.301)
                bias = block.distances.weight[i - j, 0] + block.times.weight[bucket, 0]
                attended[own] += silu(query[own] @ key[own] + bias) / MAX_LEN * value[own]
        gate = silu(block.gate.weight @ norm(x[i]) + block.gate.bias)
        out.append(x[i] + block.out_projection.weight @ (norm(attended) * gate) + block.out_projection.bias)
    return torch.stack(out)


@torch.no_grad()
def test_queries_are_those_of_the_formula():
    model, histories = timed_model(), rows(4)
    found = encode_sequences(model, histories)
    for number, (a, b) in enumerate(pairwise(histories.offsets)):
        row = torch.from_numpy(histories.values[a:b].astype(np.int64))
        x = model.items.weight[row] * 8**0.5 + model.positions.weight[: b - a]
        for block in model.layers:
            x = naive_layer(block, x, [*histories.times[a:b], histories.asked[number]])
        torch.testing.assert_close(found[number], model.norm(x[-1]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_way_of_encoding_gives_the_same():
    """Tiles, one history, item by item, in one causal pass, and without a step of its own."""
    model, histories = timed_model(), rows()
    expected = encode_sequences(model, histories)
    items, lengths, times = padded(histories)
    torch.testing.assert_close(model.encode(items, lengths, times), expected, rtol=0, atol=1e-5)
    for number in range(len(histories)):
        assert torch.equal(encode_sequences(model, histories.rows(number, number + 1))[0], expected[number])
    state, without = model.new_state(len(histories)), Recomputed(model, len(histories))
    for place in range(MAX_LEN):
        slots = torch.from_numpy(np.flatnonzero(histories.lengths > place))
        given = items[slots, place], times[slots, place : place + 2]
        queries = model.step(state, slots, *given)
        torch.testing.assert_close(queries, without.step(slots, *given), rtol=0, atol=1e-5)
        ended = (lengths[slots] == place + 1).nonzero()[:, 0]
        torch.testing.assert_close(queries[ended], expected[slots[ended]], rtol=0, atol=1e-5)
    prefixes = encode_prefixes(model, histories)
    torch.testing.assert_close(prefixes[histories.offsets[1:] - 1], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_times_make_a_difference_and_their_beginning_none():
    model, histories = timed_model(), rows()
    expected = encode_sequences(model, histories)
    shifted = replace(histories, times=histories.times + 9 * DAY, asked=histories.asked + 9 * DAY)
    assert torch.equal(encode_sequences(model, shifted), expected)
    later = encode_sequences(model, replace(histories, asked=histories.asked + 4000 * DAY))
    assert ((later - expected).abs().amax(1) > 1e-4).all()
    slower = encode_sequences(model, replace(histories, times=histories.times - histories.times[0] * 50))
    assert ((slower - expected).abs().amax(1) > 1e-4).any()


@torch.no_grad()
def test_without_times_items_come_the_usual_gap_apart():
    model, histories = timed_model(), rows()
    plain = Ragged(histories.values, histories.offsets)
    place = np.arange(len(plain.values)) - np.repeat(plain.offsets[:-1], plain.lengths)
    spaced = Timed(plain.values, plain.offsets, 3600 * place, 3600 * plain.lengths)
    expected = encode_sequences(model, spaced)
    assert torch.equal(encode_sequences(model, plain), expected)
    torch.testing.assert_close(encode_prefixes(model, plain), encode_prefixes(model, spaced))
    state, items = model.new_state(1), torch.from_numpy(plain[0].astype(np.int64))
    for item in items:
        query = model.step(state, torch.tensor([0]), item[None])
    torch.testing.assert_close(query[0], expected[0], rtol=0, atol=1e-5)
    assert usual_gap(Sequences.from_lists([[1, 2, 3], [4], [], [5, 6]], times=[10, 20, 50, 7, 100, 101])) == 10
    assert usual_gap(Sequences.from_lists([[1], [4]], times=[10, 20])) == 0


@torch.no_grad()
def test_a_copied_slot_knows_its_times():
    model = timed_model()
    state, times = model.new_state(3), torch.tensor([[0, DAY], [DAY, 9 * DAY]])
    for item, own in ((1, times[:1]), (2, times[1:])):
        model.step(state, torch.tensor([0]), torch.tensor([item]), own)
    state.copy(torch.tensor([0]), torch.tensor([2]))
    both = model.step(state, torch.tensor([0, 2]), torch.tensor([3, 3]), torch.tensor([[9 * DAY, 10 * DAY]] * 2))
    assert torch.equal(both[0], both[1])


@torch.no_grad()
def test_beside_backbones_that_use_none():
    model, other, histories = timed_model(), build(ModelConfig(dim=8, max_len=MAX_LEN), ITEMS).eval(), rows()
    knn = ItemKnn.fit(Sequences.from_lists([[1, 2, 3]], ITEMS))
    expected = torch.cat([encode_sequences(one, histories) for one in (model, other)], 1) / 2
    plain = Ragged(histories.values, histories.offsets)
    for together in (Ensemble([model, other]), WithItemKnn(Ensemble([model, other]), knn, 2.0)):
        assert together.uses_times
        torch.testing.assert_close(encode_sequences(together, histories), expected)
        assert not torch.allclose(encode_sequences(together, plain), expected, atol=1e-3)
        prefixes = encode_prefixes(together, histories)
        torch.testing.assert_close(prefixes[histories.offsets[1:] - 1], expected, rtol=0, atol=1e-5)
        state, times = together.new_state(1), padded(histories)[2]
        for place, item in enumerate(histories[0]):
            query = together.step(state, torch.tensor([0]), torch.tensor([int(item)]), times[:1, place : place + 2])
        torch.testing.assert_close(query[0], expected[0], rtol=0, atol=1e-5)
    assert not Ensemble([other, other]).uses_times


def test_the_loss_is_that_of_the_queries():
    """In double precision, over packed rows: each target after the items before it, asked at its own time."""
    model, data = timed_model().double(), sequences()
    generator = torch.Generator().manual_seed(0)
    batches = Batches(data, 64, MAX_LEN, 0, seed=0, device=torch.device("cpu"), generator=generator, timed=True)
    batch, negatives = next(iter(batches))
    assert batch.times.shape == (*batch.items.shape, 2)
    expected, count = 0.0, 0
    for row, (a, b) in enumerate(pairwise(data.offsets)):
        items, times = data[row][-MAX_LEN - 1 :], data.times[a:b][-MAX_LEN - 1 :]
        for end in range(1, len(items)):
            given = (torch.from_numpy(items[None, :end].astype(np.int64)), torch.tensor([end]))
            query = model.encode(*given, torch.tensor(times[None, : end + 1]))
            logits = query @ model.item_embeddings()[1:].T
            expected -= logits.log_softmax(1)[0, int(items[end]) - 1].item()
            count += 1
    assert batch.tokens == count
    assert model.loss(batch, negatives).item() == pytest.approx(expected / count, rel=1e-6)
    second, _ = batch.divided(Second())
    assert torch.equal(second.times, batch.times[second.part.first :])


class Second(World):
    """The second of two processes."""

    def __init__(self) -> None:
        super().__init__()
        self.rank, self.size = 1, 2


def trained(config, data):
    training = TrainingConfig(batch_size=8, negatives=8, max_evaluations=1, evaluate_every=2)
    parts = leave_one_out(data)
    return fit(config, training, parts.train, parts.validation, seed=0).model


def test_auto_goes_by_the_data(tmp_path):
    config, data = replace(HSTU, times="auto"), sequences()
    model = trained(config, data)
    assert model.uses_times
    assert int(model.gap) == usual_gap(leave_one_out(data).train) > 0
    checkpoint.save(model, config, tmp_path / "on")
    again = checkpoint.load(tmp_path / "on")
    histories = rows()
    assert torch.equal(encode_sequences(again, histories), encode_sequences(model, histories))
    plain = trained(config, sequences(timed=False))
    assert not plain.uses_times
    assert set(plain.state_dict()) < set(model.state_dict())
    checkpoint.save(plain, config, tmp_path / "off")
    assert not checkpoint.load(tmp_path / "off").uses_times
    off = trained(replace(config, times="off"), data)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, off.state_dict()[name])


def test_what_is_refused():
    data, without = sequences(), sequences(timed=False)
    with pytest.raises(ConfigError, match=r"model\.times on: sasrec does not use times; expected auto or off"):
        trained(ModelConfig(name="sasrec", dim=8, times="on"), data)
    with pytest.raises(
        DataError, match=r"model\.times on: hstu expects the time of each event, and the data have none"
    ):
        trained(HSTU, without)
    with pytest.raises(ConfigError, match=r"model\.times: expected one of auto, on, off, got 'always'"):
        ModelConfig(name="hstu", times="always")
    model = timed_model()
    with pytest.raises(ValueError, match=r"HSTU: times: expected \(1, 3\), got \(1, 2\)"):
        model.encode(torch.tensor([[1, 2]]), torch.tensor([2]), torch.tensor([[1, 2]]))
    with pytest.raises(BackboneError, match="stepped by step: step_all knows no times"):
        model.step_all(model.new_state(1), torch.tensor([1]), torch.tensor([0]))
    generator = torch.Generator()
    with pytest.raises(DataError, match="expected sequences with times, for a backbone that uses them"):
        Batches(without, 4, 4, 4, seed=0, device=torch.device("cpu"), generator=generator, timed=True)
    with pytest.raises(DataError, match="expected one for each of 2 values and one to ask at for each of 1 rows"):
        Timed(np.array([1, 2]), np.array([0, 2]), np.array([1]), np.array([1]))
    for config in (ModelConfig(), ModelConfig(name="sasrec"), replace(HSTU, times="off")):
        assert decided(config, data) == config


def test_growing_keeps_the_bias_for_time():
    model, knn = timed_model(), ItemKnn.fit(Sequences.from_lists([[1, ITEMS + 1]], ITEMS + 1))
    weights = grown(model, replace(HSTU, times="auto"), knn, seed=0)
    assert torch.equal(weights["blocks.0.times.weight"], model.layers[0].times.weight)
    build(HSTU, ITEMS + 1).load_state_dict(weights)


def test_histories_with_times():
    histories = Timed(np.array([1, 2, 3, 4]), np.array([0, 2, 2, 4]), np.array([10, 20, 5, 6]), np.array([25, 0, 9]))
    part = histories.rows(1, 3)
    assert (part.values.tolist(), part.times.tolist(), part.asked.tolist()) == ([3, 4], [5, 6], [0, 9])
    kept = histories.where(histories.values != 1)
    assert (kept.times.tolist(), kept.lengths.tolist(), kept.asked.tolist()) == ([20, 5, 6], [1, 0, 2], [25, 0, 9])
    taken = histories.take(np.array([2, 0]))
    assert (taken.values.tolist(), taken.times.tolist(), taken.asked.tolist()) == (
        [3, 4, 1, 2],
        [5, 6, 10, 20],
        [9, 25],
    )
    assert prefix_times(taken.times, taken.offsets, taken.asked).tolist() == [[5, 6], [6, 9], [10, 20], [20, 25]]


def test_tasks_are_asked_at_the_time_of_their_target():
    data = Sequences.from_lists([[1, 2, 3, 4], [5, 6, 7]], times=[1, 2, 3, 4, 10, 20, 30])
    parts = leave_one_out(data)
    assert parts.validation.histories.times.tolist() == [1, 2, 10]
    assert parts.validation.histories.asked.tolist() == [3, 20]
    assert parts.test.histories.asked.tolist() == [4, 30]
    assert not isinstance(leave_one_out(data, timed=False).test.histories, Timed)
    assert not isinstance(leave_one_out(replace(data, times=None)).test.histories, Timed)

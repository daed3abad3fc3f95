"""Packed batches against a naive loop."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.data import Sequences
from rsir.data.batches import Batches, SoftTargets, _padded
from rsir.data.packing import assign
from rsir.errors import DataError


def batches_of(train, *, batch_size=4, max_len=6, negatives=3, seed=0, weights=None, soft=None, fixed=False):
    return Batches(
        train,
        batch_size,
        max_len,
        negatives,
        seed=seed,
        device=torch.device("cpu"),
        generator=torch.Generator(),
        weights=weights,
        soft=soft,
        fixed=fixed,
    )


def take(batches, count):
    stream = iter(batches)
    taken = [next(stream) for _ in range(count)]
    stream.close()
    return taken


def unpack(batch):
    """The (inputs, targets, weight) of each sequence of a batch, read back position by position."""
    found = []
    for r in range(batch.items.shape[0]):
        runs = {}
        for c in range(batch.items.shape[1]):
            segment = int(batch.segments[r, c])
            if segment == 0:
                assert not batch.items[r, c]
                assert not batch.targets[r, c]
                assert not batch.weights[r, c]
                continue
            inputs, targets, weights = runs.setdefault(segment, ([], [], []))
            assert int(batch.positions[r, c]) == len(inputs)
            inputs.append(int(batch.items[r, c]))
            targets.append(int(batch.targets[r, c]))
            weights.append(float(batch.weights[r, c]))
        assert sorted(runs) == list(range(1, len(runs) + 1))
        found += [(tuple(i), tuple(t), w[0]) for i, t, w in runs.values() if len(set(w)) == 1]
    return found


lists = st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=25)


@settings(max_examples=100, deadline=None)
@given(lists, st.integers(1, 8), st.integers(2, 8), st.integers(0, 99))
def test_an_epoch_holds_every_sequence_once(rows, batch_size, max_len, seed):
    train = Sequences.from_lists(rows, 9)
    long_enough = [row for row in rows if len(row) >= 2]
    if not long_enough:
        with pytest.raises(DataError, match="nothing to learn from"):
            batches_of(train)
        return
    weights = np.arange(1, len(rows) + 1) / 4
    batches = batches_of(train, batch_size=batch_size, max_len=max_len, seed=seed, weights=weights)
    assert batches.steps_per_epoch == -(-len(long_enough) // batch_size)
    expected = sorted(
        (tuple(row[-max_len - 1 : -1]), tuple(row[-max_len:] if len(row) > max_len else row[1:]), w)
        for row, w in zip(rows, weights, strict=True)
        if len(row) >= 2
    )
    for epoch in range(2):
        steps = batches.steps_per_epoch
        taken = take(batches, 2 * steps)[epoch * steps : (epoch + 1) * steps]
        found = [unpack(batch) for batch, _ in taken]
        assert all(len(part) <= batch_size for part in found)
        assert sorted(entry for part in found for entry in part) == expected
        assert sum(batch.tokens for batch, _ in taken) == sum(len(i) for i, _, _ in expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=60))
def test_rows_are_as_a_plain_best_fit_decreasing_fills_them(lengths):
    row, column, rows = assign(np.array(lengths), 10)
    room = []
    for length in sorted(lengths, reverse=True):
        fitting = [(free, r) for r, free in enumerate(room) if free >= length]
        if fitting:
            room[min(fitting)[1]] -= length
        else:
            room.append(10 - length)
    used = np.zeros((rows, 10), int)
    for r, c, length in zip(row, column, lengths, strict=True):
        used[r, c : c + length] += 1
    assert used.max() == 1  # nothing overlaps, and nothing was cut off:
    assert used.sum() == sum(lengths)
    assert sorted(10 - used.sum(1)) == sorted(room)


def test_hardly_anything_is_padding():
    generator = np.random.default_rng(0)
    train = Sequences.from_lists([[1] * (2 + int(generator.geometric(0.18))) for _ in range(256)], 1)
    ((batch, _),) = take(batches_of(train, batch_size=256, max_len=50), 1)
    assert batch.tokens / batch.items.numel() > 0.95


def test_streams_depend_on_the_seed_alone():
    train = Sequences.from_lists([[1, 2, 3], [4, 5], [6, 7, 8, 9]] * 10, 9)
    first, again, other = (take(batches_of(train, seed=seed), 20) for seed in (1, 1, 2))
    for (a, negatives_a), (b, negatives_b) in zip(first, again, strict=True):
        assert torch.equal(a.items, b.items)
        assert torch.equal(negatives_a, negatives_b)
    assert any(not torch.equal(a.items, b.items) for (a, _), (b, _) in zip(first, other, strict=True))
    assert any(not torch.equal(a, b) for (_, a), (_, b) in zip(first, other, strict=True))
    assert not torch.equal(first[0][0].items, first[8][0].items)  # epochs are shuffled differently


def test_negatives_are_uniform_and_a_small_catalogue_is_taken_whole():
    train = Sequences.from_lists([[1, 2, 3]], 9)
    drawn = torch.cat([negatives for _, negatives in take(batches_of(train, negatives=8), 500)])
    counts = drawn.bincount(minlength=10)
    assert counts[0] == 0
    assert (counts[1:] - 4000 / 9).abs().max() < 5 * (4000 / 9) ** 0.5
    ((_, negatives),) = take(batches_of(train, negatives=9), 1)
    assert negatives.tolist() == list(range(1, 10))


def test_weights():
    train = Sequences.from_lists([[1, 2], [3, 4], [5, 6]], 9)
    ((batch, _),) = take(batches_of(train, weights=[1, 0, 0.5]), 1)
    assert sorted(unpack(batch)) == [((1,), (2,), 1.0), ((5,), (6,), 0.5)]
    with pytest.raises(ValueError, match=r"expected one a sequence, \(3,\), got \(2,\)"):
        batches_of(train, weights=[1, 1])
    with pytest.raises(ValueError, match=r"got -1.0 for sequence 2"):
        batches_of(train, weights=[1, 1, -1])


def test_the_background_thread_ends_and_hands_on_its_errors(monkeypatch):
    train = Sequences.from_lists([[1, 2]], 9)
    stream = iter(batches_of(train))
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "rsir-batches"]
    broken = batches_of(train)
    monkeypatch.setattr(broken, "_pack", lambda rows, step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(broken))
    assert not [t for t in threading.enumerate() if t.name == "rsir-batches"]


def test_rows_are_padded_to_a_few_numbers():
    train = Sequences.from_lists([list(range(1, 2 + n % 5 + 1)) for n in range(70)], 9)
    plain, padded = batches_of(train, batch_size=30), batches_of(train, batch_size=30, fixed=True)
    for (one, negatives), (other, same) in zip(take(plain, 6), take(padded, 6), strict=True):
        rows = len(one.items)
        assert len(other.items) % 4 == 0
        assert torch.equal(negatives, same)
        assert one.tokens == other.tokens
        for name in ("items", "targets", "positions", "segments", "weights"):
            assert torch.equal(getattr(other, name)[:rows], getattr(one, name))
            assert not getattr(other, name)[rows:].any()
    numbers = {_padded(rows) for rows in range(512, 1025)}
    assert len(numbers) == 9
    assert all(rows <= _padded(rows) <= max(rows + 3, 1.125 * rows) for rows in range(1, 5000))


def test_soft_targets_replace_their_share_by_draws():
    train = Sequences.from_lists([[1, 2, 3, 4], [5, 6], [7, 8, 9]], 99)
    ids = np.zeros((9, 3), np.int32)
    ids[[1, 2, 3]] = [[20, 21, 22], [30, 31, 32], [40, 0, 0]]  # two real choices, and one with a single item left
    ids[8] = [50, 51, 52]
    cumulative = np.tile(np.array([0.5, 0.8, 1.0], np.float32), (9, 1))
    cumulative[3] = 1.0
    counts = {}
    stream = iter(batches_of(train, soft=SoftTargets(ids, cumulative, 0.4)))
    for _ in range(3000):
        batch, _ = next(stream)
        for item, target in zip(batch.items.flatten().tolist(), batch.targets.flatten().tolist(), strict=True):
            counts.setdefault(item, []).append(target)
    stream.close()
    shares = {item: {t: targets.count(t) / len(targets) for t in set(targets)} for item, targets in counts.items()}
    for item, hard, soft in ((1, 2, (20, 21, 22)), (2, 3, (30, 31, 32)), (8, 9, (50, 51, 52))):
        expected = {hard: 0.6, soft[0]: 0.2, soft[1]: 0.12, soft[2]: 0.08}
        assert set(shares[item]) == set(expected)
        for target, share in expected.items():
            assert shares[item][target] == pytest.approx(share, abs=0.04)  # over four standard errors
    assert shares[3] == pytest.approx({4: 0.6, 40: 0.4}, abs=0.04)
    assert shares[5] == {6: 1.0}, "no soft targets, no replacement"


def test_soft_targets_change_nothing_else_and_start_anywhere():
    train = Sequences.from_lists([[1, 2, 3, 4], [5, 6], [7, 8, 9], [9, 1, 5, 2, 6]], 9)
    soft = SoftTargets(np.full((14, 1), 7, np.int32), np.ones((14, 1), np.float32), 0.5)
    plain, replaced = (take(batches_of(train, batch_size=2, soft=s), 6) for s in (None, soft))
    for (a, negatives), (b, others) in zip(plain, replaced, strict=True):
        for name in ("items", "positions", "segments", "weights"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        assert torch.equal(negatives, others)
        assert bool((b.targets.eq(7) | b.targets.eq(a.targets)).all())
        assert bool((b.targets[a.segments == 0] == 0).all())
    later = batches_of(train, batch_size=2, soft=soft).stream(4)
    assert torch.equal(next(later)[0].targets, replaced[4][0].targets)
    later.close()
    with pytest.raises(ValueError, match="expected one row for each of 14 interactions, got 3"):
        batches_of(train, soft=SoftTargets(np.ones((3, 1), np.int32), np.ones((3, 1), np.float32), 0.5))

"""Splits: against naive loops, and that nothing held out can reach training."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rsir.data import Sequences, global_time, leave_one_out
from rsir.errors import DataError
from tests.data.sequence_strategies import sequences


def tasks(evaluation):
    """(row, history, target) of each task."""
    histories = [evaluation.histories[task].tolist() for task in range(len(evaluation))]
    return list(zip(evaluation.rows.tolist(), histories, evaluation.targets.tolist(), strict=True))


def lists(data):
    return [data[row].tolist() for row in range(len(data))]


@given(sequences(generated=False, min_rows=1))
def test_leave_one_out_against_a_loop(data):
    assume(data.lengths.max() >= 3)
    train, validation, test = [], [], []
    for row, items in enumerate(lists(data)):
        if len(items) >= 3:
            train.append(items[:-2])
            validation.append((row, items[:-2], items[-2]))
            test.append((row, items[:-1], items[-1]))
        else:
            train.append(items)
    split = leave_one_out(data)
    assert lists(split.train) == train
    assert tasks(split.validation) == validation
    assert tasks(split.test) == test
    assert split.train.num_items == data.num_items
    for name in ("item_labels", "user_labels"):
        before, after = getattr(data, name), getattr(split.train, name)
        assert (before is None and after is None) or before.equals(after)


def naive_global_time(data, valid_fraction, test_fraction, target):
    ordered = sorted(data.times.tolist())
    n = len(ordered)
    test_start = ordered[min(n - 1, round((1 - test_fraction) * n))]
    valid_start = ordered[min(n - 1, round((1 - test_fraction - valid_fraction) * n))]
    events = list(zip(data.items.tolist(), data.times.tolist(), strict=True))
    rows = [events[start:end] for start, end in pairwise(data.offsets)]
    train = [[item for item, time in row if time < valid_start] for row in rows]
    seen = {item for row in train for item in row}
    sets = []
    for start, end in ((valid_start, test_start), (test_start, float("inf"))):
        found = []
        for r, row in enumerate(rows):
            possible = [
                (r, [item for item, _ in row[:place]], item)
                for place, (item, time) in enumerate(row)
                if place > 0 and start <= time < end and item in seen
            ]
            found += {"last": possible[-1:], "first": possible[:1], "all": possible}[target]
        sets.append(found)
    return train, *sets


@given(
    data=sequences(generated=False, min_rows=2, min_length=2),
    valid=st.floats(0.05, 0.45),
    test=st.floats(0.05, 0.45),
    target=st.sampled_from(["last", "first", "all"]),
)
def test_global_time_against_a_loop(data, valid, test, target):
    assume(data.times is not None)
    train, validation_tasks, test_tasks = naive_global_time(data, valid, test, target)
    if not validation_tasks or not test_tasks:
        with pytest.raises(DataError, match="period of the global time split has no event"):
            global_time(data, valid, test, target)
        return
    split = global_time(data, valid, test, target)
    assert lists(split.train) == train
    assert tasks(split.validation) == validation_tasks
    assert tasks(split.test) == test_tasks


def timed(seed=0, users=200, num_items=50):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 12, users)
    offsets = np.append(0, np.cumsum(lengths))
    times = random.integers(0, 1000, offsets[-1])
    for start, end in pairwise(offsets):
        times[start:end].sort()
    return Sequences(
        items=random.integers(1, num_items + 1, offsets[-1]),
        offsets=offsets,
        num_items=num_items,
        times=times,
        user_labels=pa.array(np.arange(users)),
    )


@pytest.mark.parametrize("target", ["last", "first", "all", "random"])
def test_global_time_holds_out_about_the_fractions_asked_for(target):
    data = timed()
    split = global_time(data, 0.2, 0.1, target)
    assert split.train.num_interactions / data.num_interactions == pytest.approx(0.7, abs=0.01)
    assert split.train.times.max() < 1000 * 0.75
    assert len(split.train) == len(data)


def test_random_targets_are_drawn_by_seed_and_spread():
    data = timed()
    draws = [tasks(global_time(data, 0.3, 0.3, "random", seed).test) for seed in range(30)]
    assert draws[0] == tasks(global_time(data, 0.3, 0.3, "random", 0).test)
    possible = tasks(global_time(data, 0.3, 0.3, "all").test)
    drawn = {(row, len(history)) for draw in draws for row, history, _ in draw}
    assert drawn <= {(row, len(history)) for row, history, _ in possible}
    assert len(drawn) > 0.95 * len(possible)
    assert all(len({row for row, *_ in draw}) == len(draw) for draw in draws)


@pytest.mark.parametrize(
    "split", [leave_one_out, lambda data: global_time(data, 0.2, 0.2, "all")], ids=["leave-one-out", "global-time"]
)
def test_held_out_events_leave_no_trace_in_training(split):
    """Whatever the held-out items are, training data and histories before them are the same."""
    data = timed()
    before = split(data)
    held_out = np.ones(data.num_interactions, bool)
    kept = np.repeat(data.offsets[:-1], before.train.lengths) + np.arange(before.train.num_interactions)
    kept -= np.repeat(before.train.offsets[:-1], before.train.lengths)
    held_out[kept] = False
    items = data.items.copy()
    # another item that occurs in training, so that the same events stay possible targets
    items[held_out] = np.random.default_rng(1).permutation(np.unique(before.train.items))[
        np.arange(held_out.sum()) % len(np.unique(before.train.items))
    ]
    after = split(dataclasses.replace(data, items=items))
    assert after.train.fingerprint() == before.train.fingerprint()
    assert held_out.sum() + before.train.num_interactions == data.num_interactions
    for row, history, _ in tasks(before.validation):
        trained = before.train[row].tolist()
        assert history[: len(trained)] == trained


def test_errors():
    short = Sequences.from_lists([[1, 2], [1]])
    with pytest.raises(DataError, match="no user has 3 or more items"):
        leave_one_out(short)
    with pytest.raises(DataError, match="needs the time of each interaction"):
        global_time(short)
    data = timed()
    with pytest.raises(DataError, match=r"sum to less than 1, got 0\.6 and 0\.5"):
        global_time(data, 0.6, 0.5)
    with pytest.raises(DataError, match=r"target must be .* got 'median'"):
        global_time(data, 0.1, 0.1, "median")
    enriched = Sequences.concat(data, Sequences.from_lists([[1, 2, 3]], num_items=50, source=[0], round=[1]))
    for split in (leave_one_out, global_time):
        with pytest.raises(DataError, match="takes real data, got 1 generated rows"):
            split(enriched)
    with pytest.raises(DataError, match="no interaction"):
        global_time(Sequences.from_lists([[]], num_items=1, times=[]))
    same_time = Sequences.from_lists([[1, 2, 3], [3, 2, 1]], times=[7] * 6)
    with pytest.raises(DataError, match="validation period of the global time split has no event"):
        global_time(same_time)

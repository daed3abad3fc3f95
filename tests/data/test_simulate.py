"""The simulator: seeded, sparse, skewed, and with a sequential signal that popularity does not have."""

from __future__ import annotations

import numpy as np
import pytest

from rsir.config import SimulationConfig
from rsir.data import leave_one_out, read, simulate, write


@pytest.fixture(scope="module")
def data():
    return simulate()


def recall_at_10(scores, tasks):
    """Full ranking; items of the history do not count."""
    scores = scores.copy()
    scores[:, 0] = -np.inf
    scores[np.repeat(np.arange(len(tasks)), np.diff(tasks.offsets)), tasks.items] = -np.inf
    target = scores[np.arange(len(tasks)), tasks.targets]
    return ((scores > target[:, None]).sum(1) < 10).mean()


def test_the_seed_decides_everything():
    small = SimulationConfig(num_users=50, num_items=60, seed=3)
    assert simulate(small).sequences.fingerprint() == simulate(small).sequences.fingerprint()
    other = SimulationConfig(num_users=50, num_items=60, seed=4)
    assert simulate(small).sequences.fingerprint() != simulate(other).sequences.fingerprint()


def test_short_histories_without_repeats(data):
    sequences = data.sequences
    assert (len(sequences), sequences.num_items) == (4000, 1200)
    assert sequences.lengths.min() == 5
    assert sequences.lengths.mean() == pytest.approx(8, abs=0.3)
    assert sequences.lengths.max() <= 50
    assert sequences.num_interactions / (4000 * 1200) < 0.01
    rows = np.repeat(np.arange(4000), sequences.lengths)
    assert len(np.unique(rows * 2000 + sequences.items)) == sequences.num_interactions


def test_popularity_is_skewed(data):
    counts = np.sort(np.bincount(data.sequences.items, minlength=1201)[1:])[::-1]
    share = counts.cumsum() / counts.sum()
    assert 0.3 < share[119] < 0.6  # the top tenth
    assert counts[0] > 20 * max(1, np.median(counts)) / 2
    assert (counts > 0).mean() > 0.98
    ids = np.arange(1200)
    by_id = np.bincount(data.sequences.items, minlength=1201)[1:]
    assert abs(np.corrcoef(ids, by_id)[0, 1]) < 0.1  # ties go to the lower id, which must not help


def test_users_lie_on_the_manifold(data):
    """Users close to each other on the torus choose from the same genres, distant ones do not."""
    genres = np.zeros((4000, len(data.genre_points)))
    rows = np.repeat(np.arange(4000), data.sequences.lengths)
    np.add.at(genres, (rows, data.genres[data.sequences.items - 1]), 1)
    genres /= np.linalg.norm(genres, axis=1, keepdims=True)
    likeness = genres[:500] @ genres[500:1000].T
    gaps = np.abs(data.user_points[:500, None] - data.user_points[None, 500:1000])
    distance = np.minimum(gaps, 2 * np.pi - gaps).sum(2)
    assert likeness[distance < 0.5].mean() > 5 * likeness[distance > 4].mean()


def test_there_is_a_sequential_signal_and_room_above_it(data):
    split = leave_one_out(data.sequences)
    tasks, n = split.test, 1201
    popularity = np.bincount(split.train.items, minlength=n).astype(float)
    pairs = np.ones(split.train.num_interactions - 1, bool)
    pairs[split.train.offsets[1:-1] - 1] = False
    follows = np.zeros((n, n))
    np.add.at(follows, (split.train.items[:-1][pairs], split.train.items[1:][pairs]), 1)
    last = tasks.items[tasks.offsets[1:] - 1]
    by_popularity = recall_at_10(np.tile(popularity, (len(tasks), 1)), tasks)
    by_last = recall_at_10(follows[last] + 1e-6 * popularity, tasks)
    by_truth = recall_at_10(data.next_probabilities(tasks.rows, tasks.items, tasks.offsets), tasks)
    assert by_popularity < 0.1
    assert by_last > 2 * by_popularity
    assert by_truth > 1.5 * by_last


def test_next_items_follow_the_true_probabilities():
    """Over many users the mean probability given to what came next equals its expectation."""
    data = simulate(SimulationConfig(num_users=3000, num_items=100, seed=1))
    tasks = leave_one_out(data.sequences).test
    probabilities = data.next_probabilities(tasks.rows, tasks.items, tasks.offsets)
    assert probabilities.shape == (3000, 101)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert not probabilities[np.repeat(np.arange(3000), np.diff(tasks.offsets)), tasks.items].any()
    given = probabilities[np.arange(3000), tasks.targets]
    expected, square = (probabilities**2).sum(1), (probabilities**3).sum(1)
    error = np.sqrt((square - expected**2).sum()) / 3000
    assert abs(given.mean() - expected.mean()) < 4 * error
    assert given.min() > 0


def test_small_and_odd_sizes():
    for users, items, length in ((2, 10, 5.0), (30, 11, 40.0), (7, 1000, 5.0)):
        sequences = simulate(SimulationConfig(num_users=users, num_items=items, mean_length=length)).sequences
        assert len(sequences) == users
        assert sequences.lengths.min() >= 5
        leave_one_out(sequences)


def test_it_survives_the_way_through_a_file(tmp_path, data):
    write(data.sequences, tmp_path / "simulated.csv")
    back = read(tmp_path / "simulated.csv")
    assert back.num_interactions == data.sequences.num_interactions

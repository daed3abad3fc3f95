"""The simulator: seeded, sparse, skewed, and with a signal that popularity does not have."""

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
    scores[np.repeat(np.arange(len(tasks)), tasks.histories.lengths), tasks.histories.values] = -np.inf
    target = scores[np.arange(len(tasks)), tasks.targets]
    return ((scores > target[:, None]).sum(1) < 10).mean()


def test_the_seed_decides_everything():
    small = SimulationConfig(num_users=50, num_items=60, seed=3)
    assert simulate(small).sequences.fingerprint() == simulate(small).sequences.fingerprint()
    other = SimulationConfig(num_users=50, num_items=60, seed=4)
    assert simulate(small).sequences.fingerprint() != simulate(other).sequences.fingerprint()


def test_short_histories_without_repeats(data):
    sequences = data.sequences
    assert (len(sequences), sequences.num_items) == (4000, 2400)
    assert sequences.lengths.min() == 5
    assert sequences.lengths.mean() == pytest.approx(8, abs=0.3)
    assert sequences.lengths.max() <= 50
    assert sequences.num_interactions / (4000 * 2400) < 0.01
    rows = np.repeat(np.arange(4000), sequences.lengths)
    assert len(np.unique(rows * 3000 + sequences.items)) == sequences.num_interactions


def test_popularity_is_skewed(data):
    counts = np.sort(np.bincount(data.sequences.items, minlength=2401)[1:])[::-1]
    share = counts.cumsum() / counts.sum()
    assert 0.3 < share[239] < 0.6  # the top tenth
    assert counts[0] > 20 * max(1, np.median(counts)) / 2
    assert (counts > 0).mean() > 0.98
    ids = np.arange(2400)
    by_id = np.bincount(data.sequences.items, minlength=2401)[1:]
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


def test_without_order_the_data_are_those_of_before_the_setting():
    old = simulate(SimulationConfig(order=0)).sequences
    assert old.fingerprint().startswith("d1712e1e8841")  # drawn from uniform numbers alone, so by every numpy


def test_events_follow_the_one_before_as_often_as_they_should(data):
    """A pair of neighbours that could be one of a series: of a genre, one or two places apart in it."""

    def share(sequences, ahead):
        items, inner = sequences.items - 1, np.ones(len(sequences.items), bool)
        inner[sequences.offsets[:-1]] = False  # whose event before is another user's
        place = np.empty(2400, int)
        for genre in range(len(data.genre_points)):
            place[data.genres == genre] = np.arange((data.genres == genre).sum())
        before, after = items[np.flatnonzero(inner) - 1], items[inner]
        same = data.genres[before] == data.genres[after]
        gap = (place[after] - place[before]) % np.bincount(data.genres)[data.genres[after]]
        return (same & np.isin(gap if ahead else -gap % np.bincount(data.genres)[data.genres[after]], (1, 2))).mean()

    assert share(data.sequences, True) == pytest.approx(0.3 + share(data.sequences, False), abs=0.03)
    old = simulate(SimulationConfig(order=0)).sequences
    assert share(old, True) == pytest.approx(share(old, False), abs=0.01)


def test_there_is_a_signal_in_what_goes_together_and_room_above_it(data):
    split = leave_one_out(data.sequences)
    tasks, n = split.test, 2401
    trained = np.zeros((len(split.train), n))
    trained[np.repeat(np.arange(len(trained)), split.train.lengths), split.train.items] = 1
    popularity = trained.sum(0)
    # Items that share users with those of the history, however popular they are.
    together = (trained.T @ trained) / np.sqrt(np.maximum(np.outer(popularity, popularity), 1))
    by_popularity = recall_at_10(np.tile(popularity, (len(tasks), 1)), tasks)
    by_company = recall_at_10(trained @ together, tasks)
    by_truth = recall_at_10(data.next_probabilities(tasks.rows, tasks.histories.values, tasks.histories.offsets), tasks)
    assert by_popularity < 0.15
    assert by_company > 1.2 * by_popularity
    assert by_truth > 1.5 * by_company


def test_next_items_follow_the_true_probabilities():
    """Over many users the mean probability given to what came next equals its expectation."""
    data = simulate(SimulationConfig(num_users=3000, num_items=100, seed=1))
    tasks = leave_one_out(data.sequences).test
    probabilities = data.next_probabilities(tasks.rows, tasks.histories.values, tasks.histories.offsets)
    assert probabilities.shape == (3000, 101)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert not probabilities[np.repeat(np.arange(3000), tasks.histories.lengths), tasks.histories.values].any()
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

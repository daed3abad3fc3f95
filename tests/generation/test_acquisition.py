from __future__ import annotations

import numpy as np
import pytest

from rsir.config import AcquisitionConfig
from rsir.data.sequences import Sequences
from rsir.errors import BackboneError
from rsir.generation import acquisition
from rsir.generation.acquisition import acquire
from tests.harness.toys import ToyBackbone


def some_trajectories(counts: list[int]) -> Sequences:
    source = np.repeat(np.arange(len(counts)), counts)
    lists = [[1, 2, 3 + i % 5] for i in range(len(source))]
    return Sequences.from_lists(lists, num_items=10, source=source, round=np.ones(len(source), np.int16))


def test_all_keeps_everything() -> None:
    trajectories = some_trajectories([3, 0, 5])
    kept = acquire(trajectories, AcquisitionConfig("all"), ToyBackbone(10), seed=0, round_=1)
    assert kept.fingerprint() == trajectories.fingerprint()


def test_capped_keeps_at_most_the_cap_of_each_source() -> None:
    counts = [0, 1, 2, 3, 8, 0, 5]
    kept = acquire(some_trajectories(counts), AcquisitionConfig("capped", cap=2), ToyBackbone(10), seed=0, round_=1)
    assert np.bincount(kept.source, minlength=7).tolist() == [0, 1, 2, 2, 2, 0, 2]
    assert (np.diff(kept.source) >= 0).all()


def test_capped_draws_evenly_and_by_seed_and_round() -> None:
    trajectories = some_trajectories([5] * 2000)
    config = AcquisitionConfig("capped", cap=1)
    kept = acquire(trajectories, config, ToyBackbone(10), seed=0, round_=1)
    frequency = np.bincount(kept.items[2::3] - 3, minlength=5)
    chi_square = ((frequency - 400) ** 2 / 400).sum()
    assert chi_square < 18.5  # the 0.001 point of 4 degrees of freedom
    again, other_seed, other_round = (
        acquire(trajectories, config, ToyBackbone(10), seed=seed, round_=round_).fingerprint()
        for seed, round_ in [(0, 1), (1, 1), (0, 2)]
    )
    assert kept.fingerprint() == again
    assert len({again, other_seed, other_round}) == 3


def test_nothing_verified_is_fine() -> None:
    nothing = some_trajectories([0, 0])
    assert len(acquire(nothing, AcquisitionConfig("capped"), ToyBackbone(10), seed=0, round_=1)) == 0


def test_disagreement_draws_one_of_each_third_of_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [9] * 300 + [1, 2, 3, 4]
    trajectories = some_trajectories(counts)
    scores = np.random.default_rng(0).permutation(len(trajectories)) / 7
    monkeypatch.setattr(acquisition, "disagreement", lambda *_, **__: scores)
    rows: list[np.ndarray] = []
    monkeypatch.setattr(Sequences, "select", lambda _, chosen: rows.append(chosen))
    acquire(trajectories, AcquisitionConfig("disagreement"), ToyBackbone(10), seed=5, round_=1)
    (chosen,) = rows
    assert np.bincount(trajectories.source[chosen]).tolist() == [3] * 300 + [1, 2, 3, 3]
    of_nine = chosen[: 3 * 300].reshape(300, 3)
    place = np.argsort(np.argsort(scores[: 9 * 300].reshape(300, 9), axis=1), axis=1).ravel()[of_nine]
    assert (np.sort(place // 3, axis=1) == [0, 1, 2]).all(), "one of the low, the middle and the high third"
    frequency = np.bincount(place.ravel(), minlength=9)
    assert ((frequency - 100) ** 2 / 100).sum() < 22.5, "drawn evenly within a third: the 0.001 point of 6 degrees"


def test_disagreement_needs_dropout() -> None:
    with pytest.raises(BackboneError, match="torch module with dropout"):
        acquire(some_trajectories([4]), AcquisitionConfig("disagreement"), ToyBackbone(10), seed=0, round_=1)


def test_the_order_of_sources_does_not_matter() -> None:
    """What starts from trajectories is in the order of those; draws are numbered within the real source."""
    rows = np.random.default_rng(0).permutation(200)
    ordered = some_trajectories([10] * 20)
    mixed = Sequences.from_lists(
        [[1, 2, 3 + place % 7] for place in range(200)],
        num_items=10,
        source=rows % 20,
        round=np.ones(200, np.int16),
    )
    config = AcquisitionConfig("capped", cap=2)
    model = ToyBackbone(10)
    chosen: list[list[np.ndarray]] = []
    for trajectories in (ordered, mixed):
        picked: list[np.ndarray] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sequences, "select", lambda _, chosen, picked=picked: picked.append(chosen))
            acquire(trajectories, config, model, seed=3, round_=2)
        by_source = np.argsort(trajectories.source, kind="stable")
        place = np.empty(200, np.int64)
        place[by_source] = np.arange(200)
        chosen.append(np.sort(place[picked[0]]).tolist())
    assert chosen[0] == chosen[1]

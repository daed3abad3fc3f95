from __future__ import annotations

import numpy as np

from rsir.acquisition import acquire
from rsir.config import AcquisitionConfig
from rsir.data.sequences import Sequences


def some_trajectories(counts: list[int]) -> Sequences:
    source = np.repeat(np.arange(len(counts)), counts)
    lists = [[1, 2, 3 + i % 5] for i in range(len(source))]
    return Sequences.from_lists(lists, num_items=10, source=source, round=np.ones(len(source), np.int16))


def test_all_keeps_everything() -> None:
    trajectories = some_trajectories([3, 0, 5])
    kept = acquire(trajectories, AcquisitionConfig("all"), seed=0, round_=1)
    assert kept.fingerprint() == trajectories.fingerprint()


def test_capped_keeps_at_most_the_cap_of_each_source() -> None:
    counts = [0, 1, 2, 3, 8, 0, 5]
    kept = acquire(some_trajectories(counts), AcquisitionConfig("capped", cap=2), seed=0, round_=1)
    assert np.bincount(kept.source, minlength=7).tolist() == [0, 1, 2, 2, 2, 0, 2]
    assert (np.diff(kept.source) >= 0).all()


def test_capped_draws_evenly_and_by_seed_and_round() -> None:
    trajectories = some_trajectories([5] * 2000)
    config = AcquisitionConfig("capped", cap=1)
    kept = acquire(trajectories, config, seed=0, round_=1)
    frequency = np.bincount(kept.items[2::3] - 3, minlength=5)
    chi_square = ((frequency - 400) ** 2 / 400).sum()
    assert chi_square < 18.5  # the 0.001 point of 4 degrees of freedom
    again, other_seed, other_round = (
        acquire(trajectories, config, seed=seed, round_=round_).fingerprint()
        for seed, round_ in [(0, 1), (1, 1), (0, 2)]
    )
    assert kept.fingerprint() == again
    assert len({again, other_seed, other_round}) == 3


def test_nothing_verified_is_fine() -> None:
    nothing = some_trajectories([0, 0])
    assert len(acquire(nothing, AcquisitionConfig("capped"), seed=0, round_=1)) == 0

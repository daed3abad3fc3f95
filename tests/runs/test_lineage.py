from __future__ import annotations

import numpy as np
import pytest

from rsir.data.ragged import Ragged
from rsir.data.sequences import offsets_of
from rsir.errors import DataError
from rsir.runs.lineage import overlap, separation
from tests.harness.toys import ToyBackbone


def test_overlap_is_the_mean_share_of_common_items() -> None:
    first = np.array([[1, 2, 3, 4], [5, 6, 0, 0]])
    second = np.array([[4, 9, 1, 8], [6, 5, 0, 0]])
    assert overlap(first, second) == pytest.approx((0.5 + 1) / 2)
    assert overlap(second, first) == overlap(first, second)
    with pytest.raises(DataError, match="same histories"):
        overlap(first, second[:1])


def test_separation_is_positive_where_generations_differ_more_than_seeds() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 6, 200)
    items = generator.integers(1, 301, lengths.sum()).astype(np.int32)
    one, same, other = ToyBackbone(300, seed=1), ToyBackbone(300, seed=1), ToyBackbone(300, seed=2)
    histories = Ragged(items, offsets_of(lengths))
    assert separation((one, same), (other, other), histories) > 0.5
    assert separation((one, other), (one, other), histories) < -0.2
    assert separation((one, one), (same, same), histories) == 0

"""The public data sets that the figures are about, where they are at hand (RSIR_DATA, or ../shared/data)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rsir.config import DataConfig
from rsir.data import global_time, leave_one_out, read, write

FOLDER = Path(os.environ.get("RSIR_DATA", Path(__file__).parents[3].parent / "shared" / "data"))


def path_of(name):
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not in {FOLDER}; set RSIR_DATA to the folder that has it")
    return FOLDER / name


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions"),
    [
        ("amazon-toys.txt", 19_412, 11_924, 167_597),
        ("amazon-beauty.txt", 22_363, 12_101, 198_502),
        ("amazon-sports.txt", 35_598, 18_357, 296_337),
        ("yelp.txt", 30_431, 20_033, 316_354),
        ("ml-100k.inter", 943, 1_682, 100_000),
    ],
)
def test_counts(name, users, items, interactions):
    data = read(path_of(name))
    assert (len(data), data.num_items, data.num_interactions) == (users, items, interactions)
    assert data.item_labels.equals(pa.array(np.arange(1, items + 1)))
    assert data.user_labels.equals(pa.array(np.arange(1, users + 1)))
    assert (data.times is not None) == name.endswith(".inter")
    split = leave_one_out(data)
    assert len(split.test) == len(split.validation) == users
    assert split.train.num_interactions == interactions - 2 * users


def test_text_lines_are_kept_as_they_are():
    path = path_of("yelp.txt")
    data = read(path)
    lines = path.read_text().splitlines()
    for row in (0, 1, 17, len(lines) - 1):
        assert data[row].tolist() == [int(field) for field in lines[row].split()[1:]]


def test_text_is_written_back_byte_for_byte(tmp_path):
    path = path_of("amazon-toys.txt")
    write(read(path), tmp_path / "toys.txt")
    assert (tmp_path / "toys.txt").read_bytes() == path.read_bytes()


def test_movielens_by_time_and_rating():
    path = path_of("ml-100k.inter")
    data = read(path, DataConfig(min_rating=4, k_core=10))
    assert (len(data), data.num_items, data.num_interactions) == (887, 822, 52_764)
    assert data.lengths.min() >= 10
    assert np.bincount(data.items)[1:].min() >= 10
    split = global_time(data, 0.1, 0.1, "all")
    assert split.train.num_interactions == pytest.approx(0.8 * data.num_interactions, rel=0.01)
    assert len(split.test) > 1000

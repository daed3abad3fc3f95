"""Logs read within a limit on memory: block by block, to the same sequences."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir.config import DataConfig
from rsir.data import Sequences, from_frame, read
from rsir.data.io import columns, ordering
from rsir.data.io.kcore import k_core
from rsir.data.ragged import counts_of
from rsir.errors import ConfigError, DataError, DataWarning
from rsir.runtime import memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="a limit needs Linux")

AMPLE = 2**36


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_SMALL", 64)
    monkeypatch.setattr(memory, "_BLOCK", 64)
    monkeypatch.setattr(columns, "_PART", 100)


def log(kind: str) -> pa.Table:
    """Events of 60 users in no order, with equal times and repeated events among them."""
    random = np.random.default_rng(3)
    users, items = random.integers(0, 60, 700), (50 * random.random(700) ** 2).astype(np.int64)
    times = random.integers(0, 9, 700) + (0.5 if kind == "fractions" else 0)
    names: dict[str, Any] = {
        "text": (pa.array([f"user {user}" for user in users]), pa.array([f"item {item}" for item in items])),
        "codes": (pa.array([f"u{user}" for user in users]).dictionary_encode(), pa.array(items, pa.int32())),
    }
    user, item = names.get(kind, (pa.array(users), pa.array(items)))
    return pa.table({"user_id": user, "item_id": item, "rating": random.integers(1, 6, 700), "timestamp": times})


def write(table: pa.Table, suffix: str, folder: Path) -> Path:
    path = folder / f"log{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=90)
    elif suffix == ".arrow":
        feather.write_feather(table, path, compression="uncompressed", chunksize=90)
    elif suffix == ".csv":
        arrow_csv.write_csv(table.cast(pa.schema([(f.name, _spelt(f.type)) for f in table.schema])), path)
    else:
        partitioning = ds.partitioning(pa.schema([("rating", pa.int64())]), flavor="hive")
        ds.write_dataset(table, path, format="parquet", partitioning=partitioning)
    return path


def _spelt(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def outcome(path: Path, config: DataConfig) -> tuple[str, list[str]]:
    """What reading comes to: a fingerprint or an error, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read(path, config).fingerprint()
        except DataError as error:
            found = str(error)
    return found, [str(entry.message) for entry in caught if issubclass(entry.category, DataWarning)]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ""])
@pytest.mark.parametrize("kind", ["integers", "text", "codes", "fractions"])
@pytest.mark.parametrize("options", [{}, {"k_core": 9}, {"min_rating": 3.0, "k_core": 4}, {"k_core": 99}], ids=str)
def test_the_same_within_a_limit(tmp_path: Path, suffix: str, kind: str, options: dict[str, Any]) -> None:
    path, config = write(log(kind), suffix, tmp_path), DataConfig(**options)
    expected = outcome(path, config)
    (tmp_path / "mapped").mkdir()
    with memory.memory_limit(AMPLE, tmp_path / "mapped"):
        assert outcome(path, config) == expected
        assert os.listdir(tmp_path / "mapped") == []
    assert len(expected[0]) == 64 or "core is empty" in expected[0]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_faults_are_named_alike(tmp_path: Path, suffix: str, column: str) -> None:
    table = log("text")
    values = table[column].to_pylist()
    values[333] = None
    path = write(table.set_column(table.column_names.index(column), column, pa.array(values)), suffix, tmp_path)
    expected = outcome(path, DataConfig())
    with memory.memory_limit(AMPLE, tmp_path):
        assert outcome(path, DataConfig()) == expected
    assert "is missing" in expected[0]


@pytest.mark.filterwarnings("ignore:.*that repeat another one's user")
def test_frames_are_read_alike(tmp_path: Path) -> None:
    expected = from_frame(log("codes")).fingerprint()
    with memory.memory_limit(AMPLE, tmp_path):
        assert from_frame(log("codes")).fingerprint() == expected


def test_text_is_held_whole_and_says_what_that_takes(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("1 2 3 4\n2 3 4 5\n" * 2**20)
    with (
        memory.memory_limit(memory.resident() + 2**27, tmp_path),
        pytest.raises(ConfigError, match=r"memory: .*log\.txt, as text, which is held whole 320 MiB"),
    ):
        read(path)
    path.write_text("1 2 3 4\n2 3 4 5\n")
    with memory.memory_limit(AMPLE, tmp_path):
        assert isinstance(read(path), Sequences)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(-2, 2)), min_size=1, max_size=90))
def test_orders_and_cores_by_block(events: list[tuple[int, int, int]]) -> None:
    users, items, times = np.array(events, np.int64).T.copy()
    counts = counts_of(users, 12)
    np.testing.assert_array_equal(counts, np.bincount(users, minlength=12))
    np.testing.assert_array_equal(ordering.in_order(users, times, counts), np.lexsort((times, users)))
    np.testing.assert_array_equal(ordering.in_order(users, None, counts), np.argsort(users, kind="stable"))
    for k in (1, 2, 3, 5):
        np.testing.assert_array_equal(ordering.core(users, items, k), k_core(users, items, k))
    np.testing.assert_array_equal(ordering.where(times > 0), np.flatnonzero(times > 0))

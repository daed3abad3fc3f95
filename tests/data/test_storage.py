"""Saved sequences: whole round trips, equal bytes, and typed errors for damaged or foreign files."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from rsir.data import Sequences
from rsir.errors import DataError
from tests.data.sequence_strategies import sequences

SUFFIXES = [".parquet", ".arrow"]


def example() -> Sequences:
    return Sequences.from_lists(
        [[1, 2, 3], [], [2, 1], [3, 1]],
        source=[0, 1, 2, 0],
        round=[0, 0, 0, 2],
        times=[5, 6, 7, 1, 2, 8, 9],
        item_labels=pa.array(["ein Ding", "日本", "x"]),
        user_labels=pa.array([10, 20, 30]),
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=50)
@given(data=sequences())
def test_round_trip(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("saved") / f"data{suffix}"
    data.save(path)
    back = Sequences.load(path)
    assert back.fingerprint() == data.fingerprint()
    assert path.read_bytes() == back.to_bytes(suffix[1:])
    assert os.listdir(path.parent) == [path.name]
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_are_plain(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    example().save(path)
    table = pq.read_table(path) if suffix == ".parquet" else pa.ipc.open_file(path).read_all()
    assert table.column_names == ["items", "source", "round", "times"]
    assert table["items"].to_pylist() == [[1, 2, 3], [], [2, 1], [3, 1]]
    assert table["round"].to_pylist() == [0, 0, 0, 2]


def test_many_rows_in_several_row_groups(tmp_path):
    lengths = np.full(1_100_000, 1)
    data = Sequences(items=np.ones(1_100_000, np.int32), offsets=np.append(0, np.cumsum(lengths)), num_items=1)
    data.save(tmp_path / "big.parquet")
    assert Sequences.load(tmp_path / "big.parquet").fingerprint() == data.fingerprint()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bytes_and_cut_files_never_pass_for_other_data(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    data = example()
    content, wanted = data.to_bytes(suffix[1:]), data.fingerprint()
    random = np.random.default_rng(0)
    places = random.integers(0, len(content), 400)
    damaged = [content[:at] + bytes([content[at] ^ (1 << random.integers(8))]) + content[at + 1 :] for at in places]
    damaged += [content[:length] for length in range(0, len(content), 11)]
    for case in damaged:
        path.write_bytes(case)
        try:
            loaded = Sequences.load(path)
        except DataError:
            continue
        assert loaded.fingerprint() == wanted


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_altered_value_is_noticed(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    example().save(path)
    table = pq.read_table(path) if suffix == ".parquet" else pa.ipc.open_file(path).read_all()
    metadata = pq.read_metadata(path).metadata if suffix == ".parquet" else table.schema.metadata
    metadata = {key: value for key, value in metadata.items() if key.startswith(b"rsir")}
    table = table.set_column(1, "source", pa.array([0, 1, 2, 1])).replace_schema_metadata(metadata)
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match="does not have the fingerprint it was saved with"):
        Sequences.load(path)


def test_foreign_missing_and_newer_files(tmp_path):
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), tmp_path / "foreign.parquet")
    with pytest.raises(
        DataError, match=r"not a file of Sequences\.save .*columns: user_id, item_id.* rsir\.data\.read"
    ):
        Sequences.load(tmp_path / "foreign.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="neither a Parquet nor an Arrow IPC file"):
        Sequences.load(tmp_path / "text.parquet")
    with pytest.raises(DataError, match="no such file"):
        Sequences.load(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="is a folder"):
        Sequences.load(tmp_path)
    table = pa.table({"items": [[1]]}).replace_schema_metadata({"rsir.version": "99"})
    pq.write_table(table, tmp_path / "newer.parquet")
    with pytest.raises(DataError, match="has format version 99, this rsir reads version 1"):
        Sequences.load(tmp_path / "newer.parquet")


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"must end in \.parquet or \.arrow, got 'data\.pkl'"):
        example().save(tmp_path / "data.pkl")
    with pytest.raises(DataError, match='must be "parquet" or "arrow"'):
        example().to_bytes("pickle")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "data.parquet"
    example().save(path)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match=r"data.parquet: cannot be written: No space left on device; free some space$"):
        example().select([0]).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]

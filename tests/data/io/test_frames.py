"""Frames of every library, streams, folders of Parquet files: the same events give the same sequences."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsir.config import DataConfig
from rsir.data import from_frame, read, to_table
from rsir.errors import DataError, DataWarning
from tests.data.sequence_strategies import NAMES, sequences


class Stream:
    """Offers Arrow's C stream and nothing else."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def in_pandas(table, of_arrow=False):
    pandas = pytest.importorskip("pandas")
    return table.to_pandas(types_mapper=pandas.ArrowDtype if of_arrow else None)


def in_polars(table):
    return pytest.importorskip("polars").from_arrow(table)


def hugging_face(table):
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset(pa.table(table))


def hugging_face_stream(table):
    return hugging_face(table).to_iterable_dataset(num_shards=1)


def hugging_face_view(table):
    """Rows by an index into shuffled columns, as after a shuffle and a sort."""
    order = np.random.default_rng(0).permutation(table.num_rows)
    return hugging_face(table.take(pa.array(order))).select(np.argsort(order))


FRAMES = {
    "pandas": in_pandas,
    "pandas with Arrow types": lambda table: in_pandas(table, of_arrow=True),
    "polars": in_polars,
    "polars, lazy": lambda table: in_polars(table).lazy(),
    "C stream": Stream,
    "chunks": lambda table: pa.concat_tables([table.slice(i, 2) for i in range(0, table.num_rows, 2)]),
    "categories": lambda table: pa.table({name: table[name].dictionary_encode() for name in table.column_names[:2]}
                                         | {name: table[name] for name in table.column_names[2:]}),
    "datasets": hugging_face,
    "datasets, streamed": hugging_face_stream,
    "datasets, by an index": hugging_face_view,
}  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES)
@settings(max_examples=15)
@given(data=sequences(names=NAMES, generated=False, min_rows=2, min_length=1))
def test_any_frame_reads_as_its_table(frame, data):
    assume(data.lengths.max() >= 3)
    table = to_table(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert from_frame(FRAMES[frame](table)).fingerprint() == from_frame(table).fingerprint()


@settings(max_examples=30)
@given(
    data=sequences(names=NAMES, generated=False, min_rows=2, min_length=1),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    days=st.booleans(),
)
def test_a_folder_reads_as_its_files_joined(tmp_path_factory, data, cuts, days):
    assume(data.lengths.max() >= 3)
    folder = tmp_path_factory.mktemp("log")
    table = to_table(data)
    ends = sorted({*(cut for cut in cuts if cut < table.num_rows), table.num_rows})
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        place = folder / f"day={number}" if days else folder
        place.mkdir(exist_ok=True)
        pq.write_table(table.slice(start, end - start), place / f"part-{number}.parquet")
    (folder / "_SUCCESS").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert read(folder).fingerprint() == from_frame(table).fingerprint()


def test_duckdb():
    """A query, and the reader of its batches."""
    duckdb = pytest.importorskip("duckdb")
    table = pa.table({"user_id": ["a", "b"] * 30, "item_id": list("xyzxyz") * 10, "timestamp": list(range(60))})
    query = duckdb.connect().from_arrow(table).filter("timestamp >= 6")
    expected = from_frame(table.slice(6)).fingerprint()
    assert from_frame(query).fingerprint() == expected
    assert from_frame(query.arrow()).fingerprint() == expected


def test_partitions_are_columns(tmp_path):
    table = pa.table({"user": ["a", "b"] * 3, "item": list("xyzxyz"), "day": [3, 1, 1, 2, 2, 3]})
    ds.write_dataset(table, tmp_path / "log", format="parquet", partitioning=["day"], partitioning_flavor="hive")
    data = read(tmp_path / "log", DataConfig(time="day"))
    assert data.times.tolist() == [1, 2, 3, 1, 2, 3]
    assert data.item_labels.take(pa.array(data[0] - 1)).to_pylist() == ["z", "y", "x"]


def test_a_fault_in_a_folder_is_named_by_its_file(tmp_path):
    for day, items in enumerate([["x", "y", "z"], ["x", None, "z"]]):
        (tmp_path / f"day={day}").mkdir()
        table = pa.table({"user": ["a", "a", "b"], "item": items, "time": [1, 2, 3]})
        pq.write_table(table, tmp_path / f"day={day}" / "part.parquet")
    with pytest.raises(DataError, match=r"day=1/part\.parquet: row 1 \(counted from 0\): the item is missing"):
        read(tmp_path)
    (tmp_path / "day=1" / "part.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read(tmp_path)


def test_only_the_columns_needed_are_read(tmp_path, monkeypatch):
    """A column of the wrong kind does no harm as long as nobody asks for it."""
    from rsir.data.io.columnar import ColumnarSource

    asked = []
    load = ColumnarSource.load
    monkeypatch.setattr(ColumnarSource, "load", lambda self, names: asked.append(names) or load(self, names))
    table = pa.table({"blob": [b"x"] * 4, "user": [1, 1, 1, 2], "time": [1, 2, 3, 4], "item": [1, 2, 3, 1]})
    pq.write_table(table, tmp_path / "e.parquet")
    assert read(tmp_path / "e.parquet").num_interactions == 4
    assert asked == [["user", "item", "time"]]


def test_what_is_no_frame():
    with pytest.raises(DataError, match=r"expected a data frame \(pandas, .*, got list"):
        from_frame([[1, 2], [3]])
    datasets = pytest.importorskip("datasets")
    table = pa.table({"user": [1, 1, 1, 2], "item": [1, 2, 3, 1]})
    splits = datasets.DatasetDict(train=datasets.Dataset(table), test=datasets.Dataset(table))
    with pytest.raises(DataError, match=r"got DatasetDict of 'train', 'test': choose one, as in data\['train'\]"):
        from_frame(splits)


LOG = {"user": [1, 1, 1, 2], "item": [1, 2, 3, 1], "time": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            lambda pd: pd.DataFrame(LOG).set_axis([0, 1, 2], axis=1),
            r"pandas frame: expected columns with names, got 0;",
        ),
        (
            lambda pd: pd.DataFrame(LOG).set_axis(pd.MultiIndex.from_product([["a"], LOG]), axis=1),
            r"expected columns with names, got \('a', 'user'\); set them, as in frame\.columns",
        ),
        (
            lambda pd: pd.DataFrame(LOG).set_axis(["user", "item", "item"], axis=1),
            "2 columns are called 'item'; rename",
        ),
        (lambda pd: pd.DataFrame(LOG).set_index("user"), "which column holds the user ids"),
        (lambda pd: pd.DataFrame(LOG)["user"], "got a Series, which is one column"),
        (
            lambda pd: pa.table([[1], [2], [3]], names=["user", "item", "item"]),
            "pyarrow frame: 2 columns are called 'it",
        ),
    ],
)
def test_frames_that_are_no_tables(frame, message):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match=message):
        from_frame(frame(pandas))


def test_a_hugging_face_dataset_is_not_copied():
    table = pa.table({"user": pa.array([1, 1, 1, 2]), "item": pa.array([1, 2, 3, 1])})
    from rsir.data.io.frames import _hugging_face

    found = _hugging_face(hugging_face(table))
    assert found is not None
    loaded = found[1](["item"])["item"].chunk(0)
    assert loaded.buffers()[1].address == table["item"].chunk(0).buffers()[1].address

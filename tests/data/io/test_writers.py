"""Written files read back as what they were, and say of generated sequences where they came from."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsir.config import DataConfig
from rsir.data import Sequences, read, to_table, write
from rsir.data.io.writers import sequence_names
from rsir.errors import DataError, DataWarning
from tests.data.sequence_strategies import NAMES, TEXT, sequences


def content(data):
    """{user: [item, ...]} in outside names, without empty rows; names as text."""
    users = range(1, data.num_real + 1) if data.user_labels is None else data.user_labels.to_pylist()
    items = np.arange(1, data.num_items + 1) if data.item_labels is None else data.item_labels.to_numpy(False)
    return {str(user): [str(items[i - 1]) for i in data[row]] for row, user in enumerate(users) if len(data[row])}


@pytest.mark.parametrize(
    ("suffix", "names"),
    [("csv", TEXT), ("parquet", TEXT), ("arrow", TEXT), ("inter", NAMES), ("txt", NAMES)],
    ids=lambda v: str(v)[:7],
)
@pytest.mark.filterwarnings("ignore:.*usually marks a missing value")  # names are any text
@settings(max_examples=50)
@given(data=st.data())
def test_round_trip_of_real_data(tmp_path_factory, suffix, names, data):
    sequences_ = data.draw(sequences(names=names, generated=False, min_rows=2, min_length=1))
    assume(sequences_.lengths.max() >= 3)
    path = tmp_path_factory.mktemp("written") / f"data.{suffix}"
    write(sequences_, path)
    if suffix == "txt" or sequences_.times is None or len(set(zip_events(sequences_))) == sequences_.num_interactions:
        back = read(path)
        assert content(back) == content(sequences_)
        if suffix != "txt" and sequences_.times is not None:
            assert sorted(back.times.tolist()) == sorted(sequences_.times.tolist())
    else:
        with pytest.warns(DataWarning, match="dropped"):
            read(path)
    path.unlink()
    path.parent.rmdir()


def zip_events(data):
    rows = np.repeat(np.arange(len(data)), data.lengths)
    return zip(rows.tolist(), data.items.tolist(), data.times.tolist(), strict=True)


def enriched(labels):
    real = Sequences.from_lists(
        [[1, 2, 3], [3, 1, 2]], user_labels=pa.array(labels), item_labels=pa.array(["x y", "é", "z"])
    )
    return Sequences.concat(
        real, Sequences.from_lists([[3, 2, 1], [1, 3, 3]], num_items=3, source=[1, 1], round=[1, 2])
    )


@pytest.mark.parametrize(
    ("labels", "names"), [(["a", "b"], ["a", "b", "b~2", "b~3"]), ([7, 12], [7, 12, 13, 14]), (["b~2", "b"], None)]
)
def test_generated_sequences_get_users_of_their_own(tmp_path, labels, names):
    data = enriched(labels)
    names = names or ["b~2", "b", "b~~2", "b~~3"]
    table = to_table(data)
    assert table.column_names == ["user_id", "item_id", "source", "round", "position"]
    assert list(dict.fromkeys(table["user_id"].to_pylist())) == names
    assert list(dict.fromkeys(zip(table["source"].to_pylist(), table["round"].to_pylist(), strict=True))) == [
        (labels[0], 0),
        (labels[1], 0),
        (labels[1], 1),
        (labels[1], 2),
    ]
    items = [["x y", "é", "z"], ["z", "x y", "é"], ["z", "é", "x y"], ["x y", "z", "z"]]
    for suffix in ("csv", "parquet", "arrow", "inter", "txt"):
        write(data, tmp_path / f"e.{suffix}")
        assert content(read(tmp_path / f"e.{suffix}")) == dict(zip(map(str, names), items, strict=True))


def rows_of(frame):
    """{(user, source, round): items} of a table of events, names as text."""
    names = ["user_id", "source", "round", "item_id"]
    found = {}
    for user, source, round_, item in zip(*(map(str, frame[name].to_pylist()) for name in names), strict=True):
        found.setdefault((user, source, round_.removesuffix(".0")), []).append(item)
    return found


def by_pandas(data, path):
    write(data, path)
    pandas = pytest.importorskip("pandas")
    if path.suffix == ".parquet":
        return pa.table(pandas.read_parquet(path))
    separator = "\t" if path.suffix == ".inter" else ","
    table = pandas.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    return pa.table(table.rename(columns=lambda name: name.partition(":")[0]))


def by_polars(data, path):
    write(data, path)
    return pytest.importorskip("polars").read_ipc(path).to_arrow()


LIBRARIES = {
    "pandas": lambda data, path: pytest.importorskip("pandas") and pa.table(to_table(data).to_pandas()),
    "polars": lambda data, path: pytest.importorskip("polars").from_arrow(to_table(data)).to_arrow(),
    "parquet": lambda data, path: by_pandas(data, path / "e.parquet"),
    "arrow": lambda data, path: by_polars(data, path / "e.arrow"),
    "csv": lambda data, path: by_pandas(data, path / "e.csv"),
    "inter": lambda data, path: by_pandas(data, path / "e.inter"),
}


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=25)
@given(data=sequences(names=NAMES, min_rows=1, min_length=1))
def test_every_generated_sequence_is_found_elsewhere_with_its_source_and_round(tmp_path_factory, library, data):
    assume(data.num_real < len(data))
    users = list(range(1, data.num_real + 1)) if data.user_labels is None else data.user_labels.to_pylist()
    items = list(range(1, data.num_items + 1)) if data.item_labels is None else data.item_labels.to_pylist()
    found = rows_of(LIBRARIES[library](data, tmp_path_factory.mktemp("elsewhere")))
    names = sequence_names(data).to_pylist()
    assert found == {
        (str(names[row]), str(users[data.source[row]]), str(data.round[row])): [str(items[i - 1]) for i in data[row]]
        for row in range(len(data))
    }


def test_what_the_files_look_like(tmp_path):
    data = enriched(["a", "b"])
    write(data, tmp_path / "e.inter")
    lines = (tmp_path / "e.inter").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "user_id:token\titem_id:token\ttimestamp:float\tsource:token\tround:float"
    assert lines[-2:] == ["b~3\tz\t1\tb\t2", "b~3\tz\t2\tb\t2"]
    write(data, tmp_path / "e.csv")
    assert (tmp_path / "e.csv").read_text(encoding="utf-8").splitlines()[-1] == '"b~3","z","b",2,2'
    write(data, tmp_path / "e.txt")
    assert (tmp_path / "e.txt").read_text(encoding="utf-8").splitlines()[2] == "b~2\tz\té\tx y"
    write(data, tmp_path / "e.parquet")
    assert pq.read_table(tmp_path / "e.parquet").equals(to_table(data))
    unlabelled = Sequences.from_lists([[3, 2], [], [1]], times=[5, 6, 7])
    write(unlabelled, tmp_path / "u.txt")
    assert (tmp_path / "u.txt").read_text() == "1 3 2\n3 1\n"
    assert to_table(unlabelled).to_pydict() == {"user_id": [1, 1, 3], "item_id": [3, 2, 1], "timestamp": [5, 6, 7]}


def test_trajectories_alone(tmp_path):
    data = Sequences.from_lists([[1, 2, 1], [2, 1]], source=[4, 0], round=[1, 1])
    assert to_table(data)["source"].to_pylist() == [5, 5, 5, 1, 1]
    write(data, tmp_path / "t.csv")
    assert content(read(tmp_path / "t.csv")) == {"6": ["1", "2", "1"], "7": ["2", "1"]}


@given(data=sequences(), suffix=st.sampled_from(["csv", "parquet", "arrow", "inter", "txt"]))
def test_any_data_is_written_or_refused(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("any") / f"data.{suffix}"
    try:
        write(data, path)
    except DataError:
        assert suffix in ("inter", "txt")
        assert not os.listdir(path.parent)


def test_names_that_a_format_cannot_hold(tmp_path):
    def refusal(label, suffix):
        data = Sequences.from_lists([[1, 1, 1], [1]], item_labels=pa.array([label]))
        with pytest.raises(DataError) as caught:
            write(data, tmp_path / f"e.{suffix}")
        return str(caught.value)

    assert "cannot hold tabs, quotes or line breaks, got the id 'a\\tb'; write CSV" in refusal("a\tb", "inter")
    assert "cannot hold tabs, line breaks, null bytes or outer spaces, got the id 'a\\nb'" in refusal("a\nb", "txt")
    assert "counts from 1 and 0 is padding, got the id '0'" in refusal(0, "txt")
    assert "counts from 1 and 0 is padding, got the id '-3'" in refusal(-3, "txt")
    assert not list(tmp_path.iterdir())


def test_unknown_format(tmp_path):
    data = Sequences.from_lists([[1, 1, 1]])
    with pytest.raises(DataError, match=r"expected the extension \.txt, \.csv, \.parquet, \.arrow, \.inter or one of"):
        write(data, tmp_path / "e.xlsx")
    write(data, tmp_path / "e.xlsx", "csv")
    with pytest.raises(DataError, match="only one user"):
        read(tmp_path / "e.xlsx", DataConfig(format="csv"))

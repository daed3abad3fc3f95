"""Files of items: vectors and titles, the catalogue that they make, and what of them is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsir.data import Sequences
from rsir.data.io.items import read_items, read_titles, with_items
from rsir.errors import DataError, DataWarning

DATA = Sequences.from_lists([[1, 2, 3], [3, 2]], 3, item_labels=pa.array(["a", "b", "c"]))


def written(tmp_path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    return tmp_path / "items.parquet"


def test_the_catalogue_has_the_items_of_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path, asin=["z", "c", "a", "y", "x"], Embedding=[[1, 2], [3, 4], [5, 6], [7, 8], None],
        title=["Zebra", None, "Ant", "Yak", "Ox"],
    )  # fmt: skip
    with pytest.warns(DataWarning, match="2 items without an event are in the catalogue, too; 1 items have no vector"):
        data, items = with_items(DATA, read_items(path), "items.parquet")
    assert data.item_labels.to_pylist() == ["a", "b", "c", "y", "z"]
    assert [row.tolist() for row in (data[0], data[1])] == [[1, 2, 3], [3, 2]]
    assert items.vectors.tolist() == [[0, 0], [5, 6], [0, 0], [3, 4], [7, 8], [1, 2]]
    assert items.has.tolist() == [False, True, False, True, True, True]
    assert items.titles.to_pylist() == ["Ant", None, None, "Yak", "Zebra"]
    (tmp_path / "items.parquet").write_bytes(items.encode(data))
    again, kept = with_items(data, read_items(tmp_path / "items.parquet"), "kept", quiet=True)
    assert again.num_items == 5
    assert (kept.vectors == items.vectors).all()
    assert kept.titles == items.titles == read_titles(tmp_path, 5)


def test_titles_alone(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,name\na,Ant\nq,Quail\n")
    data, items = with_items(DATA, read_items(tmp_path / "items.csv"), "items.csv")
    assert data is DATA
    assert items.vectors.shape == (4, 0)
    assert items.titles.to_pylist() == ["Ant", None, None]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item": ["a", "b", "c"], "vector": [[1.0, 2], [1], [3]]}, "expected 2 numbers for each item, as for the "
         "first, got 1 for 'b'; 2 items have another width"),
        ({"item": ["a", "b"], "vector": [[1.0, np.nan], [1, 2]]}, "got nan, infinity or none for 1 items, 'a' for one"),
        ({"item": ["a", "b"], "vector": [[1.0, None], [1, 2]]}, "got nan, infinity or none for 1 items, 'a' for one"),
        ({"item": ["a", "b", "a"], "vector": [[1.0], [1], [2]]}, "1 items are there more than once, 'a' for one"),
        ({"item": ["a", None], "vector": [[1.0], [1]]}, "1 of 2 items have no id"),
        ({"item": ["q", "r"], "vector": [[1.0], [1]]}, "has none of the 3 items of the events, 'a' for one"),
        ({"item": ["a"], "vector": ["text"]}, "vector: expected lists of numbers, got string"),
        ({"item": ["a"], "vector": pa.array([None], pa.list_(pa.float32()))}, "expected at least one, got none"),
        ({"item": ["a"], "colour": ["red"]}, "expected a column called vector or title beside the items"),
        ({"thing": ["a"], "vector": [[1.0]]}, "which column holds the item ids"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    path = written(tmp_path, **columns)
    with pytest.raises(DataError, match=message):
        with_items(DATA, read_items(path), "items.parquet")


def test_titles_from_a_log_of_events(tmp_path: Path) -> None:
    """An item is there with every event, under one title, which may be missing from some; two titles are refused."""
    path = tmp_path / "events.csv"
    path.write_text("user,item,title\nu,b,Bee\nv,a,Ah\nw,b,Bee\nu,c,Sea\n")
    data, found = with_items(DATA, read_items(path), "events.csv")
    assert found.titles.to_pylist() == ["Ah", "Bee", "Sea"]
    assert data.num_items == 3
    path.write_text("user,item,title\nu,b,Bee\nv,a,Ah\nw,b,Be\n")
    with pytest.raises(DataError, match=r"events\.csv: 1 items have several titles, 'b' both 'Bee' and 'Be'; keep one"):
        read_items(path)
    path.write_text("user,item,title\nu,b,\nv,a,\nw,b,Bee\nu,b,\nv,a,\n")
    assert with_items(DATA, read_items(path), "events.csv")[1].titles.to_pylist()[:2] == [None, "Bee"]


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, message in (("none.parquet", "no such file"), ("items.txt", r"ends in \.parquet")):
        with pytest.raises(DataError, match=message):
            read_items(tmp_path / name)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match="cannot be read"):
        read_items(tmp_path / "bad.parquet")


@pytest.mark.parametrize("content", ["null", "\ufeffnull\n", '{"item": "a", "title": "x"}\nnull\n'])
def test_a_null_in_place_of_an_item(tmp_path: Path, content: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"items\.jsonl: cannot be read: line [12]: expected a JSON object, got 'null'"):
        read_items(path)
    path.write_text('{"item": "a", "title": "a}null"}\n\n{"item": "b", "title": null}\n')
    assert read_items(path)["title"].to_pylist() == ["a}null", None]

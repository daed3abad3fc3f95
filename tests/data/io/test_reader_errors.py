"""Every bad input has an error that names the file, the place, what was expected, what came, and how to fix it."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsir.config import DataConfig
from rsir.data import from_frame, read
from rsir.errors import DataError

CSV = "user_id,item_id,timestamp\n"
NOT_A_TIME = "column 'timestamp': expected an integer, a number or an ISO date such as 2024-05-31T12:00:00, got"

CASES = {
    "empty file": ("e.csv", "", {}, "is empty, expected interactions"),
    "empty text file": ("e.txt", "", {}, "is empty, expected interactions"),
    "blank lines": ("e.txt", "\n  \n\t\n", {}, "holds only blank lines"),
    "header alone": ("e.csv", CSV, {}, "has columns but no events"),
    "no user column": (
        "e.csv",
        "u,item,t\n1,2,3\n",
        {},
        "which column holds the user ids? None has a usual name such as "
        "user_id; its columns are 'u', 'item', 't': name one by the option data.user",
    ),
    "no item column": ("e.csv", "user,i,t\n1,2,3\n", {}, "which column holds the item ids?"),
    "wrong option": (
        "e.csv",
        CSV + "a,x,1\n",
        {"item": "sku"},
        "no column 'sku' for the item (data.item); its columns are 'user_id', 'item_id', 'timestamp'",
    ),
    "wrong time option": ("e.csv", CSV + "a,x,1\n", {"time": "when"}, "no column 'when' for the time (data.time)"),
    "no header": (
        "e.csv",
        "196,242,3,881250949\n",
        {},
        "line 1: expected the names of the columns, got "
        "'196,242,3,881250949'; name its columns by number, from 0: 0 '196', 1 '242', 2 '3', 3 '881250949'; for "
        "example --data.user 0 --data.item 1 --data.time 3, or add a header line such as user_id,item_id,timestamp",
    ),
    "a column twice": ("e.csv", "user,item,item\na,x,1\n", {}, "2 columns are called 'item'; rename all but one"),
    "words as times": (
        "e.csv",
        CSV + "a,x,1\n\na,y,soon\nb,x,2\n",
        {},
        f"line 4: {NOT_A_TIME} 'soon'; fix or drop the row",
    ),
    "NaN as time": ("e.csv", CSV + "a,x,1\na,y,nan\n", {}, "line 3: column 'timestamp': each time must be"),
    "infinite time": ("e.csv", CSV + "a,x,1\na,y,1e400\n", {}, "line 3: column 'timestamp': each time must be"),
    "no time": (
        "e.csv",
        CSV + "a,x,1\na,y,\n",
        {},
        "line 3: the time ('timestamp') is missing; fill it in or drop the row",
    ),
    "thirteenth month": ("e.csv", CSV + "a,x,2020-01-01\na,y,2020-13-01\n", {}, f"line 3: {NOT_A_TIME} '2020-13-01'"),
    "dates and numbers": ("e.csv", CSV + "a,x,2020-01-01\na,y,2020-12-01\na,z,17\n", {}, f"line 4: {NOT_A_TIME} '17'"),
    "no user": ("e.csv", CSV + "a,x,1\n,y,2\n", {}, "line 3: the user is missing"),
    "no item": ("e.csv", CSV + 'a,x,1\na,"",2\n', {}, "line 3: the item id is an empty string"),
    "one user": ("e.csv", CSV + "a,x,1\na,y,2\na,z,3\n", {}, "there is only one user, 'a'"),
    "short users": ("e.csv", CSV + "a,x,1\na,y,2\nb,z,3\n", {}, "no user has 3 or more items (the most is 2)"),
    "too many fields": (
        "e.csv",
        CSV + "a,x,1\na,y,2,9\n",
        {},
        "line 3: expected 3 fields as in the header, got 4: 'a,y,2,9'",
    ),
    "too few fields": ("e.csv", CSV + "a,x,1\na,y\n", {}, "line 3: expected 3 fields as in the header, got 2: 'a,y'"),
    "open quote": ("e.csv", CSV + 'a,"x,1\na,y,2\n', {}, "line 2: expected 3 fields as in the header, got 2"),
    "words as ratings": (
        "e.csv",
        "user,item,rating\na,x,1\na,y,good\n",
        {"min_rating": 2.0},
        "line 3: column 'rating': expected a number, got 'good'",
    ),
    "NaN as rating": (
        "e.csv",
        "user,item,rating\na,x,1\na,y,nan\n",
        {"min_rating": 2.0},
        "line 3: column 'rating': expected a number",
    ),
    "no rating": (
        "e.csv",
        "user,item,rating\na,x,1\na,y,\n",
        {"min_rating": 2.0},
        "line 3: the rating ('rating') is missing",
    ),
    "no ratings": (
        "e.csv",
        CSV + "a,x,1\n",
        {"min_rating": 2.0},
        "min_rating needs ratings, and no column has a usual name",
    ),
    "a format without ratings": (
        "e.txt",
        "a x y z\nb x z\n",
        {"min_rating": 2.0},
        "min_rating 2 needs ratings, and this format has none",
    ),
    "low ratings": (
        "e.csv",
        "user,item,rating\na,x,1\na,y,2\n",
        {"min_rating": 3.0},
        "the highest is 2: lower min_rating",
    ),
    "empty core": (
        "e.csv",
        CSV + "a,x,1\na,y,2\na,z,3\nb,x,1\n",
        {"k_core": 3},
        "the 3-core is empty: of 4 events none is left",
    ),
    "not UTF-8": (
        "e.csv",
        CSV.encode() + b"a,x,1\na,\xff,2\n",
        {},
        "line 3: expected UTF-8 text, got byte 0xff at position 2",
    ),
    "header not UTF-8": ("e.csv", b"user,\xe9\n", {}, "line 1: expected UTF-8 text, got byte 0xe9 at position 5"),
    "text not UTF-8": ("e.txt", b"1 2 3\n4 \xe9 2\n", {}, "line 2: expected UTF-8 text, got byte 0xe9 at position 2"),
    "UTF-16": ("e.txt", "1 2 3\n".encode("utf-16-le"), {}, "holds null bytes"),
    "item 0": (
        "e.txt",
        "1 2 3 4\n\n2 0 3\n",
        {},
        "line 3: expected item ids from 1 in a text file, where 0 is padding, got "
        "'0'; if it is a real id, write the events as CSV (user_id,item_id), which takes any id",
    ),
    "negative item": (
        "e.txt",
        "1 2 3 4\n2 -7 3\n",
        {},
        "line 2: expected item ids from 1 in a text file, where 0 is padding, got '-7'",
    ),
    "item 0 among words": ("e.txt", "1 a b c\n2 00 3\n", {}, "line 2: expected item ids from 1 in a text file"),
    "user 0": ("e.txt", "0 2 3 4\n2 7 3\n", {}, "line 1: expected user ids from 1 in a text file"),
    "user without items": (
        "e.txt",
        "1 2 3 4\n\n7\n",
        {},
        "line 3: user '7' has no items; expected `user item item ...` separated by spaces",
    ),
    "no tab": (
        "e.txt",
        "a b\tc\na c d\n",
        {},
        "line 2: user 'a c d' has no items; expected `user item item ...` separated by tabs",
    ),
    "two tabs": ("e.txt", "a b\tc\t\td\n", {}, "line 1: the item id is an empty string"),
    "CSV called text": (
        "e.txt",
        CSV + "a,x,1\n",
        {"format": "text"},
        "line 1: user 'user_id,item_id,timestamp' has no items",
    ),
    "untyped header": (
        "e.inter",
        "user_id\titem_id:token\n1\t2\n",
        {},
        "line 1: expected a tab-separated header of names and types",
    ),
    "unknown extension": ("e.xlsx", "PK", {}, "which format is this? Its extension is none of .txt"),
    "no extension": (
        "events",
        "1 2",
        {},
        "choose one of text, csv, jsonl, parquet, arrow, inter, pth by the option data.format",
    ),
    "text named Parquet": ("e.parquet", "1 2 3 4 5 6 7 8", {}, "cannot be read as parquet"),
    "Parquet named CSV": ("e.csv", b"PAR1\x15\x04\x15\xff\xfe\n\x00\x01PAR1", {}, "line 1: expected UTF-8 text"),
    "blank first line": ("e.csv", "\nuser,item\na,x\n", {}, "line 1: is blank, expected a header such as user_id,item"),
    "blank lines alone": ("e.csv", "\r\n \r\n", {}, "line 1: is blank, expected a header"),
    "blank first line of a typed file": ("e.inter", "\n", {}, "line 1: is blank, expected a header"),
    "nothing compressed": ("e.csv.gz", gzip.compress(b""), {}, "is empty, expected interactions"),
    "header without an end": ("e.csv", "user,item,time", {}, "has columns but no events"),
    "header without users": ("e.csv", "a,b", {}, "which column holds the user ids?"),
    "repeated header": (
        "e.csv",
        "user,item\na,x\n\nb,y\nuser,item\nb,x\n",
        {},
        "line 5: expected an event, got the header again; remove the repeated header",
    ),
    "repeated typed header": (
        "e.inter",
        "user_id:token\titem_id:token\na\tx\nuser_id:token\titem_id:token\nb\tx\n",
        {},
        "line 3: expected an event, got the header again",
    ),
    "broken compression": ("e.csv.gz", gzip.compress(CSV.encode() * 9)[:-9], {}, "cannot be read as csv"),
    "not compressed": ("e.csv.gz", b"not gzip", {}, "which column holds the user ids?"),
}


@pytest.mark.parametrize(("name", "content", "options", "message"), CASES.values(), ids=CASES)
def test_bad_files(tmp_path, name, content, options, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read(path, DataConfig(**options))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "amazon-toys.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match=r"amazon-toy\.txt: no such file; did you mean 'amazon-toys\.txt'\?"):
        read(tmp_path / "amazon-toy.txt")
    with pytest.raises(DataError, match="no such file, nor is there a folder"):
        read(tmp_path / "data" / "amazon-toys.txt")
    with pytest.raises(DataError, match=r"is a folder without Parquet files; name a file, or a folder with files"):
        read(tmp_path)


def test_bad_parquet_columns(tmp_path):
    def message(**columns):
        path = tmp_path / "e.parquet"
        pq.write_table(pa.table(columns), path)
        with pytest.raises(DataError) as caught:
            read(path)
        return str(caught.value).removeprefix(f"{path}: ")

    good = {"user": ["a", "b", "c"], "item": [1, 2, 3]}
    assert message(**{**good, "user": ["a", None, "c"]}).startswith("row 1 (counted from 0): the user is missing")
    assert message(**{**good, "item": [1.0, 2.5, 3.0]}).startswith(
        "row 1 (counted from 0): the item id must be an integer or a string, got 2.5"
    )
    assert message(**{**good, "user": [[1], [2], [3]]}).startswith("user ids must be strings or integers, got list<")
    assert message(**good, time=[1.0, 2.0, float("nan")]).startswith("row 2 (counted from 0): column 'time': each time")
    assert message(**good, time=[True, False, True]).startswith("column 'time': each time must be an integer")
    assert message(**good, time=pa.array([1, 2, 2**64 - 1], pa.uint64())).startswith(
        "column 'time': times must fit int64"
    )
    assert message(**{key: pa.array(value)[:0] for key, value in good.items()}) == "has columns but no events"


def test_files_of_a_folder_that_do_not_go_together(tmp_path):
    first = {"user": pa.array([1, 2]), "item": pa.array(["x", "y"]), "time": pa.array([3, 4])}
    pq.write_table(pa.table(first), tmp_path / "a.parquet")

    def message(**columns):
        pq.write_table(pa.table(columns), tmp_path / "b.parquet")
        with pytest.raises(DataError) as caught:
            read(tmp_path)
        return str(caught.value)

    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    assert message(**{**first, "time": pa.array([3, 4], pa.timestamp("us"))}) == (
        f"{b}: column 'time' is of type timestamp[us], expected int64 as in {a}; write all files of a folder with the "
        "same types"
    )
    assert message(**{**first, "user": ["u", "v"]}).startswith(f"{b}: column 'user' is of type string, expected int64")
    renamed = {"uid": first["user"], "item": first["item"], "time": first["time"]}
    assert message(**renamed).startswith(
        f"{b}: expected a column 'user', as in other files of the folder, got 'uid', 'item', 'time'; rename"
    )
    assert message(user=[1], item=["x"]).startswith(f"{b}: expected a column 'time', as in other")
    pq.write_table(pa.table({"user": [1], "item": ["x"]}), a)
    assert message(**first).startswith(f"{a}: expected a column 'time', as in other")


def test_bad_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user": ["a", "b"], "item": [1, np.nan]})
    with pytest.raises(DataError, match=r"pandas frame: row 1 \(counted from 0\): the item is missing"):
        from_frame(frame)
    mixed = pandas.DataFrame({"user": pandas.Series(["a", 3], dtype=object), "item": [1, 2]})
    with pytest.raises(DataError, match="pandas frame: cannot be made an Arrow table"):
        from_frame(mixed)

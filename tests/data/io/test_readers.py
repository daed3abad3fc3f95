"""Reading: what each format gives, by example."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rsir.config import DataConfig
from rsir.data import Sequences, from_frame, read
from rsir.errors import DataError, DataWarning
from rsir.runtime.memory import memory_limit
from tests.data.io.logs import EVENTS, WANTED, by_label, put


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", EVENTS),
        ("e.csv", "\ufeff" + EVENTS.replace("\n", "\r\n")),
        ("e.csv", EVENTS.replace(",", ";")),
        ("e.csv", '"user_id","item_id","timestamp"\n' + EVENTS.partition("\n")[2].replace("\n", "\n\n")),
        ("e.tsv", EVENTS.replace(",", "\t")),
        ("e.csv", 'user,item,note,Time\nb,"y",",",3\na,z,n,2\na,x,,1\nb,x,,4\na,"y",",",9\n'),
        ("e.inter", EVENTS.replace(",", "\t").replace("_id", "_id:token").replace("timestamp", "timestamp:float")),
        ("e.txt", "b y x\n\na  x\tz y \r\n"),
        ("e.txt", "a x\nb y\na z\nb x\na y"),
    ],
)  # fmt: skip
def test_the_same_events_in_every_format(tmp_path, name, content):
    data = read(put(tmp_path, name, content))
    assert by_label(data) == WANTED
    assert data.item_labels.to_pylist() == ["x", "y", "z"]
    if not name.endswith(".txt"):
        assert data.times.tolist() == [1, 2, 9, 3, 4]


def test_parquet_and_frames(tmp_path):
    columns = {"userId": list("baaba"), "movieId": list("yzxxy"), "ts": [3, 2, 1, 4, 9]}
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "e.parquet")
    pandas = pytest.importorskip("pandas")
    frames = [from_frame(table), from_frame(pandas.DataFrame(columns)), read(tmp_path / "e.parquet")]
    frames.append(from_frame(pandas.DataFrame(columns).astype({"userId": "category"}).iloc[::-1].sort_index()))
    for data in frames:
        assert by_label(data) == WANTED
    assert len({data.fingerprint() for data in frames}) == 1


def test_files_of_a_folder_with_types_of_one_kind(tmp_path):
    parts = [
        (pa.array([1, 1], pa.int8()), pa.array(["x", "y"]), pa.array([5, 4], pa.int32())),
        (pa.array([2**40, 1]), pa.array(["x", "z"], pa.large_string()), pa.array([2**33, 2**33])),
        (pa.array([1, 300.0]), pa.array(["y", "x"]).dictionary_encode(), pa.array([6, 7], pa.uint16())),
    ]
    for number, (users, items, times) in enumerate(parts):
        table = pa.table({"user": users, "item": items, "time": times})
        for folder in ("flat", f"days/day={number}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            pq.write_table(table, tmp_path / folder / f"{number}.parquet")
    for folder in ("flat", "days"):
        assert by_label(read(tmp_path / folder)) == {1: ["y", "x", "y", "z"], 300: ["x"], 2**40: ["x"]}
    with memory_limit(2**31, tmp_path):
        assert by_label(read(tmp_path / "flat")) == {1: ["y", "x", "y", "z"], 300: ["x"], 2**40: ["x"]}
    by_day = read(tmp_path / "days", DataConfig(user="item", item="user", time="day"))
    assert by_label(by_day) == {"x": [1, 2**40, 300], "y": [1, 1], "z": [1]}


def test_polars(tmp_path):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"user": list("baaba"), "item": list("yzxxy"), "ts": [3, 2, 1, 4, 9]})
    for either in (frame, frame.lazy()):
        assert by_label(from_frame(either)) == WANTED


def test_a_frame_that_is_none():
    with pytest.raises(DataError, match=r"expected a data frame .* got list"):
        from_frame([[1, 2, 3]])
    with pytest.raises(DataError, match="one column cannot serve twice"):
        from_frame(pa.table({"item": [1], "user": [1]}), DataConfig(user="item"))


def test_integer_ids_are_ordered_as_numbers_and_stay_integers(tmp_path):
    for name, content in (
        ("e.txt", "10 100 20\n9 20 100 3\n"),
        ("e.csv", "user,item\n10,100\n10,20\n9,20\n9,100\n9,3\n"),
    ):
        data = read(put(tmp_path, name, content))
        assert by_label(data) == {9: [20, 100, 3], 10: [100, 20]}
        assert data.item_labels.to_pylist() == [3, 20, 100]


def test_ids_that_only_look_like_integers_stay_as_given(tmp_path):
    data = read(put(tmp_path, "e.csv", "user,item\n007,1\n007,01\n007,+1\n7,1\n"))
    assert by_label(data) == {"007": ["1", "01", "+1"], "7": ["1"]}
    huge = str(2**80)
    assert by_label(read(put(tmp_path, "e.txt", f"1 {huge} 2 3\n2 2\n")))[1] == [huge, "2", "3"]


def test_typed_ids_keep_their_type():
    table = pa.table({"user": ["1", "1", "1", "2"], "item": pa.array([7, 8, 9, 7], pa.uint8())})
    assert by_label(from_frame(table)) == {"1": [7, 8, 9], "2": [7]}
    assert by_label(from_frame(pa.table({"user": [1.0, 1.0, 1.0, 2.0], "item": ["a", "b", "c", "a"]}))) == {
        1: ["a", "b", "c"],
        2: ["a"],
    }
    zero = from_frame(pa.table({"user": [0, 0, 0, -1], "item": [0, -5, 3, 0]}))
    assert by_label(zero) == {-1: [0], 0: [0, -5, 3]}


def test_ids_with_spaces_and_any_script(tmp_path):
    content = 'user,item,time\nJörg Müller,"zwei, Dinge",1\nJörg Müller,日本 語,2\n'
    content += 'Jörg Müller,"say ""hi""",3\nمريم,日本 語,1\n'
    assert by_label(read(put(tmp_path, "e.csv", content))) == {
        "Jörg Müller": ["zwei, Dinge", "日本 語", 'say "hi"'],
        "مريم": ["日本 語"],
    }
    content = "Jörg Müller\tzwei Dinge\t日本 語\tc\nمريم\t日本 語\n"
    assert by_label(read(put(tmp_path, "e.txt", content)))["Jörg Müller"] == ["zwei Dinge", "日本 語", "c"]


def test_a_tab_after_the_user_alone(tmp_path):
    assert by_label(read(put(tmp_path, "e.txt", "1\t2 3 4\n2\t3\n"))) == {1: [2, 3, 4], 2: [3]}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["3", "1", "2"], [1, 2, 3]),
        (["3.0", "1e0", "2"], [1, 2, 3]),
        (["1.5", "0.25", "1"], [250_000, 1_000_000, 1_500_000]),
        (["-1", "-3", "0"], [-3, -1, 0]),
        (["1970-01-02", "1970-01-01", "1970-01-01T00:00:01"], [0, 1_000_000, 86_400_000_000]),
        (["1970-01-01 01:00:00+01:00", "1970-01-01T00:00:00.5Z", "1970-01-01T00:00:02Z"], [0, 500_000, 2_000_000]),
        ([str(2**62), "0", "1"], [0, 1, 2**62]),
    ],
)
def test_times_in_text(tmp_path, values, wanted):
    content = "user,item,time\n" + "".join(f"a,{i},{v}\n" for i, v in enumerate(values)) + f"b,0,{values[0]}\n"
    assert read(put(tmp_path, "e.csv", content)).times[:3].tolist() == wanted


def test_times_in_frames():
    def times(values):
        return (
            from_frame(pa.table({"user": ["a"] * 3 + ["b"], "item": [1, 2, 3, 1], "time": values})).times[:3].tolist()
        )

    second = np.array([2, 0, 1, 0])
    for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        assert times(pa.array(second * scale, pa.timestamp(unit))) == [0, 10**6, 2 * 10**6]
    assert times(pa.array(second, pa.timestamp("s", "Europe/Berlin"))) == [0, 10**6, 2 * 10**6]
    assert times(pa.array(second.astype(np.int32)).cast(pa.date32())) == [0, 86_400 * 10**6, 2 * 86_400 * 10**6]
    assert times(pa.array(second, pa.uint8())) == [0, 1, 2]
    assert times(pa.array(second, pa.float32())) == [0, 1, 2]


def test_equal_times_keep_the_order_of_the_file(tmp_path):
    content = "user,item,time\na,z,5\na,x,5\nb,x,1\na,y,5\na,w,1\n"
    assert by_label(read(put(tmp_path, "e.csv", content)))["a"] == ["w", "z", "x", "y"]


def test_exact_duplicates_are_dropped_and_counted(tmp_path):
    content = "user,item,time\na,x,1\na,y,2\na,x,1\na,x,3\nb,x,1\na,y,2\na,x,1\n"
    with pytest.warns(
        DataWarning, match=r"e\.csv: dropped 3 of 7 events that repeat another one's user, item and time"
    ) as seen:
        data = read(put(tmp_path, "e.csv", content))
    assert seen[0].filename == __file__
    assert by_label(data) == {"a": ["x", "y", "x"], "b": ["x"]}


def test_repeats_without_times_are_kept(tmp_path):
    assert by_label(read(put(tmp_path, "e.txt", "1 2 2 3 2\n2 3\n"))) == {1: [2, 2, 3, 2], 2: [3]}
    assert len(read(put(tmp_path, "e.csv", "user,item\na,x\na,x\na,x\nb,x\n"))[0]) == 3


def test_time_is_missed_if_other_columns_are_there(tmp_path):
    content = "user,item,when\na,x,3\na,y,2\na,z,1\nb,x,1\n"
    with pytest.warns(DataWarning, match="no column of times found among 'user', 'item', 'when'"):
        data = read(put(tmp_path, "e.csv", content))
    assert by_label(data)["a"] == ["x", "y", "z"]
    assert by_label(read(tmp_path / "e.csv", DataConfig(time="when")))["a"] == ["z", "y", "x"]


def test_columns_by_option_and_by_usual_name(tmp_path):
    content = "item_id,asin,reviewerID,unixReviewTime,overall\n9,x,a,3,5\n9,y,a,2,1\n9,z,a,1,5\n9,x,b,1,5\n"
    path = put(tmp_path, "e.csv", content)
    assert by_label(read(path, DataConfig(item="asin")))["a"] == ["z", "y", "x"]
    assert by_label(read(path, DataConfig(item="asin", time="overall")))["a"] == ["y", "x", "z"]


def test_minimum_rating_comes_before_duplicates(tmp_path):
    content = "user,item,time,stars\na,x,1,1\na,x,1,5\na,y,2,4.5\na,z,3,4\na,w,4,5\nb,x,1,4.5\n"
    data = read(put(tmp_path, "e.csv", content), DataConfig(min_rating=4.5))
    assert by_label(data) == {"a": ["x", "y", "w"], "b": ["x"]}


def test_an_item_may_be_called_as_its_column(tmp_path):
    content = "user,item\nuser,x\nuser,y\nuser,z\na,item\na,x\na,y\n"
    assert by_label(read(put(tmp_path, "e.csv", content))) == {"a": ["item", "x", "y"], "user": ["x", "y", "z"]}


def test_formats_by_option_and_compression(tmp_path):
    import gzip

    assert by_label(read(put(tmp_path, "events", EVENTS), DataConfig(format="csv"))) == WANTED
    assert by_label(read(put(tmp_path, "e.csv.gz", gzip.compress(EVENTS.encode())))) == WANTED


def test_a_saved_file_is_loaded_whole(tmp_path):
    data = Sequences.from_lists([[1, 2, 3], [3]], num_items=9)
    data.save(tmp_path / "s.parquet")
    assert read(tmp_path / "s.parquet").fingerprint() == data.fingerprint()
    with pytest.raises(DataError, match="min_rating and k_core cannot filter"):
        read(tmp_path / "s.parquet", DataConfig(k_core=2))


def test_rows_are_numbered_the_same_whatever_the_order_of_the_file(tmp_path):
    random = np.random.default_rng(0)
    lines = [
        f"u{u},i{i},{t}"
        for t, (u, i) in enumerate(zip(random.integers(0, 9, 200), random.integers(0, 30, 200), strict=True))
    ]
    prints = set()
    for _ in range(3):
        random.shuffle(lines)
        prints.add(read(put(tmp_path, "e.csv", "user,item,time\n" + "\n".join(lines))).fingerprint())
    assert len(prints) == 1


def test_a_large_csv_is_read_in_chunks(tmp_path):
    """Dictionaries of several chunks are joined."""
    rows = np.arange(400_000)
    lines = np.char.add(np.char.add("user", (rows // 4).astype(str)), np.char.add(",item", (rows % 997).astype(str)))
    data = read(put(tmp_path, "e.csv", "user,item\n" + "\n".join(lines.tolist())))
    assert (len(data), data.num_items, data.num_interactions) == (100_000, 997, 400_000)
    row = data.user_labels.index("user777").as_py()
    assert data.item_labels.take(pa.array(data[row] - 1)).to_pylist() == [f"item{i % 997}" for i in range(3108, 3112)]


def test_nothing_is_warned_of_without_cause(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        timed = read(put(tmp_path, "e.csv", EVENTS))
        rated = read(put(tmp_path, "f.csv", "user,item,rating\na,x,1\na,y,1\na,z,1\nb,x,1\n"))
    assert timed.times is not None
    assert (rated.lengths.tolist(), rated.times) == ([3, 1], None)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_any_log_against_a_loop(events):
    """Order, ties and duplicates, by the definition."""
    wanted = {}
    for user, item, time in dict.fromkeys(events):
        wanted.setdefault(user, []).append((time, item))
    wanted = {user: [item for _, item in sorted(row, key=lambda e: e[0])] for user, row in sorted(wanted.items())}
    assume(len(wanted) > 1 and max(map(len, wanted.values())) > 2)
    users, items, times = zip(*events, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert by_label(from_frame(pa.table({"user": users, "item": items, "time": times}))) == wanted

"""Files that were once read as nonsense: right now, or refused by name."""

from __future__ import annotations

import bz2
import decimal
import gzip
import json
import re
import uuid
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsir.config import DataConfig
from rsir.data import from_frame, read
from rsir.errors import DataError, DataWarning
from rsir.runtime import memory
from rsir.runtime.memory import memory_limit
from tests.data.io.logs import by_label, put

ROWS = [
    (user, 10 + (2 * user + step) % 9, 1 + step % 5, 978_300_000 + 60 * step)
    for user in range(1, 9)
    for step in range(6)
]
PAIRS = {user: [row[1] for row in ROWS if row[0] == user] for user in range(1, 9)}


def table(separator, header="", columns=4):
    return header + "".join(separator.join(map(str, row[:columns])) + "\n" for row in ROWS)


class TestTablesAsText:
    @pytest.mark.parametrize("options", [{}, {"format": "text"}])
    @pytest.mark.parametrize("separator", ["\t", " "])
    @pytest.mark.parametrize("name", ["log.txt", "log.dat"])
    def test_times_are_no_items(self, tmp_path, name, separator, options):
        path = put(tmp_path, name, table(separator))
        with pytest.raises(DataError, match=r"is a table of 4 columns, .* for example .*--data.user 0 --data.item 1 "):
            read(path, DataConfig(**options))
        typed = DataConfig(user="0", item="1", time="3", **({"format": "csv"} if options else {}))
        assert by_label(read(path, typed)) == PAIRS

    def test_the_sentence_tells_what_reads_it(self, tmp_path):
        path = put(tmp_path, "log.txt", table("\t"))
        for file_format in ("auto", "text"):
            with pytest.raises(DataError) as caught:
                read(path, DataConfig(format=file_format))
            named = dict(re.findall(r"--data\.(\w+) (\w+)", str(caught.value)))
            assert by_label(read(path, DataConfig(**named))) == PAIRS

    def test_a_header_of_usual_names_makes_it_a_table(self, tmp_path):
        path = put(tmp_path, "log.dat", table("\t", "userID\titemID\trating\ttimestamp\n"))
        assert by_label(read(path)) == PAIRS
        with pytest.raises(DataError, match=r"is a table of 4 columns, .*read it as a table by --data\.format csv"):
            read(path, DataConfig(format="text"))

    def test_ratings_are_no_items(self, tmp_path):
        path = put(
            tmp_path, "log.txt", "".join(f"{u} {100 + 7 * u + s} {1 + s % 5}\n" for u in range(9) for s in range(9))
        )
        with pytest.raises(
            DataError, match=r"field 3 of each line is one of 5 numbers, .*--data.format text reads them"
        ):
            read(path)
        halves = put(tmp_path, "halves.txt", table(" ", columns=2).replace("\n", " 3.5\n"))
        with pytest.raises(DataError, match="field 3 of each line is a number with a fraction"):
            read(halves, DataConfig(format="text"))

    def test_sequences_stay_sequences(self, tmp_path):
        for content in (
            "1 2 3 4\n2 3 4 5\n",
            "".join(f"{user} {user + 1} {user + 2} {user + 3}\n" for user in range(1, 400)),
            "1 978300000 978300001 978300002\n2 978300002 978300000 978300001\n",
            "user 0\titem 45\titem 0\titem 28\nuser 1\titem 45\titem 0\titem 1\n",
            "".join(f"{1 + user % 5} {user + 1} {user + 7} {user + 9}\n" for user in range(200)),
        ):
            path = put(tmp_path, "s.txt", content)
            fields = [line.split("\t" if "\t" in line else " ") for line in content.splitlines()]
            assert read(path).num_interactions == sum(map(len, fields)) - len(fields)


class TestMissing:
    @pytest.mark.parametrize("marker", ["NA", "NaN", "null", "None", r"\N", "nan", "<NA>"])
    def test_a_marker_is_named_and_counted(self, tmp_path, marker):
        lines = [
            f"{session};{marker if session > 2 else session};{item};{4 * session + item}"
            for session in range(1, 8)
            for item in range(4)
        ]
        path = put(tmp_path, "e.csv", "session_id;user_id;item_id;timestamp\n" + "\n".join(lines))
        wanted = rf"column 'user_id' holds {re.escape(repr(marker))} in 20 of 28 rows.*--data\.user session_id"
        with pytest.warns(DataWarning, match=wanted) as seen:
            read(path)
        assert seen[0].filename == __file__
        with pytest.warns(
            DataWarning, match=r"dropped 20 of 28 rows: 20 without a user that can be read \('user_id'\)"
        ):
            assert len(read(path, DataConfig(on_bad_row="drop"))) == 2
        assert len(read(path, DataConfig(user="session_id"))) == 7

    def test_empty_users_beside_sessions(self, tmp_path):
        content = "session_id,user_id,item_id,time\n" + "".join(
            f"{s},{'' if s else 1},{i},{i}\n" for s in range(5) for i in range(4)
        )
        with pytest.raises(
            DataError, match=r"as in 16 of 20 rows; take the sessions as users by --data\.user session_id"
        ):
            read(put(tmp_path, "e.csv", content))

    def test_real_names_are_left_alone(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = read(put(tmp_path, "e.csv", "user,item\nNaomi,a\nNaomi,b\nNaomi,c\nNullah,a\n"))
        assert by_label(data) == {"Naomi": ["a", "b", "c"], "Nullah": ["a"]}


class TestIds:
    def test_whole_floats_are_integers(self, tmp_path):
        for values in (["1", "1.0", "1", "2.0"], ["1.0", "1.0", "1.00", "2.0"]):
            content = "user,item\n" + "".join(f"{user},{10 + place}.0\n" for place, user in enumerate(values))
            assert by_label(read(put(tmp_path, "e.csv", content))) == {1: [10, 11, 12], 2: [13]}

    @pytest.mark.parametrize(
        ("users", "message"),
        [
            (["a", "1", "1.0"], "the user ids hold both '1' and '1.0', likely one and the same"),
            (["9007199254740994.0", "5", "5"], r"line 2: the user ids are floats, and 9007199254740994\.0 is above"),
            (["1.23e+17", "1.24e+17", "5"], r"line 2: the user id '1\.23e\+17' is a rounded number"),
        ],
    )
    def test_text_that_says_less_than_it_should(self, tmp_path, users, message):
        content = "user,item\n" + "".join(f"{user},{item}\n" for user in users for item in range(3))
        with pytest.raises(DataError, match=message):
            read(put(tmp_path, "e.csv", content))

    def test_large_floats_are_refused(self):
        frame = pa.table({"user": [2.0**53 + 2, 1.0, 1.0, 1.0], "item": [1, 2, 3, 4]})
        with pytest.raises(DataError, match=r"row 0 .*the user ids are floats, and 9007199254740994 is above 2\*\*53"):
            from_frame(frame)

    @pytest.mark.parametrize("shift", [0, 2**63])
    def test_unsigned(self, shift):
        users = pa.array([9 + shift, 10 + shift, 10 + shift, 10 + shift], pa.uint64())
        labels = from_frame(pa.table({"user": users, "item": [1, 2, 3, 4]})).user_labels.to_pylist()
        assert labels == ([9, 10] if not shift else [str(9 + shift), str(10 + shift)])

    def test_decimals_and_uuids(self, tmp_path):
        users = [decimal.Decimal(value) for value in ("7", "8", "8", "8")]
        items = [uuid.UUID(int=value) for value in (5, 5, 6, 7)]
        binary = pa.array([item.bytes for item in items], pa.binary(16))
        pq.write_table(
            pa.table({"user": pa.array(users, pa.decimal128(20, 0)), "item": binary}), tmp_path / "e.parquet"
        )
        wanted = {7: [str(items[0])], 8: list(map(str, items[1:]))}
        assert by_label(read(tmp_path / "e.parquet")) == wanted
        with memory_limit(2**36, tmp_path):
            assert by_label(read(tmp_path / "e.parquet")) == wanted
        pandas = pytest.importorskip("pandas")
        assert by_label(from_frame(pandas.DataFrame({"user": users, "item": items}))) == wanted

    def test_partitions_keep_their_zeros(self, tmp_path):
        for store in ("007", "07", "12"):
            (tmp_path / f"store={store}").mkdir()
            pq.write_table(pa.table({"item": [1, 2, 3]}), tmp_path / f"store={store}" / "a.parquet")
        assert by_label(read(tmp_path, DataConfig(user="store"))) == {s: [1, 2, 3] for s in ("007", "07", "12")}


class TestLists:
    def test_parquet(self, tmp_path, monkeypatch):
        monkeypatch.setattr(memory, "_SMALL", 64)
        columns = {"session_id": [7, 8], "item_id-list": [["a", "b", "c"], ["b"]], "timestamp-list": [[3, 1, 2], [5]]}
        pq.write_table(pa.table(columns), tmp_path / "e.parquet")
        wanted = {7: ["b", "c", "a"], 8: ["b"]}
        assert by_label(read(tmp_path / "e.parquet")) == wanted
        with memory_limit(2**36, tmp_path):
            assert by_label(read(tmp_path / "e.parquet")) == wanted
        assert by_label(from_frame(pa.table(columns))) == wanted
        columns["timestamp-list"] = [[3, 1, 2], [5, 6]]
        with pytest.raises(DataError, match=r"row 1 .*expected as many entries in 'timestamp-list' as items, 1, got 2"):
            from_frame(pa.table(columns))

    def test_sequences_of_tokens(self, tmp_path):
        content = "user_id:token\titem_id:token_seq\ttimestamp:float\n1\t4 5 6\t100\n1\t6 7\t90\n2\t9\t5\n"
        data = read(put(tmp_path, "e.inter", content))
        assert by_label(data) == {1: [6, 7, 4, 5, 6], 2: [9]}
        assert data.times.tolist() == [90, 90, 100, 100, 100, 5]

    def test_a_fault_in_a_list_has_its_row(self):
        frame = pa.table({"user": [1, 2], "items": [["a"] * 3, ["b", None]]})
        with pytest.raises(DataError, match=r"row 1 \(counted from 0\): the item is missing"):
            from_frame(frame)


class TestTimes:
    @pytest.mark.parametrize(
        "values",
        [
            ["2019-10-01 00:00:02 UTC", "2019-10-01 00:00:00 UTC", "2019-10-01 00:00:01 UTC"],
            ["2019-10-01T00:00:02.000000009", "2019-10-01T00:00:00.999999999", "2019-10-01T00:00:01.123456789"],
            ["2019-10-01 00:00:02.123456789Z", "2019-10-01 00:00:00.1Z", "2019-10-01 00:00:01.123456789Z"],
        ],
    )
    def test_dates_that_arrow_does_not_read(self, tmp_path, values):
        content = "user,item,time\n" + "".join(f"a,{i},{value}\nb,1,{value}\n" for i, value in enumerate(values))
        assert by_label(read(put(tmp_path, "e.csv", content)))["a"] == [1, 2, 0]

    @pytest.mark.parametrize(
        ("form", "values"),
        [
            ("%m/%d/%Y %H:%M", ["12/10/2010 8:26", "12/9/2010 9:00", "12/9/2010 12:00"]),
            ("%d/%m/%Y", ["3/1/2020", "1/1/2020", "2/1/2020"]),
            ("%a %b %d %H:%M:%S %z %Y", [f"Wed Mar 22 1{hour}:37:04 -0700 2017" for hour in (3, 1, 2)]),
            ("%Y%m%d", ["20200103", "20200101", "20200102"]),
            ("%Y-%m-%d %H:%M:%S,%f", [f"2020-01-01 00:00:00,{part}" for part in (3, 1, 2)]),
        ],
    )
    def test_a_format(self, tmp_path, form, values):
        content = "user;item;time\n" + "".join(f"a;{i};{value}\nb;1;{value}\n" for i, value in enumerate(values))
        path = put(tmp_path, "e.csv", content)
        assert by_label(read(path, DataConfig(time_format=form)))["a"] == [1, 2, 0]
        put(tmp_path, "e.csv", content + "a;9;soon\n")
        with pytest.raises(DataError, match=r"line 8: column 'time': expected a time written as .*, got 'soon'"):
            read(path, DataConfig(time_format=form))
        with pytest.raises(DataError, match=r"data\.time_format '%m %!' is no format"):
            read(path, DataConfig(time_format="%m %!"))

    def test_the_format_is_suggested(self, tmp_path):
        content = "user,item,time\na,1,12/1/2010 8:26\na,2,12/1/2010 8:27\n"
        with pytest.raises(
            DataError, match=r"say how it is written by --data\.time_format '%m/%d/%Y %H:%M' \('%d/%m/%Y"
        ):
            read(put(tmp_path, "e.csv", content))


class TestBadRows:
    def test_all_kinds_are_counted(self, tmp_path):
        content = "user,item,time\na,1,5\na,2\n,3,6\na,,7\na,NULL,8\na,4,soon\na,5,9\nb,1,1,1\na,6,10\nb,1,3\n"
        path = put(tmp_path, "e.csv", content)
        for within in (None, 2**36):
            with (
                memory_limit(within, tmp_path),
                pytest.warns(
                    DataWarning, match=r"dropped 6 of 10 rows: 1 without a user .*, 2 without an? item .*, 1 with"
                ),
            ):
                assert by_label(read(path, DataConfig(on_bad_row="drop"))) == {"a": [1, 5, 6], "b": [1]}
        with pytest.raises(DataError, match=r"line 3: expected 3 fields as in the header, got 2: 'a,2'"):
            read(path)

    def test_lines_of_json(self, tmp_path):
        rows = [{"user": u, "item": i, "ts": i} for u in (1, 2) for i in range(3)]
        content = "\n".join([*map(json.dumps, rows[:4]), "{broken", "[1]", *map(json.dumps, rows[4:])])
        path = put(tmp_path, "e.jsonl", content)
        with pytest.raises(DataError, match=r"e\.jsonl: line 5: expected a JSON object, got '\{broken'"):
            read(path)
        with pytest.warns(DataWarning, match="dropped 2 of 8 rows"):
            assert by_label(read(path, DataConfig(on_bad_row="drop"))) == {1: [0, 1, 2], 2: [0, 1, 2]}

    def test_headers_and_short_lines(self, tmp_path):
        path = put(tmp_path, "e.csv", "user,item\na,x\na,y\na,z\nuser,item\nb,x\n")
        with pytest.warns(DataWarning, match="dropped 1 repeated headers"):
            assert len(read(path, DataConfig(on_bad_row="drop"))) == 2
        path = put(tmp_path, "e.txt", "1 2 3 4\n5\n2 3 4 5\n")
        with pytest.warns(DataWarning, match="dropped 1 of 3 lines without items"):
            assert len(read(path, DataConfig(on_bad_row="drop"))) == 2


class TestFiles:
    def test_json_within_a_limit(self, tmp_path, monkeypatch):
        monkeypatch.setattr("rsir.data.io.jsonl._PIECE", 300)
        monkeypatch.setattr("rsir.data.io.jsonl._SAMPLE", 20)
        content = "".join(json.dumps({"user": f"u{u}", "other": {"a": [1]}, "item": i, "ts": i / 2}) + "\n\n"
                          for u in range(9) for i in range(9))  # fmt: skip
        path = put(tmp_path, "e.json", content)
        data = read(path)
        assert by_label(data) == {f"u{u}": list(range(9)) for u in range(9)}
        assert data.times[:3].tolist() == [0, 500_000, 1_000_000]
        with memory_limit(2**36, tmp_path):
            assert read(path).fingerprint() == data.fingerprint()
        put(tmp_path, "e.json", content + '{"user": "x", "item": "seven", "ts": 1}\n')
        with pytest.raises(
            DataError, match=r"e\.json: line 163: expected a number as 'item', as in the lines before it"
        ):
            read(path)

    @pytest.mark.parametrize("slow", [False, True])
    def test_objects_within_objects(self, tmp_path, monkeypatch, slow):
        from pyarrow import json as arrow_json

        arrows, calls = arrow_json.read_json, []

        def read_json(*arguments, **options):
            calls.append(slow)
            if slow:
                raise pa.ArrowInvalid
            return arrows(*arguments, **options)

        monkeypatch.setattr(arrow_json, "read_json", read_json)
        rows = [
            {"who": {"user": "a", "age": 3}, "events": [{"aid": 5, "ts": 1}, {"ts": 2, "aid": 6, "x": [1]}]},
            {"who": {"user": "b"}, "events": []},
            {"who": {"user": "b"}, "events": None},
            {"who": {"user": "b"}},
            {"who": {"user": "a"}, "events": [{"aid": 7, "ts": 9}]},
            {"who": {"user": "b"}, "events": [{"aid": 7, "ts": 3}], "more": {"deep": [1]}},
        ]
        path = put(tmp_path, "e.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        data = read(path)
        assert by_label(data) == {"a": [5, 6, 7], "b": [7]}
        assert data.times.tolist() == [1, 2, 9, 3]
        assert calls == [slow]
        put(tmp_path, "e.jsonl", path.read_text() + json.dumps({"who": {"user": "a"}, "events": [{"ts": 4}]}) + "\n")
        with pytest.raises(DataError, match=r"line 7: the item is missing"):
            read(path)

    @pytest.mark.parametrize("bare", ["null", " \t null", '{"user": 1, "item": 2} null', '{"user": 1}null{"user": 1}'])
    @pytest.mark.parametrize("place", [0, 4, 8], ids=["first", "within", "last"])
    def test_a_null_that_is_no_object(self, tmp_path, monkeypatch, bare, place):
        """Arrow's reader of JSON reads it as an object without fields, or ends the process."""
        monkeypatch.setattr("rsir.data.io.jsonl._SAMPLE", 3)
        monkeypatch.setattr("rsir.data.io.jsonl._PIECE", 60)
        rows = [json.dumps({"user": u, "item": i, "ts": i, "a": "}\nnull"}) for u in (1, 2) for i in range(4)]
        got = re.escape(repr(bare.strip()))
        path = put(tmp_path, "e.jsonl", "\n".join([*rows[:place], bare, *rows[place:]]))
        with pytest.raises(DataError, match=rf"line {place + 1}: expected a JSON object, got {got}"):
            read(path)
        with pytest.warns(DataWarning, match="dropped 1 of 9 rows"):
            assert by_label(read(path, DataConfig(on_bad_row="drop"))) == {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}

    def test_an_array_of_json(self, tmp_path):
        with pytest.raises(
            DataError, match=r"is one JSON array, expected an object a line: write it so by jq -c '\.\[\]'"
        ):
            read(put(tmp_path, "e.json", '[{"user": 1}]'))

    @pytest.mark.parametrize("name", ["E.CSV.GZ", "e.csv", "e.csv.bz2"])
    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, bytes])
    def test_compression_goes_by_content(self, tmp_path, name, pack):
        path = put(tmp_path, name, pack(table(",", "user,item,rating,time\n").encode()))
        assert by_label(read(path)) == PAIRS

    @pytest.mark.parametrize(
        ("start", "message"),
        [(b"PK\x03\x04", "is a zip archive or a workbook"), (b"\xfd7zXZ\x00", "is compressed by xz"),
         (b"\x00" * 257 + b"ustar", "is a tar archive")],
    )  # fmt: skip
    def test_archives(self, tmp_path, start, message):
        with pytest.raises(DataError, match=message):
            read(put(tmp_path, "e.csv", start + b"\x00" * 600))

    def test_folders(self, tmp_path):
        (tmp_path / "days" / "one").mkdir(parents=True)
        header = "user,item,rating,time\n"
        body = table(",").splitlines(keepends=True)
        put(tmp_path / "days", "a.csv", header + "".join(body[:20]))
        put(tmp_path / "days" / "one", "b.csv.gz", gzip.compress((header + "".join(body[20:])).encode()))
        put(tmp_path / "days", "README.txt", "no data")
        assert by_label(read(tmp_path / "days")) == PAIRS
        with memory_limit(2**36, tmp_path):
            assert by_label(read(tmp_path / "days")) == PAIRS
        put(tmp_path / "days", "c.csv", header + "5,9,1,1\n5,9,1,soon\n")
        with pytest.raises(DataError, match=r"c\.csv: line 3: column 'time': expected"):
            read(tmp_path / "days")
        put(tmp_path / "days", "c.csv", "movie,title\n5,9\n")
        with pytest.raises(DataError, match=r"c\.csv: expected the columns of a\.csv, 'user', .* name one file"):
            read(tmp_path / "days")

    def test_long_fields(self, tmp_path):
        long = "x" * 3_000_000
        content = "user,item,note\n" + "".join(f'a,{i},"{long}"\nb,{i},n\n' for i in range(3))
        with pytest.warns(DataWarning, match="no column of times"):
            assert by_label(read(put(tmp_path, "e.csv", content))) == {"a": [0, 1, 2], "b": [0, 1, 2]}
        with pytest.raises(DataError, match=r"which column holds the user ids"):
            read(put(tmp_path, "e.csv", f'"{long}",b\n1,2\n'))

    @pytest.mark.parametrize("mark", [",", "\t"])
    def test_quotes_that_swallow_lines(self, tmp_path, mark):
        rows = [[user, item, '"odd', time] for user in "ab" for time, item in enumerate("wxyz")]
        content = "".join(mark.join(map(str, row)) + "\n" for row in [["user", "item", "title", "time"], *rows])
        path = put(tmp_path, "e.csv", content)
        with pytest.raises(DataError, match="has joined 8 lines to 4 rows; remove the quotes by tr -d"):
            read(path)
        wanted = {"a": list("wxyz"), "b": list("wxyz")}
        assert by_label(read(put(tmp_path, "e.csv", content.replace('"', "")))) == wanted
        assert by_label(read(put(tmp_path, "e.csv", content.replace('"odd', '"o\n""d"')))) == wanted
        assert by_label(read(put(tmp_path, "e.csv", content.replace('"odd', 'o"d') + "\n\n"))) == wanted

    def test_encodings(self, tmp_path, capfd):
        content = "user,item,time\nJörg,é,1\nJörg,b,2\nJörg,c,3\nb,é,1\n"
        wanted = {"Jörg": ["é", "b", "c"], "b": ["é"]}
        with pytest.raises(DataError, match=r"name its encoding by --data\.encoding latin-1"):
            read(put(tmp_path, "e.csv", content.encode("latin-1")))
        assert by_label(read(tmp_path / "e.csv", DataConfig(encoding="latin-1"))) == wanted
        assert by_label(read(put(tmp_path, "u.csv", content.encode("utf-16")))) == wanted
        short = put(tmp_path, "s.csv", "user,item,time\nJörg,é\n".encode("latin-1"))
        with pytest.raises(DataError, match=r"line 2: expected UTF-8 text, .* --data\.encoding latin-1"):
            read(short)
        assert capfd.readouterr().err == ""
        with pytest.raises(ValueError, match=r"data\.encoding: expected an encoding of text"):
            DataConfig(encoding="klingon")
        with pytest.raises(DataError, match="is not text of the encoding utf-16"):
            read(put(tmp_path, "o.csv", b"user,item\n1,2\n3"), DataConfig(encoding="utf-16"))

    def test_a_header_where_it_is_said(self, tmp_path):
        path = put(tmp_path, "e.csv", "ann,alpha\nann,beta\nann,gamma\nbob,alpha\n")
        assert by_label(read(path, DataConfig(user="0", item="1"))) == {
            "ann": ["alpha", "beta", "gamma"],
            "bob": ["alpha"],
        }
        with pytest.raises(DataError, match="no user has 3 or more"):
            read(path, DataConfig(user="0", item="1", header="present"))
        numbered = put(tmp_path, "n.csv", "user,item\n" + table(",", columns=2))
        assert by_label(read(numbered, DataConfig(user="0", item="1"))) == PAIRS
        with pytest.raises(DataError, match=r"no column '7' for the user .* give a name, or a number from 0"):
            read(numbered, DataConfig(user="7"))


def test_reading_numbers_of_columns_in_frames():
    frame = pa.table({"0": [1, 1, 1, 2], "1": [5, 6, 7, 5]})
    assert by_label(from_frame(frame, DataConfig(user="0", item="1"))) == {1: [5, 6, 7], 2: [5]}
    assert np.array_equal(from_frame(frame, DataConfig(user="0", item="1")).items, [1, 2, 3, 1])

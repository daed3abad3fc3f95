"""`.pth` lists, plain and as the RSIR authors keep them."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsir.data import read
from rsir.errors import DataError


def rows_of(data):
    return {
        user: data.item_labels.take(pa.array(data[row] - 1)).to_pylist()
        for row, user in enumerate(data.user_labels.to_pylist())
    }


def put(folder, value):
    torch.save(value, folder / "rows.pth")
    return folder / "rows.pth"


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(1, 2**62), max_size=6), min_size=2, max_size=8))
def test_lists_round_trip(tmp_path_factory, rows):
    wanted = {user: row for user, row in enumerate(rows, 1) if row}
    assume(len(wanted) > 1 and max(map(len, rows)) >= 3)
    assert rows_of(read(put(tmp_path_factory.mktemp("pth"), rows))) == wanted


@settings(max_examples=30)
@given(
    st.dictionaries(st.integers(1, 99), st.lists(st.integers(1, 30), min_size=2, max_size=9), min_size=2, max_size=6),
    st.booleans(),
)
def test_records_of_the_authors_round_trip(tmp_path_factory, sequences, training):
    assume(max(map(len, sequences.values())) >= 3)

    def padded(items):
        return items + [0] * (10 - len(items))

    records = [
        [user, padded(row[:-1]), padded(row[1:]) if training else row[-1], len(row) - 1, [1] * 10, 0]
        for user, row in sequences.items()
    ]
    data = read(put(tmp_path_factory.mktemp("pth"), records))
    assert rows_of(data) == dict(sorted(sequences.items()))


BAD = {
    "a dictionary": ({"rows": [[1]]}, "holds dict"),
    "nothing": ([], "holds an empty list"),
    "a number": ([[1, 2, 3], 4], r"row 1 \(counted from 0\) is int 4"),
    "fractions": ([[1, 2, 3], [1, 2.5]], r"row 1 \(counted from 0\): item ids must be integers, got 2\.5"),
    "truth": ([[1, 2, 3], [True, 2]], "item ids must be integers, got True"),
    "tensors": ([torch.tensor([1, 2, 3])], "is Tensor"),
    "padding": ([[1, 2, 3], [1, 0]], r"row 1 \(counted from 0\): expected item ids from 1, as 0 is padding, got 0"),
    "only empty": ([[], []], "holds 2 empty lists"),
    "huge": ([[1, 2, 2**70]], "must fit int64"),
    "no record": ([[1, [2, 3], 4, 5]], r"row 0 .*expected a record"),
    "other targets": ([[1, [2, 3], [9, 4], 2]], "must be its history moved by one"),
    "two rows of a user": ([[1, [2, 3], 4, 2]] * 2, "user 1 has 2 rows, the first of them row 0"),
}


@pytest.mark.parametrize(("value", "message"), BAD.values(), ids=BAD)
def test_anything_else_is_refused(tmp_path, value, message):
    with pytest.raises(DataError, match=message):
        read(put(tmp_path, value))


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_is_executed(tmp_path):
    torch.save([Harmful()], tmp_path / "rows.pth")
    with pytest.raises(DataError, match="cannot be read without executing what it holds; expected a list"):
        read(tmp_path / "rows.pth")
    (tmp_path / "rows.pth").write_bytes(pickle.dumps([Harmful()], protocol=2))
    with pytest.raises(DataError, match="cannot be read without executing what it holds"):
        read(tmp_path / "rows.pth")
    (tmp_path / "rows.pth").write_bytes(b"no pickle")
    with pytest.raises(DataError, match="cannot be read without executing"):
        read(tmp_path / "rows.pth")

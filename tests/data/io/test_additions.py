"""New events behind sequences that are there: ids stay, new users and items come after, and what cannot be is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import rsir
from rsir.config import DataConfig
from rsir.data import Sequences
from rsir.data.io.additions import add_events
from rsir.errors import DataError, DataWarning

CONFIG = DataConfig()


def frame(*rows: tuple[object, object, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user", "item", "time"])


@pytest.fixture(scope="module")
def known() -> Sequences:
    rows = [("b", "x", 1), ("b", "y", 2), ("b", "z", 3), ("d", "y", 1), ("d", "x", 5), ("d", "w", 7)]
    return rsir.from_frame(frame(*rows))


def named(data: Sequences) -> dict[str, list[tuple[str, int]]]:
    assert data.item_labels is not None
    assert data.user_labels is not None
    assert data.times is not None
    found = {}
    for row, user in enumerate(data.user_labels.to_pylist()):
        part = slice(data.offsets[row], data.offsets[row + 1])
        items = [data.item_labels[item - 1].as_py() for item in data.items[part]]
        found[user] = list(zip(items, data.times[part].tolist(), strict=True))
    return found


def test_known_ids_stay_and_new_ones_follow(known: Sequences) -> None:
    new = frame(("d", "a", 9), ("c", "q", 4), ("a", "x", 6), ("d", "y", 8), ("a", "q", 2), ("b", "z", 3), ("d", "y", 8))
    with pytest.warns(DataWarning, match="dropped 1 of 7 events"):
        added = add_events(known, new, CONFIG)
    assert (added.events, added.users, added.items, added.repeated, added.filtered) == (5, 2, 2, 1, 0)
    assert added.data.user_labels.to_pylist() == ["b", "d", "a", "c"]
    assert added.data.item_labels.to_pylist() == ["w", "x", "y", "z", "a", "q"]
    assert named(added.data) == {
        "b": [("x", 1), ("y", 2), ("z", 3)],
        "d": [("y", 1), ("x", 5), ("w", 7), ("y", 8), ("a", 9)],
        "a": [("q", 2), ("x", 6)],
        "c": [("q", 4)],
    }


def test_the_whole_log_again_adds_what_is_new_in_it(known: Sequences) -> None:
    """However events are dealt out over several updates, users have the same."""
    rng = np.random.default_rng(0)
    rows = [(f"u{rng.integers(9)}", f"i{rng.integers(20)}", int(time)) for time in rng.permutation(200)]
    whole = rsir.from_frame(frame(*rows))
    early = rsir.from_frame(frame(*(row for row in rows if row[2] < 120)))
    middle = add_events(early, frame(*(row for row in rows if row[2] < 160)), CONFIG)
    assert middle.repeated == 120
    last = add_events(middle.data, frame(*(row for row in rows if row[2] >= 160)), CONFIG)
    again = add_events(early, whole, CONFIG)
    assert named(last.data) == named(again.data) == {user: named(whole)[user] for user in named(last.data)}


def test_new_users_and_items_need_the_core(known: Sequences) -> None:
    new = frame(("d", "a", 9), ("e", "x", 9), ("e", "y", 10), ("e", "z", 11), ("b", "y", 9))
    added = add_events(known, new, dataclasses.replace(CONFIG, k_core=3))
    assert added.filtered == 1
    assert named(added.data)["e"] == [("x", 9), ("y", 10), ("z", 11)]
    assert "a" not in added.data.item_labels.to_pylist()
    with pytest.raises(DataError, match="fewer than k_core 3"):
        add_events(known, frame(("d", "a", 9)), dataclasses.replace(CONFIG, k_core=3))


def test_without_times(tmp_path) -> None:
    known = Sequences.from_lists([[1, 2, 3], [2, 3, 4]])
    (tmp_path / "new.txt").write_text("2 1 5\n3 1 2 3\n")
    added = add_events(known, tmp_path / "new.txt", CONFIG)
    assert [row.tolist() for row in (added.data[0], added.data[1], added.data[2])] == [
        [1, 2, 3],
        [2, 3, 4, 1, 5],
        [1, 2, 3],
    ]
    assert added.data.item_labels.to_pylist() == [1, 2, 3, 4, 5]
    with pytest.warns(DataWarning, match="the run's events have no times"):
        timed = add_events(known, frame((1, 5, 9), (1, 4, 3)), CONFIG)
    assert timed.data[0].tolist() == [1, 2, 3, 4, 5]
    assert timed.data.times is None
    (tmp_path / "all.txt").write_text("1 1 2 3 4\n2 2 3 4 1\n")
    with pytest.raises(DataError, match="repeats all that the run knows of 2 of its 2 users"):
        add_events(known, tmp_path / "all.txt", CONFIG)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (frame(("q", "q", 9)), r"shares no user and no item with the run: its users are such as 'q'"),
        (frame((5, "x", 9)), r"expected user ids that are text such as 'b', as in the run, got integers such as 5"),
        (frame(("b", "x", 1)), r"expected new events, got 1 that the run has all"),
        (frame(("d", "x", 6)), r"1 events are from before what the run knows.* user 'd' at 6, who has one at 7"),
        (frame(("d", "x", 9)).drop(columns="time"), r"expected times, as the run's events have them, got none"),
        (frame().astype({"time": int}), r"no (event|row)|empty"),
        ([["x", "y"]], r"data: expected a path, a data frame or Sequences"),
        (Sequences.from_lists([[1, 2, 3]], round=[1], source=[0]), r"expected real sequences, got 1 generated"),
    ],
)
def test_what_cannot_be_added(known: Sequences, new: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        add_events(known, new, CONFIG)


def test_integers_and_their_text(tmp_path) -> None:
    numbered = rsir.from_frame(frame((1, 10, 1), (1, 20, 2), (1, 30, 3), (2, 10, 1)))
    (tmp_path / "new.csv").write_text("user,item,time\n2,40,5\n3,10,6\n")
    added = add_events(numbered, tmp_path / "new.csv", CONFIG)
    assert added.data.item_labels.to_pylist() == [10, 20, 30, 40]
    with pytest.raises(DataError, match="expected item ids that are integers such as 10, as in the run, got 'x'"):
        add_events(numbered, frame((1, "x", 9)), CONFIG)
    text = dataclasses.replace(numbered, user_labels=pa.array(["1", "2"]))
    assert add_events(text, tmp_path / "new.csv", CONFIG).data.user_labels.to_pylist() == ["1", "2", "3"]

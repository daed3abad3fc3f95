"""The `Sequences` type: what it accepts, refuses and promises."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from rsir.data import Sequences
from rsir.errors import DataError
from tests.data.sequence_strategies import sequences

GOOD = {"items": [1, 2, 3, 2, 1], "offsets": [0, 3, 3, 5], "num_items": 3}


def test_rows_lengths_and_types():
    data = Sequences(**GOOD)
    assert [row.tolist() for row in (data[0], data[1], data[2], data[-1])] == [[1, 2, 3], [], [2, 1], [2, 1]]
    assert (len(data), data.num_interactions, data.num_real) == (3, 5, 3)
    assert data.lengths.tolist() == [3, 0, 2]
    assert data.source.tolist() == [0, 1, 2]
    assert data.is_real.all()
    kinds = [array.dtype.name for array in (data.items, data.offsets, data.source, data.round, data.lengths)]
    assert kinds == ["int32", "int64", "int64", "int16", "int64"]
    with pytest.raises(IndexError, match=r"row must be in -3\.\.2, got 3"):
        data[3]


def test_nothing_can_be_changed():
    items = np.array([1, 2, 3, 2, 1], np.int32)
    data = Sequences(items=items, offsets=[0, 3, 3, 5], num_items=3, times=[1, 2, 3, 1, 2])
    items[0] = 3
    assert data.items[0] == 1
    for array in (data.items, data.offsets, data.source, data.round, data.times, data[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        data.num_items = 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": [1, 2, 3, 0, 1]}, r"item ids must be in 1\.\.3, but row 2 has 0 at position 0"),
        ({"items": [1, 4, 3, 2, 1]}, r"item ids must be in 1\.\.3, but row 0 has 4 at position 1"),
        ({"items": [1, 2, 3, 2, 2**40]}, rf"row 2 has {2**40} at position 1"),
        ({"items": [1.0, 2, 3, 2, 1]}, "items must hold integers, got float64"),
        ({"items": [[1, 2, 3, 2, 1]]}, r"items must have one dimension, got shape \(1, 5\)"),
        ({"offsets": [0, 3, 2, 5]}, "row 1 goes from 3 to 2"),
        ({"offsets": [0, 3, 3, 4]}, r"from 0 to the number of items, 5, got 0\.\.4"),
        ({"offsets": []}, "got an empty array"),
        ({"num_items": 0}, r"num_items must be in 1\.\."),
        ({"num_items": 2.0}, "num_items must be an integer, got 2.0"),
        ({"num_items": True}, "num_items must be an integer, got True"),
        ({"round": [0, 0]}, "round must have one entry for each of the 3 rows, got 2"),
        ({"round": [0, 1, 0], "source": [0, 0, 2]}, "real rows .* must come first, but row 1 of round 1"),
        ({"round": [0, 0, -1]}, "round must not be negative, but row 2 has -1"),
        ({"round": [0, 0, 40000]}, r"round must fit int16, got 0\.\.40000"),
        ({"source": [0, 0, 2]}, "a real row is its own source, but row 1 names 0"),
        ({"round": [0, 0, 1], "source": [0, 1, 2]}, "must be one of the 2 real rows, but row 2 has 2"),
        ({"times": [1, 2, 3, 4]}, "one entry for each of the 5 items, got 4"),
        ({"times": [1, 3, 2, 1, 2]}, "row 0 has 3 before 2"),
        ({"times": [1.5, 3, 2, 1, 2]}, "times must hold integers"),
        ({"item_labels": pa.array(["a", "b"])}, "item_labels must name 3 items, got 2 labels"),
        ({"item_labels": pa.array(["a", "b", "a"])}, "item_labels must be distinct"),
        ({"item_labels": pa.array(["a", "b", None])}, "must not have nulls, got 1"),
        ({"item_labels": ["a", "b", "c"]}, "must be a pyarrow array, got list"),
        ({"item_labels": pa.array([1.5, 2, 3])}, "must be strings or integers, got double"),
        ({"user_labels": pa.array([1, 2])}, "one label for each of the 3 real rows, got 2"),
    ],
)
def test_bad_fields_are_named(change, message):
    with pytest.raises(DataError, match=message):
        Sequences(**{**GOOD, **change})


def test_times_may_fall_between_rows_only():
    data = Sequences(items=[1, 1, 1], offsets=[0, 0, 2, 2, 3, 3], num_items=1, times=[5, 5, 1])
    assert data.times.tolist() == [5, 5, 1]
    assert data.lengths.tolist() == [0, 2, 0, 1, 0]


def test_trajectories_alone_refer_to_rows_elsewhere():
    data = Sequences(items=[1], offsets=[0, 1], num_items=1, source=[7], round=[1])
    assert data.num_real == 0
    with pytest.raises(DataError, match="goes up to 7, but has only 2 labels"):
        Sequences(items=[1], offsets=[0, 1], num_items=1, source=[7], round=[1], user_labels=pa.array([1, 2]))


def test_from_lists():
    assert Sequences.from_lists([[1, 2, 3], [], [2, 1]]).fingerprint() == Sequences(**GOOD).fingerprint()
    assert len(Sequences.from_lists([], num_items=2)) == 0
    with pytest.raises(DataError, match="num_items must be given"):
        Sequences.from_lists([[]])


@given(sequences())
def test_fingerprint_is_of_the_content_alone(data):
    def moved(labels):
        """Equal labels that lie elsewhere in memory."""
        return None if labels is None else pa.concat_arrays([labels, labels]).slice(len(labels))

    copy = Sequences(
        items=data.items.astype(np.int64),
        offsets=list(data.offsets),
        num_items=data.num_items,
        source=data.source,
        round=data.round.astype(np.int64),
        times=data.times,
        item_labels=moved(data.item_labels),
        user_labels=moved(data.user_labels),
    )
    assert copy.fingerprint() == data.fingerprint()


def test_fingerprint_differs_when_anything_differs():
    labels = {"item_labels": pa.array(["a", "b", "c"]), "user_labels": pa.array(["u", "v", "w"])}
    base = {**GOOD, "times": [1, 2, 3, 1, 2], **labels}
    variants = [
        base,
        {**base, "items": [1, 2, 3, 2, 2]},
        {**base, "offsets": [0, 3, 4, 5]},
        {**base, "num_items": 4, "item_labels": pa.array(["a", "b", "c", "d"])},
        {**base, "times": [1, 2, 3, 1, 3]},
        {**base, "times": None},
        {**base, "item_labels": pa.array(["a", "bc", ""])},
        {**base, "item_labels": pa.array(["a", "b", "d"])},
        {**base, "item_labels": None},
        {**base, "user_labels": pa.array([1, 2, 3])},
        {**base, "round": [0, 0, 1], "source": [0, 1, 1], "user_labels": pa.array(["u", "v"])},
        {**base, "round": [0, 0, 2], "source": [0, 1, 1], "user_labels": pa.array(["u", "v"])},
        {**base, "round": [0, 0, 1], "source": [0, 1, 0], "user_labels": pa.array(["u", "v"])},
    ]
    assert len({Sequences(**variant).fingerprint() for variant in variants}) == len(variants)


def enriched() -> Sequences:
    real = Sequences.from_lists([[1, 2], [3], [2, 1, 3]], user_labels=pa.array(["a", "b", "c"]))
    first = Sequences.from_lists([[1, 3], [2]], num_items=3, source=[2, 0], round=[1, 1])
    return Sequences.concat(first, real, first)


def test_concat_puts_the_real_part_first():
    data = enriched()
    assert data.source.tolist() == [0, 1, 2, 2, 0, 2, 0]
    assert data.round.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert [data[row].tolist() for row in (0, 3)] == [[1, 2], [1, 3]]
    assert data.user_labels.to_pylist() == ["a", "b", "c"]


def test_concat_refuses_what_cannot_be_joined():
    real = Sequences.from_lists([[1, 2], [3]])
    with pytest.raises(DataError, match="at most one part may hold real rows, got 2"):
        Sequences.concat(real, real)
    with pytest.raises(DataError, match="got catalogues of 3, 4 items"):
        Sequences.concat(real, Sequences.from_lists([[1]], num_items=4, source=[0], round=[1]))
    with pytest.raises(DataError, match="one of the 2 real rows, but row 2 has 5"):
        Sequences.concat(real, Sequences.from_lists([[1]], num_items=3, source=[5], round=[1]))
    with pytest.raises(DataError, match="nothing to join"):
        Sequences.concat()


def test_concat_keeps_times_only_if_all_have_them():
    real = Sequences.from_lists([[1, 2]], times=[3, 4])
    timed = Sequences.from_lists([[1]], num_items=2, source=[0], round=[1], times=[9])
    untimed = Sequences.from_lists([[1]], num_items=2, source=[0], round=[1])
    none = Sequences.from_lists([], num_items=2)
    assert Sequences.concat(real, timed).times.tolist() == [3, 4, 9]
    assert Sequences.concat(real, none).times.tolist() == [3, 4]
    assert Sequences.concat(real, untimed).times is None


def test_select_renumbers_sources():
    data = enriched()
    some = data.select([2, 0, 3, 6])
    assert [some[row].tolist() for row in range(4)] == [[2, 1, 3], [1, 2], [1, 3], [2]]
    assert some.source.tolist() == [0, 1, 0, 1]
    assert some.user_labels.to_pylist() == ["c", "a"]
    assert data.select(~data.is_real).source.tolist() == [2, 0, 2, 0]
    with pytest.raises(DataError, match="generated row 3 is kept but its source, row 2, is not"):
        data.select([0, 3])
    with pytest.raises(DataError, match=r"real rows .* must come first"):
        data.select([3, 2])
    with pytest.raises(DataError, match=r"rows must be in 0\.\.6, got 0\.\.7"):
        data.select([0, 7])
    with pytest.raises(DataError, match=r"a mask must have shape \(7,\), got \(2,\)"):
        data.select([True, False])


@given(sequences())
def test_select_of_everything_and_of_nothing(data):
    assert data.select(np.arange(len(data))).fingerprint() == data.fingerprint()
    nothing = data.select(np.zeros(len(data), bool))
    assert (len(nothing), nothing.num_interactions, nothing.num_items) == (0, 0, data.num_items)


@given(sequences())
def test_parts_join_to_the_whole(data):
    real, generated = data.select(data.is_real), data.select(~data.is_real)
    assert Sequences.concat(real, generated).fingerprint() == data.fingerprint()

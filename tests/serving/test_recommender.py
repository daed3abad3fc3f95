"""The engine of recommendations against the plain way: all scores, sorted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsir import ops
from rsir.config import ItemKnnConfig, SimulationConfig
from rsir.data import Ragged, Sequences, simulate
from rsir.errors import DataError, DataWarning, RunError
from rsir.models import ItemKnn, WithItemKnn, pack_items
from rsir.models.itemknn import network_of
from rsir.recursion.loop import recurse
from rsir.serving import recommender as engine
from rsir.serving.names import Names
from rsir.serving.recommender import Recommender
from tests.harness.small import ON_DATA as SMALL
from tests.harness.toys import ToyBackbone

N = 12
ROWS = st.lists(st.lists(st.integers(1, N), max_size=5), min_size=1, max_size=6)
IDS = st.none() | st.sets(st.integers(1, N + 3), min_size=1).map(sorted)


def naive(model: Any, row: list[int], k: int, offered: set[int]) -> list[int]:
    """The k best of some items by (score, id)."""
    histories = Ragged.from_lists([row])
    queries = engine.encode_sequences(model, histories)
    found = ops.topk(queries, pack_items(model), N, added=engine.added_scores(model, histories))
    return [item for item in found.ids[0].tolist() if item in offered][:k]


@given(rows=ROWS, k=st.integers(1, N + 5), candidates=IDS, exclude=IDS, repeats=st.booleans(), few=st.booleans())
def test_against_the_plain_way(rows, k, candidates, exclude, repeats, few):
    data = Sequences.from_lists(rows, N)
    knn = ItemKnn.fit(data, ItemKnnConfig())
    model = WithItemKnn(ToyBackbone(N), knn, 2.0)
    recommender = Recommender(model, data)
    offered = set(range(1, N + 1)) if candidates is None else set(candidates) & set(range(1, N + 1))
    left = offered - set(exclude or ())
    if not left:
        with pytest.raises(DataError, match=r"candidates: expected|exclude: expected"):
            recommender.offer(candidates, exclude)
        return
    offer = recommender.offer(candidates, exclude)
    assert offer.unknown == (0 if candidates is None else len(set(candidates) - set(range(1, N + 1))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_LISTED", 0 if few else 1 << 20)  # both ways to exclude
        best = recommender.best(data.lists, k, offer=offer, repeats="included" if repeats else "excluded")
    counts = np.bincount([0, *(item for row in rows for item in row)], minlength=N + 1)
    for row, ids, scores, popular in zip(rows, *best, strict=True):
        if row:
            wanted = naive(model, row, k, left if repeats else left - set(row))
        else:
            wanted = sorted(left, key=lambda item: (-counts[item], item))[:k]
            assert scores[: len(wanted)].tolist() == [counts[item] for item in wanted]
        assert ids[ids > 0].tolist() == wanted
        assert popular == (not row)
        assert (np.diff(scores[: len(wanted)]) <= 0).all()


def test_scores_of_candidates_are_those_of_all(monkeypatch):
    data = Sequences.from_lists([[1, 2, 3], [4, 5]], N)
    model = ToyBackbone(N)
    whole = Recommender(model, data)
    every = whole.best(data.lists, N, repeats="included")
    some = whole.best(data.lists, N, offer=whole.offer([2, 5, 7, 11]), repeats="included")
    for ids, scores, own_ids, own in zip(every.ids, every.scores, some.ids, some.scores, strict=True):
        expected = dict(zip(ids.tolist(), scores.tolist(), strict=True))
        assert own.tolist() == [expected[item] for item in own_ids.tolist()]
    parts = ops.join_tables([ops.pack(ops.table_part(model.item_embeddings(), rank, 2)) for rank in range(2)])
    divided = Recommender(model, data, table=parts)
    again = divided.best(data.lists, N, offer=divided.offer([2, 5, 7, 11]), repeats="included")
    assert again.ids.tolist() == some.ids.tolist()
    packed = []
    monkeypatch.setattr(engine.ops, "pack", lambda *args, **named: packed.append(1))
    whole.best(data.lists, 2, offer=whole.offer([11, 7, 5, 2]))
    assert not packed  # the same stock list as before


def test_names_both_ways():
    strings, numbers, none = (
        Names("item", labels, 3) for labels in (pa.array(["7", "007", "x"]), pa.array([9, -7, 8]), None)
    )
    assert strings.ids(["x", 7, "007", "8", np.int64(7)]).tolist() == [3, 1, 2, 0, 1]
    assert numbers.ids([8, "-7", "9 ", "09", "9", "x", "²", "9" * 30]).tolist() == [3, 2, 0, 0, 1, 0, 0, 0]
    assert none.ids([0, 1, 3, 4, "2", -1, "x"]).tolist() == [0, 1, 3, 0, 2, 0, 0]
    assert strings.of(np.array([3, 1])).to_pylist() == ["x", "7"]
    assert none.of(np.array([3, 1])).to_pylist() == [3, 1]
    for wrong in (True, 1.5, None, ["x"]):
        with pytest.raises(DataError, match="item: expected a string as in the data, got"):
            strings.ids([wrong])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    plain = simulate(SimulationConfig(num_users=80, num_items=50, mean_length=7)).sequences
    data = dataclasses.replace(
        plain,
        item_labels=pa.array([f"item {row}" for row in range(50)]),
        user_labels=pa.array([f"user {row}" for row in range(80)]),
    )
    return recurse(dataclasses.replace(SMALL, rounds=1), data=data, out=tmp_path_factory.mktemp("serving") / "run")


def test_users_have_what_the_data_says(run):
    history = run.data.item_labels.take(pa.array(run.data[7].astype(np.int64) - 1)).to_pylist()
    found = run.recommend(users=["user 7"], k=4)
    assert found == run.recommend([history], k=4)
    assert found.scores == run.recommend([history], k=4).scores
    assert found.users.to_pylist() == ["user 7"]
    everybody = run.recommend(k=2)
    assert everybody[7] == found[0][:2]
    assert everybody.users.equals(run.data.user_labels)
    with pytest.raises(DataError, match="user 'nobody' is not in the data of the run, which has 'user 0' for one"):
        run.recommend(users=["user 1", "nobody"])
    with pytest.raises(DataError, match="expected histories or users, got both"):
        run.recommend([["item 1"]], users=["user 1"])


def test_unknown_items_are_skipped_and_counted(run):
    with pytest.warns(DataWarning, match="skipped 3 events whose items .* catalogue; 1 users have no others"):
        found = run.recommend([["item 3", "new", "item 7"], ["new", "newer"], []], k=3)
    assert found.unknown_items == 3
    assert found[0] == run.recommend([["item 3", "item 7"]], k=3)[0]
    assert found[1] == found[2] == run.recommend([[]], k=3)[0]
    assert found.by == ["model", "popularity", "popularity"]
    table = found.table()
    assert table.column_names == ["history", "item_id", "rank", "score", "by"]
    assert table["rank"].to_pylist() == [1, 2, 3] * 3


def test_a_round_recommends_as_it_did(run):
    for round_ in (0, 1):
        model = network_of(run.recommender(round_).model)
        assert len(getattr(model, "members", [model])) == round_ + 1
    other = 1 - run.best
    assert run.recommend([["item 3"]], k=5, round_=other).scores != run.recommend([["item 3"]], k=5).scores
    with pytest.raises(RunError, match=r"expected a round in 0\.\.1, got 2"):
        run.recommend([["item 3"]], round_=2)
    inmemory = dataclasses.replace(run, path=None)
    assert inmemory.recommend([["item 3"]]) == run.recommend([["item 3"]])
    with pytest.raises(RunError, match="made without a folder"):
        inmemory.recommend([["item 3"]], round_=other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k: expected at least 1, got 0"),
        ({"k": 2.5}, r"k: expected at least 1, got 2\.5"),
        ({"repeats": "no"}, "repeats: expected excluded or included, got 'no'"),
        ({"candidates": "item 1"}, "candidates: expected a list of items, got 'item 1'"),
        ({"candidates": []}, "candidates: expected items of the catalogue, got an empty list"),
        (
            {"candidates": ["new"]},
            "candidates: expected items of the catalogue, got only unknown ones, ",
        ),
        (
            {"candidates": ["item 1"], "exclude": ["item 1"]},
            "candidates: expected some that are not excluded",
        ),
        ({"exclude": [f"item {n}" for n in range(50)]}, "exclude: expected to leave some items"),
        ({"exclude": [1.5]}, r"item: expected a string as in the data, got 1\.5"),
    ],
)
def test_what_cannot_be_asked_for(run, options, message):
    with pytest.raises(DataError, match=message):
        run.recommend([["item 3"]], **options)


def test_more_than_there_is_makes_no_wide_answer(run):
    with torch.no_grad():
        found = run.recommend([["item 3"], []], k=10**9)
    assert [len(row) for row in found] == [49, 50]

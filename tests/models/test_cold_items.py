"""Items without an event, which the count takes for their nearest seen ones by vector."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from rsir.config import ItemKnnConfig
from rsir.data import Sequences
from rsir.data.io.items import ItemVectors
from rsir.data.sequences import item_popularity
from rsir.errors import ConfigError
from rsir.models import ItemKnn, cold_items
from rsir.models.cold_items import ColdItems, with_cold_items
from rsir.models.itemknn import Unseen
from rsir.ops import Ragged


def vectors(rows: np.ndarray, lacking: tuple[int, ...] = ()) -> ItemVectors:
    has = np.arange(len(rows) + 1) > 0
    has[list(lacking)] = False
    padded = np.r_[np.zeros((1, rows.shape[1])), rows].astype(np.float32)
    padded[~has] = 0
    return ItemVectors(padded, has, None)


@pytest.fixture(scope="module")
def train() -> Sequences:
    """Items 26 to 40 have no event."""
    rng = np.random.default_rng(0)
    return Sequences.from_lists([rng.integers(1, 26, rng.integers(2, 12)) for _ in range(60)], 40)


@pytest.fixture(scope="module")
def items() -> ItemVectors:
    return vectors(np.random.default_rng(1).normal(size=(40, 6)), lacking=(3, 30))


def dense(lists) -> np.ndarray:
    ids, values, offsets = lists.ids, lists.values, lists.offsets
    out = np.zeros((len(offsets) - 1, len(offsets) - 1))
    out[np.repeat(np.arange(len(out)), np.diff(offsets)), ids] = values
    return out


def test_nearest_by_hand() -> None:
    """The mean of the seen ones is (1, 1): item 4 points with 1 and half with 2, item 5 away from all."""
    rows = np.array([[3, 1], [1, 3], [-1, -1], [1 + np.cos(0.5), 1 + np.sin(0.5)], [1, 1]], np.float32)
    occurrences = np.array([0, 5, 1, 1, 0, 0])
    found = cold_items.cold_items(vectors(rows), occurrences, 3)
    middle = rows[:3].mean(0)
    assert middle.tolist() == [1, 1]
    assert found.ids.tolist() == [4, 5]
    assert found.seen.tolist() == [[1, 2, 0], [0, 0, 0]]
    cosines = np.array([np.cos(0.5), np.sin(0.5)])
    assert found.weights[0] == pytest.approx([*(cosines / cosines.sum()), 0], abs=1e-6)
    assert found.weights[1].tolist() == [0, 0, 0]
    assert cold_items.cold_items(vectors(rows), occurrences, 1).weights.tolist() == [[1], [0]]
    twice = vectors(np.array([[3, 1], [3, 1], [1, 3], [-1, -1], [3, 1]], np.float32))
    assert cold_items.cold_items(twice, np.array([0, 1, 1, 1, 1, 0]), 1).seen.tolist() == [[1]]  # the lower id


def test_nearest_are_those_of_the_largest_cosine(train: Sequences, items: ItemVectors) -> None:
    counts = item_popularity(train)
    found = cold_items.cold_items(items, counts, 4)
    seen = np.flatnonzero(items.has & (counts > 0))
    centred = items.vectors.astype(np.float64) - items.vectors[seen].mean(0, dtype=np.float64)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert found.ids.tolist() == [item for item in range(26, 41) if item != 30]
    for item, near, weights in zip(found.ids, found.seen, found.weights, strict=True):
        cosines = unit[seen] @ unit[item]
        order = np.argsort(-cosines)[:4]
        wanted = np.maximum(cosines[order], 0)
        assert near.tolist() == np.where(wanted > 0, seen[order], 0).tolist()
        assert weights == pytest.approx(wanted / wanted.sum(), abs=1e-5)


@pytest.mark.parametrize("neighbours", [3, 1000])
@pytest.mark.parametrize("most", [1, 5])
def test_lists_are_those_of_the_reference(train: Sequences, items: ItemVectors, most: int, neighbours: int) -> None:
    # with exponents like these no two values are equal but by symmetry, so that cutting a list is unambiguous
    config = ItemKnnConfig(decay=0.83, history_exponent=0.37, neighbours=neighbours, cold_neighbours=most)
    if most == 1 and neighbours == 3:
        config = ItemKnnConfig(decay=0.83, history_exponent=0.37, cold_neighbours=1)  # equal values at the cut
    truth, found = (ItemKnn.fit(train, config, items=items, backend=name) for name in ("reference", "cpp"))
    assert type(found.lists) is type(found.counted)
    assert found.lists.offsets.tolist() == truth.lists.offsets.tolist()
    assert found.lists.ids.tolist() == truth.lists.ids.tolist()
    assert found.lists.values == pytest.approx(truth.lists.values, rel=1e-6)
    assert np.diff(found.lists.offsets).max() <= config.neighbours
    values = dense(found.lists)
    assert values[:, 30].max() == values[30].max() == 0  # without a vector
    assert (values[26:].max(1) > 0).sum() == 14


def test_a_cold_item_is_its_nearest_one(train: Sequences, items: ItemVectors) -> None:
    knn = ItemKnn.fit(train, ItemKnnConfig(cold_neighbours=1), items=items)
    plain = ItemKnn.fit(train)
    nearest = cold_items.cold_items(items, item_popularity(train), 1).seen[0, 0]
    before, after = dense(plain.lists), dense(knn.lists)
    assert after[:26, :26].tolist() == before[:26, :26].tolist()  # nothing changes between seen items
    assert after[:, 26].tolist() == after[:, nearest].tolist()
    assert after[26].tolist() == after[nearest].tolist()
    for history in ([26], [4, 26], [26, 7]):
        of_seen = [int(nearest) if item == 26 else item for item in history]
        shares = [knn.shares(np.array(row, np.int32), np.array([0, len(row)])) for row in (history, of_seen)]
        assert shares[0].ids.tolist() == shares[1].ids.tolist()
        assert shares[0].values.tolist() == shares[1].values.tolist()
        if nearest in shares[0].ids:
            both = dict(zip(shares[0].ids.tolist(), shares[0].values.tolist(), strict=True))
            assert both[26] == both[int(nearest)]


def test_blocks_change_nothing(train: Sequences, items: ItemVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ItemKnn.fit(train, items=items)
    monkeypatch.setattr(cold_items, "_ENTRIES", 50)
    monkeypatch.setattr(cold_items, "_QUERIES", 2)
    parts = ItemKnn.fit(train, items=items, threads=2)
    for name in ("ids", "values", "offsets"):
        assert getattr(whole.lists, name).tobytes() == getattr(parts.lists, name).tobytes()


def test_nothing_to_add(train: Sequences, items: ItemVectors) -> None:
    """No cold item, no vectors, none asked for: the count as it was."""
    plain = ItemKnn.fit(train)
    titles = ItemVectors(np.zeros((41, 0), np.float32), np.zeros(41, np.bool_), None)
    full = Sequences.from_lists([list(range(1, 41))], 40)
    for knn in (
        ItemKnn.fit(train, items=titles),
        ItemKnn.fit(train, ItemKnnConfig(cold_neighbours=0), items=items),
    ):
        assert knn.counted is knn.lists
        assert knn.lists.ids.tobytes() == plain.lists.ids.tobytes()
    seen = ItemKnn.fit(full, items=items)
    assert seen.counted is seen.lists
    empty = ColdItems(np.zeros(0, np.int64), np.zeros((0, 1), np.int64), np.zeros((0, 1)))
    lists = plain.lists.ids, plain.lists.values, plain.lists.offsets
    assert with_cold_items(lists, empty, 5) is lists


def test_the_check_by_others_ignores_cold_items(train: Sequences, items: ItemVectors) -> None:
    plain, knn = ItemKnn.fit(train), ItemKnn.fit(train, items=items)
    users = np.arange(10)
    lists = [[2, 5, 28], [9], [4, 1], [7, 30], [27], [3, 2], [1], [8, 26], [12], [20, 4]]
    histories = Ragged.from_numpy(np.concatenate(lists).astype(np.int32), np.cumsum([0, *map(len, lists)]))
    targets = Ragged.from_numpy(np.tile([6, 29], 10).astype(np.int32), np.arange(11) * 2)
    ranks = [Unseen(one, train).ranks(users, histories, targets, 30) for one in (plain, knn)]
    assert ranks[0].tolist() == ranks[1].tolist()
    assert len(set(ranks[0].tolist())) > 2


def test_copies_are_whole(train: Sequences, items: ItemVectors) -> None:
    knn = ItemKnn.fit(train, items=items)
    for again in (copy.deepcopy(knn), pickle.loads(pickle.dumps(knn))):
        for one, other in ((again.lists, knn.lists), (again.counted, knn.counted)):
            assert one.ids.tobytes() == other.ids.tobytes()
            assert one.values.tobytes() == other.values.tobytes()


def test_bad_numbers() -> None:
    for value in (-1, 2**20 + 1):
        with pytest.raises(ConfigError, match=r"itemknn\.cold_neighbours: expected in 0\.\.2\*\*20"):
            ItemKnnConfig(cold_neighbours=value)

"""The item-kNN against its formulas."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from rsir import _core
from rsir.config import ItemKnnConfig
from rsir.data import Sequences
from rsir.data.sequences import offsets_of
from rsir.errors import ConfigError, DataError
from rsir.models.itemknn import ItemKnn, Unseen
from rsir.ops import Ragged
from rsir.runtime.memory import memory_limit
from tests.models.unseen import Recounted

BACKENDS = ["reference", "cpp"]


def _sequences(seed: int, users: int = 40, num_items: int = 30) -> Sequences:
    rng = np.random.default_rng(seed)
    return Sequences.from_lists([rng.integers(1, num_items, rng.integers(0, 15)) for _ in range(users)], num_items)


def _dense(ids: np.ndarray, values: np.ndarray, offsets: np.ndarray, num_items: int) -> np.ndarray:
    out = np.zeros((len(offsets) - 1, num_items + 1))
    out[np.repeat(np.arange(len(out)), np.diff(offsets)), ids] = values
    return out


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_count_by_hand(backend: str) -> None:
    # 1 2 3 and 2 1: A[1, 2] = 1, A[1, 3] = .5, A[2, 3] = 1, A[2, 1] = 1
    config = ItemKnnConfig(decay=0.5, backward=0.2, history_exponent=1.0, item_exponent=0.5, age_decay=0.5)
    knn = ItemKnn.fit(Sequences.from_lists([[1, 2, 3], [2, 1]], 4), config, backend=backend)
    found = _dense(knn.lists.ids, knn.lists.values, knn.lists.offsets, 4)
    both = np.zeros((5, 5))
    both[1, 2], both[2, 1], both[1, 3], both[3, 1] = 1.2, 1.2, 0.5, 0.1
    both[2, 3], both[3, 2] = 1.0, 0.2
    counts = np.array([1, 2, 2, 1, 1])
    expected = both / counts[:, None] / np.sqrt(counts)
    assert found == pytest.approx(expected, rel=1e-6)
    shares = knn.shares(np.array([1, 2, 4], np.int32), np.array([0, 2, 3, 3]))
    scores = expected[2] + 0.5 * expected[1]
    assert _dense(shares.ids, shares.values, shares.offsets, 4)[0] == pytest.approx(scores / scores.sum(), rel=1e-6)
    assert np.diff(shares.offsets).tolist() == [3, 0, 0]  # nothing goes with item 4, nor with no item


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("neighbours", [1, 5, 1000])
@pytest.mark.parametrize("window", [1, 4, 20])
def test_cpp_counts_and_scores_as_the_reference(window: int, neighbours: int, threads: int) -> None:
    train = _sequences(window)
    # with exponents like these no two values are equal but by symmetry, so that cutting a list is unambiguous
    config = ItemKnnConfig(window=window, decay=0.83, neighbours=neighbours, newest=6, history_exponent=0.37)
    truth, found = (ItemKnn.fit(train, config, backend=name, threads=threads) for name in BACKENDS)
    assert type(found.lists) is _core.ItemKnn
    assert found.num_items == truth.num_items == train.num_items
    assert found.lists.ids.tolist() == truth.lists.ids.tolist()
    assert found.lists.offsets.tolist() == truth.lists.offsets.tolist()
    assert found.lists.values == pytest.approx(truth.lists.values, rel=1e-6)
    histories = _sequences(99)
    for most in (None, 3):
        for without_own in (False, True):
            shares, expected = (
                ItemKnn(lists, config).shares(
                    histories.items, histories.offsets, most=most, without_own=without_own, threads=threads
                )
                for lists in (found.lists, truth.lists)
            )
            assert shares.ids.tolist() == expected.ids.tolist()
            assert shares.offsets.tolist() == expected.offsets.tolist()
            assert shares.values == pytest.approx(expected.values, rel=1e-5)


def test_bits_do_not_depend_on_threads_or_company() -> None:
    train, histories = _sequences(1, 400, 300), _sequences(2, 300, 300)
    first, *others = (ItemKnn.fit(train, threads=threads) for threads in (1, 2, 5))
    for other in others:
        for name in ("ids", "values", "offsets"):
            assert getattr(first.lists, name).tobytes() == getattr(other.lists, name).tobytes()
    whole = first.shares(histories.items, histories.offsets, threads=1)
    again = first.shares(histories.items, histories.offsets, threads=3)
    assert whole.values.tobytes() == again.values.tobytes()
    assert whole.ids.tobytes() == again.ids.tobytes()
    for row in (0, 1, 150, 299):
        alone = first.shares(histories[row], offsets_of([len(histories[row])]))
        entries = slice(whole.offsets[row], whole.offsets[row + 1])
        assert alone.ids.tolist() == whole.ids[entries].tolist()
        assert alone.values.tobytes() == whole.values[entries].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_overlapping_histories_are_those_of_their_prefixes(backend: str) -> None:
    knn = ItemKnn.fit(_sequences(3), backend=backend)
    items = np.array([4, 9, 4, 17, 2], np.int32)
    ends = np.arange(6)
    found = knn.shares_between(items, np.zeros(6, np.int64), ends)
    for end in ends:
        alone = knn.shares(items[:end], np.array([0, end]))
        entries = slice(found.offsets[end], found.offsets[end + 1])
        assert alone.values.tolist() == found.values[entries].tolist()
        assert alone.ids.tolist() == found.ids[entries].tolist()


def test_memory_is_of_the_histories_and_not_of_how_many_ages_may_count(tmp_path: Path) -> None:
    """``--itemknn.newest 1000000000000 --itemknn.age_decay 1`` ended by the system for want of memory."""
    data = _sequences(5)
    shares = []
    with memory_limit(2**33, tmp_path):
        for newest in (14, 2**40):
            knn = ItemKnn.fit(data, ItemKnnConfig(age_decay=1.0, newest=newest))
            shares.append(knn.shares(data.items, data.offsets))
    assert all(np.array_equal(*both) for both in zip(*(dataclasses.astuple(each) for each in shares), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_own_leaves_out_old_items_too(backend: str) -> None:
    knn = ItemKnn.fit(_sequences(4), ItemKnnConfig(newest=2), backend=backend)
    history = np.arange(1, 20, dtype=np.int32)
    shares = knn.shares(history, np.array([0, 19]), without_own=True)
    assert len(shares.ids)
    assert not set(shares.ids) & set(history)
    assert shares.values.sum() == pytest.approx(1, rel=1e-5)


def test_counts_of_a_fit_come_back_from_its_arrays() -> None:
    knn = ItemKnn.fit(_sequences(5))
    lists = knn.lists
    again = _core.ItemKnn(lists.ids, lists.values, lists.offsets)
    assert again.ids.tobytes() == lists.ids.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        lists.ids[0] = 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [1, 9]}, r"ids: expected ids in 1\.\.2, got 9"),
        ({"values": [1, np.nan]}, "values: expected finite numbers"),
        ({"values": [1, -1]}, "values: expected finite numbers"),
        ({"offsets": [0, 2, 1, 2]}, "offsets fall after row 1"),
        ({"offsets": [0, 1, 2, 3]}, "offsets from 0 to 2"),
        ({"offsets": [0]}, "num_items"),
    ],
)
def test_arrays_that_are_no_lists_are_refused(change: dict[str, list[float]], message: str) -> None:
    arrays = {"ids": [2, 1], "values": [1, 1], "offsets": [0, 0, 1, 2]} | change
    types = {"ids": np.int32, "values": np.float32, "offsets": np.int64}
    with pytest.raises(ValueError, match=message):
        _core.ItemKnn(**{name: np.array(values, types[name]) for name, values in arrays.items()})


def test_what_cannot_be_counted_or_scored_is_refused_in_a_sentence() -> None:
    knn = ItemKnn.fit(_sequences(6))
    with pytest.raises(DataError, match=r"items: expected ids in 1\.\.30, got 31"):
        knn.shares(np.array([31], np.int32), np.array([0, 1]))
    with pytest.raises(DataError, match="begins and ends: expected 0 <= begin <= end <= 1, got 0 and 2 in row 0"):
        knn.shares(np.array([3], np.int32), np.array([0, 2]))
    with pytest.raises(ValueError, match="backend: expected one of auto, cpp, reference, got 'gpu'"):
        ItemKnn.fit(_sequences(6), backend="gpu")  # type: ignore[arg-type]
    for setting in ({"window": 0}, {"decay": 1.5}, {"backward": -1}, {"item_exponent": 9}, {"neighbours": 0}):
        with pytest.raises(ConfigError, match=f"itemknn.{next(iter(setting))}"):
            ItemKnnConfig(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_and_pickles_score_as_the_original(backend: str) -> None:
    """As those of a model with a vote do, whether for torch.save, for other processes or for an export."""
    knn = ItemKnn.fit(_sequences(3), backend=backend)
    history = (np.array([1, 2, 3], np.int32), np.array([0, 3]))
    wanted = knn.shares(*history)
    for again in (copy.deepcopy(knn), pickle.loads(pickle.dumps(knn))):
        found = again.shares(*history)
        assert (found.ids.tolist(), found.values.tolist()) == (wanted.ids.tolist(), wanted.values.tolist())


def _lists(rows: list[np.ndarray]) -> Ragged:
    offsets = offsets_of(np.array([len(row) for row in rows]))
    return Ragged(torch.from_numpy(np.concatenate(rows).astype(np.int32)), torch.from_numpy(offsets))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "config",
    [
        ItemKnnConfig(),
        ItemKnnConfig(window=3, decay=0.83, history_exponent=0.37, item_exponent=0.21, newest=4, age_decay=0.71),
        ItemKnnConfig(window=1, decay=0.0, backward=0.0, history_exponent=0.0, item_exponent=1.3, age_decay=1.0),
    ],
)
def test_the_count_without_a_user_is_the_count_of_the_others(config: ItemKnnConfig, backend: str) -> None:
    rng = np.random.default_rng(7)
    # some items occur in one sequence alone, and in some twice
    train = Sequences.from_lists([rng.integers(1, 60, rng.integers(2, 15)) for _ in range(70)], 60)
    users = np.repeat(np.arange(len(train)), 2)
    histories = [rng.integers(1, 60, rng.integers(1, 9)) for _ in users]
    for row, user in enumerate(users):  # most trajectories hold some of their user's own items
        histories[row][: len(histories[row]) // 2 + 1] = train[user][0]
    targets = [np.unique(train[user][rng.permutation(len(train[user]))[:3]]) for user in users]
    unseen = Unseen(ItemKnn.fit(train, config, backend=backend), train)
    tau = 12
    found, again = (unseen.ranks(users, _lists(histories), _lists(targets), tau, threads=threads) for threads in (1, 3))
    assert found.tolist() == again.tolist()
    truth = Recounted(train, config)
    expected = [
        truth.rank(user, history, target, tau)
        for user, history, target in zip(users.tolist(), histories, targets, strict=True)
    ]
    assert found.tolist() == expected
    assert len(set(expected)) > 5


def test_a_pair_of_nobody_else_says_nothing() -> None:
    train = Sequences.from_lists([[1, 2], [1, 3], [4, 5]], 5)
    unseen = Unseen(ItemKnn.fit(train), train)
    history = _lists([np.array([1]), np.array([1])])
    targets = Ragged(torch.tensor([2, 3]), torch.tensor([0, 1, 2]))
    assert unseen.ranks(np.array([0, 0]), history, targets, 5).tolist() == [6, 1]  # 1, 2 is the user's own pair
    assert unseen.ranks(np.array([2, 2]), history, targets, 5).tolist() == [1, 2]  # of others, and a tie


def test_the_count_without_a_user_needs_that_catalogue() -> None:
    with pytest.raises(DataError, match="train: expected the 5 items of the count, got 6"):
        Unseen(ItemKnn.fit(Sequences.from_lists([[1, 2]], 5)), Sequences.from_lists([[1, 2]], 6))

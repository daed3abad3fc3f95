"""The k-core against the definition, applied again and again."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir.config import DataConfig
from rsir.data import read
from rsir.data.io.kcore import k_core


def naive(users, items, k):
    alive = [True] * len(users)
    while True:
        by_user = Counter(u for u, a in zip(users, alive, strict=True) if a)
        by_item = Counter(i for i, a in zip(items, alive, strict=True) if a)
        after = [a and by_user[u] >= k and by_item[i] >= k for u, i, a in zip(users, items, alive, strict=True)]
        if after == alive:
            return alive
        alive = after


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60), st.integers(1, 5))
def test_against_a_loop(events, k):
    users = np.array([u for u, _ in events], np.int64)
    items = np.array([i for _, i in events], np.int64)
    assert k_core(users, items, k).tolist() == naive(users.tolist(), items.tolist(), k)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_larger_logs(k):
    random = np.random.default_rng(k)
    users, items = random.integers(0, 400, 2000), (400 * random.random(2000) ** 2).astype(np.int64)
    alive = k_core(users, items, k)
    assert alive.tolist() == naive(users.tolist(), items.tolist(), k)
    assert 0 < alive.sum() < 2000


def test_a_chain_falls_to_its_end():
    """Every user and item has two events but for the first user: one removal after the other."""
    n = 20_000
    users, items = np.repeat(np.arange(n), 2)[1:-1], np.repeat(np.arange(n), 2)[:-2]
    assert not k_core(users, items, 2).any()


def test_reading_with_a_core(tmp_path):
    lines = ["a,x", "a,y", "a,z", "b,x", "b,y", "b,z", "c,x", "c,y", "c,w", "d,w"]
    (tmp_path / "e.csv").write_text("user,item\n" + "\n".join(lines))
    data = read(tmp_path / "e.csv", DataConfig(k_core=2))
    assert data.user_labels.to_pylist() == ["a", "b", "c"]
    assert data.item_labels.to_pylist() == ["x", "y", "z"]
    assert data.lengths.tolist() == [3, 3, 2]


def test_numba_is_not_on_the_import_path():
    code = "import sys, rsir.data; print(*sorted({'numba', 'narwhals', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "numpy\n"

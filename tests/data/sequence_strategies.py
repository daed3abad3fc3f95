"""Hypothesis strategies for data sets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from rsir.data import Sequences

# any text but surrogates (not UTF-8), null bytes and the byte-order mark, which text files cannot hold
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1, max_size=8)
# what every format can hold as it stands: no separators, and not the plain or the zero-like integers
LETTERS = st.sampled_from("abXYé日")
NAMES = st.builds("{}{}{}".format, LETTERS, st.text("abc01 _.,;'é日", max_size=4), LETTERS)


def labels(count: int, names: st.SearchStrategy[str]) -> st.SearchStrategy[pa.Array]:
    """Distinct labels, all strings or all integers."""
    strings = st.lists(names, min_size=count, max_size=count, unique=True).map(lambda v: pa.array(v, pa.large_string()))
    integers = st.lists(st.integers(1, 2**60), min_size=count, max_size=count, unique=True)
    return strings | integers.map(lambda v: pa.array(v, pa.int64()))


@st.composite
def sequences(draw, names=TEXT, generated=True, min_rows=0, min_length=0):
    """Data sets with any mix of rows, times and labels."""
    num_items = draw(st.integers(1, 12))
    real = draw(st.integers(min_rows, max(min_rows, 6)))
    extra = draw(st.integers(0, 4)) if generated and real else 0
    lengths = draw(st.lists(st.integers(min_length, max(5, min_length)), min_size=real + extra, max_size=real + extra))
    nnz = sum(lengths)
    items = draw(st.lists(st.integers(1, num_items), min_size=nnz, max_size=nnz))
    offsets = np.cumsum([0, *lengths])
    times = None
    if draw(st.booleans()):
        gaps = np.array(draw(st.lists(st.integers(1, 10**9), min_size=nnz, max_size=nnz)), np.int64)
        starts = np.repeat(np.append(np.cumsum(gaps), 0)[offsets[:-1] - 1], lengths)
        times = np.cumsum(gaps) - np.where(np.repeat(offsets[:-1], lengths) > 0, starts, 0)
    sources = draw(st.lists(st.integers(0, max(real - 1, 0)), min_size=extra, max_size=extra))
    rounds = draw(st.lists(st.integers(1, 3), min_size=extra, max_size=extra))
    return Sequences(
        items=np.array(items, np.int32),
        offsets=offsets,
        num_items=num_items,
        source=np.array([*range(real), *sources], np.int64),
        round=np.array([0] * real + rounds, np.int16),
        times=times,
        item_labels=draw(st.none() | labels(num_items, names)),
        user_labels=draw(st.none() | labels(real, names)),
    )

"""Throws hostile arguments at the compiled module: every call must return sound values or raise.

``python -m tests.harness fuzz_bindings --iterations 100000 --seed 7``; most useful against a sanitized build
(csrc/sanitize.sh). A crash repeats with the seed and iteration that were printed last.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from rsir import _core

REFUSALS = (ValueError, TypeError)
MAX_ITEMS = 300


def _array(rng: np.random.Generator, shape: tuple[int, ...], dtype: type, low: int, high: int) -> np.ndarray:
    """Mostly what is wanted; now and then of another type, rank, layout or alignment."""
    values = rng.integers(low, max(high, low + 1), shape).astype(dtype)
    kind = rng.integers(0, 40)
    if kind == 0:
        return values.astype(rng.choice([np.float64, np.int8, np.uint32, np.complex64, object]))
    if kind == 1:
        return values.reshape(-1) if values.ndim > 1 else values[None]
    if kind == 2:
        return np.repeat(values, 2, axis=-1)[..., ::2]
    if kind == 3:
        return np.frombuffer(b"\0" + values.tobytes(), values.dtype, offset=1).reshape(values.shape)
    if kind == 4:
        return values[..., :-1]
    return values


def _floats(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = _array(rng, shape, np.float32, -3, 4)
    if values.dtype == np.float32 and values.size and values.flags.writeable and rng.random() < 0.3:
        specials = np.array([np.nan, np.inf, -np.inf, 1e38, 1e-45, -0.0], np.float32)
        values.reshape(-1)[rng.integers(0, values.size, 3)] = rng.choice(specials, 3)
    return values


def _lists(rng: np.random.Generator, rows: int, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = rng.integers(0, 6, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = _array(rng, (int(lengths.sum()),), np.int32, 1, num_items + 1)
    kind = rng.integers(0, 25)
    if kind == 0:
        offsets = _array(rng, (rows + 1,), np.int64, -5, 50)
    elif kind == 1:
        offsets = offsets * 2**40
    elif kind == 2 and ids.size and ids.dtype == np.int32 and ids.flags.writeable:
        ids.reshape(-1)[rng.integers(0, ids.size)] = rng.choice([0, -1, num_items + 1, 2**31 - 1, -(2**31)])
    return ids, offsets


def _count(rng: np.random.Generator, usual: int) -> int:
    if rng.random() < 0.05:
        return int(rng.choice([0, -1, 2**31, 2**62, -(2**63)]))
    return int(rng.integers(1, usual))


def learn(rng: np.random.Generator, threads: int) -> None:
    """One call of an op of training."""
    rows, width, part, heads, wide = (int(rng.integers(0, high)) for high in (10, 12, 9, 4, 20))
    dim, name = part * heads, str(rng.choice([*_core.instruction_sets(), "no"]))
    kind = rng.choice(["sampled", "full", "layer", "encode", "adam"])
    d, f = dim, wide
    shapes = [(3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,), (d,), (d,)]
    if kind == "adam":
        moments = [_floats(rng, (rows, dim)) for _ in range(2)]
        last = None if rng.random() < 0.3 else _array(rng, (rows,), np.int32, 0, 9)
        ids = None if rng.random() < 0.2 else _array(rng, (wide,), np.int64, 0, max(rows, 1))
        gradients = None if rng.random() < 0.5 else _floats(rng, (wide, dim))
        betas = (0.9, 0.999) if rng.random() < 0.9 else tuple(rng.choice([0.0, 0.5, 1.0, np.nan], 2))
        arrays = (_floats(rng, (rows, dim)), *moments, last, ids, gradients)
        average = None if rng.random() < 0.5 else _floats(rng, (rows, dim))
        decay = float(rng.choice([0.0, 0.5, 0.999, 1.0, np.nan], p=[0.3, 0.3, 0.3, 0.05, 0.05]))
        _core.adam_rows(
            *arrays, _count(rng, 20), 1e-3, betas, 1e-8, average, decay, int(rng.integers(-2, 9)), threads, name
        )
        return
    known_distances = width if rng.random() < 0.9 else int(rng.integers(0, 12))
    filter_shapes = [(heads, known_distances), (d,), (d,), (d,)]
    filtered = bool(rng.random() < 0.5)

    def own_filter() -> tuple[Any, ...]:
        return (*(_floats(rng, shape) for shape in filter_shapes), 0.7, float(rng.choice([0.8, np.nan])))

    if kind == "encode":
        layers = [[_floats(rng, shape) for shape in shapes] for _ in range(rng.integers(0, 3))]
        lists, known = _lists(rng, rows, MAX_ITEMS), int(rng.integers(0, 2 * MAX_ITEMS))
        if rng.random() < 0.8:
            lists = (_array(rng, (rows,), np.int32, 0, MAX_ITEMS), np.arange(rows + 1))
        table = _floats(rng, (known, d))
        positions = _floats(rng, (width, d)) if rng.random() < 0.6 else None
        filters = [own_filter() for _ in layers] if filtered else None
        queries = _core.encode(*lists, table, positions, layers, filters, heads, 1e-5, threads, name)
        assert queries.shape == (rows, d)
        slots = rng.permutation(rows + 1)[:rows] if rng.random() < 0.9 else _array(rng, (rows,), np.int64, -1, rows + 1)
        items, at = _array(rng, (rows,), np.int64, 0, known), _array(rng, (rows,), np.int64, 0, width)
        caches = [np.zeros((len(layers), rows + 1, heads, width, part), np.float32) for _ in range(2)]
        low = np.zeros((len(layers), rows + 1, d), np.float32) if filtered == (rng.random() < 0.95) else None
        stack = (table, positions, layers, filters, heads, 1e-5)
        queries = _core.step(slots, items, at, *caches, low, *stack, threads, name)
        assert queries.shape == (rows, d)
        return
    if kind == "layer":
        byte_shapes = [(rows, heads, width, width), (rows, width, d), (rows, width, f), (rows, width, d)]
        byte_shapes += [(rows, width, d)] if filtered == (rng.random() < 0.95) else []
        own = own_filter() if filtered else None
        settings = {
            "filter": own,
            "bytes": None if rng.random() < 0.3 else [_array(rng, shape, np.uint8, 0, 256) for shape in byte_shapes],
            "heads": heads,
            "dropped": int(rng.integers(-2, 258)) if rng.random() < 0.1 else 100,
            "epsilon": 1e-5,
            "threads": threads,
            "instruction_set": name,
        }
        x, segments = _floats(rng, (rows, width, d)), _array(rng, (rows, width), np.int64, 0, 3)
        parameters = [_floats(rng, shape) if rng.random() < 0.05 else np.ones(shape, np.float32) for shape in shapes]
        y, saved = _core.layer_forward(x, segments, parameters, **settings)
        assert y.shape == (rows, width, d)
        grad_x, gradients = _core.layer_backward(
            x, segments, parameters, **settings, saved=saved, grad_y=_floats(rng, y.shape)
        )
        assert grad_x.shape == y.shape
        filter_sizes = sum(value.size for value in own[:4]) if own else 0
        assert gradients.shape == (sum(parameter.size for parameter in parameters) + filter_sizes,)
        return
    positions, columns = int(rng.integers(0, 150)), int(rng.choice([0, 1, 7, 200, 4500], p=[0.1, 0.1, 0.3, 0.4, 0.1]))
    queries, weights = _floats(rng, (positions, dim)), _array(rng, (positions,), np.float32, 0, 2)
    targets = _array(rng, (positions,), np.int64, 1, max(columns, 2))
    if kind == "full":
        arguments = queries, _floats(rng, (columns, dim)), targets, weights, threads, name, bool(rng.random() < 0.3)
        loss, *gradients = _core.full_softmax(*arguments)
        assert [gradient.shape for gradient in gradients] == [(positions, dim), (columns, dim)]
        return
    positives, negatives = _floats(rng, (positions, dim)), _floats(rng, (columns, dim))
    ids = _array(rng, (columns,), np.int64, -5, 50)
    offsets = [None if rng.random() < 0.5 else _floats(rng, (length,)) for length in (positions, columns)]
    loss, *gradients = _core.sampled_softmax(
        queries, positives, negatives, targets, ids, weights, *offsets, threads, name, bool(rng.random() < 0.3)
    )
    assert [gradient.shape for gradient in gradients] == [(positions, dim), (positions, dim), (columns, dim)]
    assert weights.any() or loss == 0


def count(rng: np.random.Generator, rows: int, num_items: int, threads: int) -> None:
    """One fit of the item-kNN, or one from arrays, and a score by it."""
    if rng.random() < 0.5:
        ids, offsets = _lists(rng, num_items + 1, num_items)
        values = np.abs(_floats(rng, ids.shape))
        knn = _core.ItemKnn(ids, values, offsets)
    else:
        shares = [float(rng.choice([0.0, 0.5, 1.0, -1.0, np.nan], p=[0.2, 0.4, 0.34, 0.03, 0.03])) for _ in range(4)]
        knn = _core.ItemKnn.fit(
            *_lists(rng, rows, num_items), num_items, _count(rng, 30), *shares, _count(rng, 20), threads
        )
    items = _array(rng, (50,), np.int32, 1, num_items + 1)
    begins = _array(rng, (rows,), np.int64, 0, 20)
    ends = begins + _array(rng, (rows,), np.int64, 0, 29) if begins.shape == (rows,) else begins
    decay, without_own = float(rng.choice([0.0, 0.7, 1.0, 2.0], p=[0.2, 0.4, 0.3, 0.1])), bool(rng.random() < 0.5)
    most = _count(rng, 30)
    found, values, offsets = knn.score(items, begins, ends, decay, _count(rng, 20), most, without_own, threads)
    assert offsets.shape == (len(begins) + 1,)
    assert offsets[0] == 0
    assert offsets[-1] == len(found) == len(values)
    lengths = np.diff(offsets)
    assert ((lengths >= 0) & (lengths <= most)).all()
    assert ((found >= 1) & (found <= num_items)).all()
    assert ((values >= 0) & (values <= 1)).all()
    row = np.repeat(np.arange(len(begins)), lengths)
    assert (np.diff(found)[np.diff(row) == 0] > 0).all()


def pack(rng: np.random.Generator) -> None:
    """Sequences packed into rows, and their soft targets; or one of the simulator's loops."""
    n, width, int64 = int(rng.integers(0, 20)), int(rng.integers(1, 12)), np.int64
    if rng.random() < 0.4:
        users, genres = int(rng.integers(1, 9)), int(rng.integers(1, 6))
        who = _array(rng, (n,), int64, 0, users)
        centres, points = (rng.random((count, 2)) for count in (genres, users))
        offsets, ids = _core.near_points(centres, float(rng.choice([0.0, 0.5, np.nan, 4.0])))
        if rng.random() < 0.3:
            offsets = _array(rng, offsets.shape, int64, 0, 9)
        home, uniform = _array(rng, (users,), np.int32, 0, genres), rng.random(n)
        drawn = _core.draw_genres(who, uniform, points, home, centres, offsets, ids, 8.0)
        assert ((drawn >= 0) & (drawn < genres)).all()
        items, starts = np.zeros(4 * users, np.int32), np.arange(users + 1) * 4
        if rng.random() < 0.3:
            starts = _array(rng, starts.shape, int64, -1, 40)
        step = int(rng.integers(-1, 5))
        assert _core.find_repeats(who, _array(rng, (n,), np.int32, 0, 9), step, items, starts).shape == (n,)
        return
    lengths = _array(rng, (n,), int64, 1, width + 1)
    row, column, rows = _core.assign_rows(lengths, width)
    ends = np.cumsum(lengths + 1)
    size = int(ends[-1]) if ends.size else 0
    if rng.random() < 0.4:
        lengths, row, column, ends = (_array(rng, (n,), int64, -2, most) for most in (width + 2, rows + 1, width, size))
    grid, weights = np.zeros((4, rows, width), int64), np.zeros((rows, width), np.float32)
    _core.fill_rows(_array(rng, (size,), np.int32, 1, 9), ends, lengths, row, column, _floats(rng, (n,)), grid, weights)
    soft = _array(rng, (size, 3), np.int32, 0, 3), _floats(rng, (size, 3)), 0.5, rng.random((2, int(lengths.sum())))
    _core.soften_rows(*soft, ends, lengths, row, column, grid[1])


def one_call(rng: np.random.Generator) -> bool:
    """One random call; True if it was accepted. Raises AssertionError for an unsound answer."""
    rows, num_items, dim = int(rng.integers(0, 40)), int(rng.integers(1, MAX_ITEMS)), int(rng.integers(1, 20))
    threads, k, tau = (
        int(rng.choice([1, 2, 5, 0, -1], p=[0.4, 0.4, 0.1, 0.05, 0.05])),
        _count(rng, 90),
        _count(rng, 90),
    )
    temperature = float(rng.choice([1.0, 0.1, 1e-30, 1e30, np.inf, 0.0, -1.0, np.nan], p=[0.5, 0.1] + [0.4 / 6] * 6))
    seed = int(rng.integers(0, 2**64, dtype=np.uint64)) if rng.random() < 0.95 else int(rng.choice([-1, 2**62])) * 8
    op = rng.choice(
        [
            "learning",
            "packing",
            "count_above",
            "place_within",
            "rank_within",
            "topk",
            "topk_sample",
            "pool_sample",
            "rank_and_sample",
            "rank_and_topk",
            "neighbour_votes",
            "item_knn",
        ]
    )
    draw_k = min(k, 2**31)
    try:
        if op == "learning":
            learn(rng, threads)
            return True
        if op == "packing":
            pack(rng)
            return True
        if op == "item_knn":
            count(rng, rows, num_items, threads)
            return True
        if op == "neighbour_votes":
            graph = _array(rng, (num_items + 1, dim), np.int32, -1, num_items + 2)
            items = _array(rng, (rows,), np.int32, 1, num_items + 1)
            votes = _core.neighbour_votes(graph, items, _lists(rng, rows, num_items), threads)
            assert votes.shape == (len(items),)
            assert (votes >= 0).all()
            return True
        weights = _floats(rng, (num_items + 1, dim))
        table = _core.PackedTable(
            weights if rng.random() < 0.8 else _array(rng, weights.shape, np.uint16, 0, 2**16),
            str(rng.choice([*_core.instruction_sets(), "no"])),
            half=bool(rng.random() < 0.4),
        )
        queries, lists = _floats(rng, (rows, dim)), _lists(rng, rows, num_items)
        excluded = None if rng.random() < 0.3 else _lists(rng, rows, num_items)
        counters = _array(rng, (rows, 3), np.int64, 0, 2**32)
        if op == "rank_within":
            ranks = _core.rank_within(table, queries, lists, tau, threads)
            assert ranks.shape == (rows,)
            assert ((ranks >= 1) & (ranks <= tau + 1)).all()
            return True
        if op == "count_above":
            counts = _core.count_above(table, queries, _floats(rng, (rows,)), tau, threads)
            assert counts.shape == (rows,)
            assert ((counts >= 0) & (counts <= tau)).all()
            return True
        if op == "place_within":
            targets = _array(rng, (rows,), np.int32, 1, num_items + 1)
            places = _core.place_within(table, queries, targets, excluded, tau, threads)
            assert places.shape == (rows,)
            assert ((places >= 1) & (places <= tau + 1)).all()
            return True
        if op == "topk":
            ids, logits = _core.topk(table, queries, min(k, 2**20) if rows < 2 else min(k, 2000), excluded, threads)
        elif op == "rank_and_topk":
            most = min(k, 2**20) if rows < 2 else min(k, 2000)
            ranks, ids, logits = _core.rank_and_topk(table, queries, lists, tau, most, excluded, threads)
            assert (ids[ranks == tau + 1] == 0).all()
        elif op == "topk_sample":
            ids, logits = _core.topk_sample(table, queries, draw_k, temperature, excluded, seed, counters, threads)
        elif op == "pool_sample":
            ids, logits = _core.pool_sample(
                table, queries, lists, draw_k, temperature, excluded, seed, counters, threads
            )
        else:
            ranks, ids, logits = _core.rank_and_sample(
                table, queries, lists, tau, draw_k, temperature, excluded, seed, counters, threads
            )
            assert ((ranks >= 1) & (ranks <= tau + 1)).all()
            assert (ids[ranks == tau + 1] == 0).all()
    except REFUSALS:
        return False
    assert ids.shape == logits.shape
    assert ids.shape[0] == rows
    assert ((ids >= 0) & (ids <= num_items)).all()
    assert ((ids == 0) == (logits == -np.inf)).all()
    return True


def fuzz(iterations: int, seed: int) -> int:
    """Number of calls that were accepted."""
    accepted = 0
    for iteration in range(iterations):
        try:
            accepted += one_call(np.random.default_rng([seed, iteration]))
        except BaseException:
            print(f"--seed {seed}, iteration {iteration}", file=sys.stderr)
            raise
    return accepted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    accepted = fuzz(options.iterations, options.seed)
    print(f"{options.iterations} calls, {accepted} accepted, the rest refused")


if __name__ == "__main__":
    main()

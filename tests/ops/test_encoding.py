"""Histories through Transformer layers: every backend against the reference in float64, and bits that never vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir import _core, ops
from tests.ops.naive import ragged

NUM_ITEMS, POSITIONS = 40, 11


def weights(dim=24, feedforward=20, layers=2, seed=0, heads=None):
    """Embeddings, positions and layers large enough for attention to matter; with heads no positions but filters."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) / max(shape[-1] ** 0.5, 1) * 1.5

    d, f = dim, feedforward
    shapes = ((3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,), (d,), (d,))
    stack = [ops.LayerParameters(*(draw(*shape) for shape in shapes)) for _ in range(layers)]
    if heads is None:
        return draw(NUM_ITEMS + 1, d), draw(POSITIONS, d), stack
    filters = [ops.LayerFilter(draw(heads, POSITIONS), draw(d), draw(d), draw(d), 0.7, 0.8) for _ in stack]
    stack = [layer._replace(filter=own) for layer, own in zip(stack, filters, strict=True)]
    return draw(NUM_ITEMS + 1, d), None, stack


def in_double(table, positions, stack):
    layers = [layer.each(torch.Tensor.double) for layer in stack]
    return table.double(), None if positions is None else positions.double(), layers


def histories(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, NUM_ITEMS + 1, rng.integers(1, POSITIONS + 5)) for _ in range(count)]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("instruction_set", ["base", "avx2", "avx512"])
@pytest.mark.parametrize(("dim", "feedforward", "heads"), [(24, 20, 3), (64, 128, 2), (1, 1, 1)])
def test_cpp_equals_the_reference(instruction_set, layers, dim, feedforward, heads, filtered):
    if instruction_set not in _core.instruction_sets():
        pytest.skip(f"this CPU or build does not offer {instruction_set}")
    table, positions, stack = weights(dim, feedforward, layers, heads=heads if filtered else None)
    lists = ragged(histories(60))
    got = ops.encode_histories(
        lists, table, positions, stack, heads=heads, backend="cpp", instruction_set=instruction_set
    )
    want = ops.encode_histories(lists, *in_double(table, positions, stack), heads=heads)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("heads", [None, 2])
def test_bits_do_not_depend_on_company_or_threads(heads):
    table, positions, stack = weights(64, 128, heads=heads)
    rows = histories(500, seed=1)
    whole = ops.encode_histories(ragged(rows), table, positions, stack, heads=2, threads=1)
    order = np.random.default_rng(0).permutation(len(rows))
    for threads in (1, 2, 3):
        shuffled = ops.encode_histories(
            ragged([rows[row] for row in order]), table, positions, stack, heads=2, threads=threads
        )
        assert torch.equal(shuffled, whole[order])
    for row in (0, 250, 499):
        assert torch.equal(ops.encode_histories(ragged([rows[row]]), table, positions, stack, heads=2)[0], whole[row])


def grown(rows, table, positions, stack, heads, **choice):
    """Queries of histories that grow item by item, in a slot each, in changing company."""
    dim = table.shape[1]
    shape = (len(stack), len(rows) + 1, heads, POSITIONS, dim // heads)
    keys, values = torch.full(shape, torch.nan, dtype=table.dtype), torch.full(shape, torch.nan, dtype=table.dtype)
    low = None if stack[0].filter is None else torch.full((*shape[:2], dim), torch.nan, dtype=table.dtype)
    queries = torch.empty(len(rows), dim, dtype=table.dtype)
    for place in range(max(map(len, rows))):
        slots = torch.tensor([row for row in range(len(rows)) if len(rows[row]) > place]).flip(0)
        items = torch.tensor([int(rows[row][place]) for row in slots])
        at = torch.full_like(slots, place)
        queries[slots] = ops.extend_histories(
            slots, items, at, keys, values, table, positions, stack, heads=heads, low=low, **choice
        )
    return queries


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("instruction_set", ["base", "avx2", "avx512"])
@pytest.mark.parametrize(("dim", "feedforward", "heads"), [(24, 20, 3), (64, 128, 2), (1, 1, 1)])
def test_growing_histories_have_the_bits_of_whole_ones(instruction_set, dim, feedforward, heads, filtered):
    if instruction_set not in _core.instruction_sets():
        pytest.skip(f"this CPU or build does not offer {instruction_set}")
    table, positions, stack = weights(dim, feedforward, heads=heads if filtered else None)
    rows = [row[:POSITIONS] for row in histories(300)]
    choice = {"instruction_set": instruction_set, "threads": 2}
    whole = ops.encode_histories(ragged(rows), table, positions, stack, heads=heads, **choice)
    assert torch.equal(grown(rows, table, positions, stack, heads, **choice), whole)


@pytest.mark.parametrize("heads", [None, 3])
def test_growing_histories_by_the_reference(heads):
    exact = in_double(*weights(heads=heads))
    rows = [row[:POSITIONS] for row in histories(20)]
    whole = ops.encode_histories(ragged(rows), *exact, heads=3)
    torch.testing.assert_close(grown(rows, *exact, 3), whole)


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_filters_fit_their_stack(backend):
    table, positions, stack = weights(heads=3)
    plain = weights()[2]
    keys, values = torch.zeros(2, 4, 3, POSITIONS, 8), torch.zeros(2, 4, 3, POSITIONS, 8)
    one = torch.zeros(1, dtype=torch.int64)
    short = stack[1]._replace(filter=stack[1].filter._replace(distances=torch.ones(3, 4)))
    for given, message in (
        ([stack[0], plain[0]], "layers: expected a filter in all of them or in none"),
        (plain, "positions: expected"),
        ([stack[0], short], r"filter.distances: expected shape \(3, 11\), got \(3, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ops.encode_histories(ragged([[1]]), table, positions, given, heads=3, backend=backend)
    for low, message in (
        (None, "low: expected for"),
        (torch.zeros(2, 3, 24), r"low: expected contiguous \(2, 4, 24\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ops.extend_histories(
                one, one + 1, one, keys, values, table, positions, stack, heads=3, low=low, backend=backend
            )


def test_bad_slots():
    table, positions, stack = weights()
    keys, values = torch.zeros(2, 4, 3, POSITIONS, 8), torch.zeros(2, 4, 3, POSITIONS, 8)

    def extend(slots=(0, 1), items=(1, 2), lengths=(0, 0), keys=keys):
        arrays = (torch.tensor(part) for part in (slots, items, lengths))
        ops.extend_histories(*arrays, keys, values, table, positions, stack, heads=3)

    for arguments, message in (
        ({"slots": (0, 4)}, r"slots: expected 0..3, got 0..4"),
        ({"slots": (1, 1)}, "distinct"),
        ({"items": (0, 2)}, r"items: expected 1..40, got 0..2"),
        ({"lengths": (0, POSITIONS)}, r"lengths: expected 0..10"),
        ({"keys": keys[:1]}, "keys: expected contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            extend(**arguments)


def test_only_the_last_items_are_read():
    table, positions, stack = weights()
    long = np.arange(1, 31)
    got = ops.encode_histories(ragged([long, long[-POSITIONS:]]), table, positions, stack, heads=3)
    assert torch.equal(got[0], got[1])


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_bad_input(backend):
    table, positions, stack = weights()
    for lists, message in (([[1], []], "history 1 is empty"), ([[1], [2, 99]], "row 1 holds id 99")):
        with pytest.raises(ValueError, match=message):
            ops.encode_histories(ragged(lists), table, positions, stack, heads=3, backend=backend)
    with pytest.raises(ValueError, match="heads: expected a divisor of 24, got 5"):
        ops.encode_histories(ragged([[1]]), table, positions, stack, heads=5, backend=backend)
    with pytest.raises(ValueError, match="layers: expected at least one"):
        ops.encode_histories(ragged([[1]]), table, positions, [], heads=3, backend=backend)
    mixed = [stack[0], weights(feedforward=8)[2][0]]
    with pytest.raises(ValueError, match="up_weight: expected shape"):
        ops.encode_histories(ragged([[1]]), table, positions, mixed, heads=3, backend=backend)

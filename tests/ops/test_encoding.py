"""Histories through Transformer layers: every backend against the reference in float64, and bits that never vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive import ragged

from rsir import _core, ops

NUM_ITEMS, POSITIONS = 40, 11


def weights(dim=24, feedforward=20, layers=2, seed=0):
    """Embeddings, positions and layers large enough for attention to matter."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) / max(shape[-1] ** 0.5, 1) * 1.5

    d, f = dim, feedforward
    shapes = ((3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,), (d,), (d,))
    stack = [ops.LayerParameters(*(draw(*shape) for shape in shapes)) for _ in range(layers)]
    return draw(NUM_ITEMS + 1, d), draw(POSITIONS, d), stack


def histories(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, NUM_ITEMS + 1, rng.integers(1, POSITIONS + 5)) for _ in range(count)]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("instruction_set", ["base", "avx2", "avx512"])
@pytest.mark.parametrize(("dim", "feedforward", "heads"), [(24, 20, 3), (64, 128, 2), (1, 1, 1)])
def test_cpp_equals_the_reference(instruction_set, layers, dim, feedforward, heads):
    if instruction_set not in _core.instruction_sets():
        pytest.skip(f"this CPU or build does not offer {instruction_set}")
    table, positions, stack = weights(dim, feedforward, layers)
    lists = ragged(histories(60))
    got = ops.encode_histories(
        lists, table, positions, stack, heads=heads, backend="cpp", instruction_set=instruction_set
    )
    exact = [ops.LayerParameters(*(parameter.double() for parameter in layer)) for layer in stack]
    want = ops.encode_histories(lists, table.double(), positions.double(), exact, heads=heads)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-5)


def test_bits_do_not_depend_on_company_or_threads():
    table, positions, stack = weights(64, 128)
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

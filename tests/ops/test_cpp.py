"""What only the compiled backend has: tiles, threads, early exit, buffers for large k, and its own checks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from rsir import _core, ops
from tests.ops import naive
from tests.ops.naive import ragged, random_case

INSTRUCTION_SETS = pytest.mark.parametrize("instruction_set", _core.instruction_sets())


def _floats(rows: int, num_items: int, dim: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator), torch.randn(num_items + 1, dim, generator=generator)


@INSTRUCTION_SETS
@pytest.mark.parametrize("rows", [*range(1, 31), 57])
def test_partial_tiles_at_every_height(instruction_set, rows):
    case = random_case((rows, 70, 5), seed=rows)
    table = ops.pack(case.items, instruction_set=instruction_set)
    np.testing.assert_array_equal(ops.topk(case.queries, table, 6).ids, naive.topk(case.logits(), 6)[0])
    got = ops.rank_within(case.queries, table, ragged(case.targets), 4)
    np.testing.assert_array_equal(got, naive.ranks(case.logits(), case.targets, 4))


@INSTRUCTION_SETS
@pytest.mark.parametrize("k", [64, 65, 300, 1400, 3000])
def test_large_k(instruction_set, k):
    case = random_case((9, 1500, 4), seed=k)
    table = ops.pack(case.items, instruction_set=instruction_set)
    got = ops.topk(case.queries, table, k, excluded=ragged(case.excluded))
    want = naive.topk(case.logits(), k, case.excluded)
    np.testing.assert_array_equal(got.ids, want[0])
    np.testing.assert_array_equal(got.logits, want[1])


@INSTRUCTION_SETS
@pytest.mark.parametrize("k", [1, 2, 7, 40])
def test_ties_and_signed_zeros_at_every_cut(instruction_set, k):
    """Logits rise slowly with the id, so that candidates are cut again and again, with ties across every cut."""
    values = torch.arange(3001).div(90, rounding_mode="floor") - 12.0
    values[1000:1200] = 0.0
    values[1100:1130] = -0.0
    for items in (values, values.flip(0), torch.zeros(3001).copysign(values)):
        table = ops.pack(items[:, None].contiguous(), instruction_set=instruction_set)
        excluded = [[], list(range(2900, 2950)), list(range(1, 3001, 2))]
        got = ops.topk(torch.ones(3, 1), table, k, excluded=ragged(excluded))
        want = naive.topk(np.where(np.arange(3001) == 0, -np.inf, items.numpy())[None].repeat(3, 0), k, excluded)
        np.testing.assert_array_equal(got.ids, want[0])
        np.testing.assert_array_equal(got.logits, want[1])


@INSTRUCTION_SETS
@pytest.mark.parametrize("k", [20, 200])
def test_threads_split_rows_or_items_without_a_trace(instruction_set, k):
    """3,000 items are worth several threads even for few rows, which then share the items out."""
    for rows in (1, 3, 40, 700):
        queries, items = _floats(rows, 3000, 128)
        table = ops.pack(items, instruction_set=instruction_set)
        rng = np.random.default_rng(rows)
        targets, excluded = (ragged([rng.integers(1, 3001, n) for _ in range(rows)]) for n in (2, 30))
        draw = ops.Draw(k, counters=torch.from_numpy(rng.integers(0, 2**32, (rows, 3))))
        for tau in (30, None):
            results = [
                ops.rank_and_sample(queries, table, targets, tau, draw, excluded=excluded, threads=threads)
                for threads in (1, 2, 3, 8)
            ]
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
        tops = [ops.topk(queries, table, k, excluded=excluded, threads=threads) for threads in (1, 2, 8)]
        assert all(torch.equal(tops[0].logits, other.logits) for other in tops[1:])
        assert all(torch.equal(tops[0].ids, other.ids) for other in tops[1:])


@INSTRUCTION_SETS
def test_a_row_has_the_same_bits_in_any_batch(instruction_set):
    queries, items = _floats(450, 1100, 100)
    table = ops.pack(items, instruction_set=instruction_set)
    whole = ops.topk(queries, table, 10)
    for rows in ([449], [3, 200], list(range(60, 101))):
        part = ops.topk(queries[rows], table, 10)
        assert torch.equal(part.logits, whole.logits[rows])
        assert torch.equal(part.ids, whole.ids[rows])
    pool = ragged([range(1, 1101)] * 40)
    drawn = ops.pool_sample(queries[:40], table, pool)
    assert torch.equal(drawn.logits, whole.logits[:40, 0])


@pytest.mark.skipif("avx512" not in _core.instruction_sets(), reason="this CPU has no AVX-512")
def test_avx2_and_avx512_agree_to_the_bit():
    queries, items = _floats(50, 500, 77)
    first, second = (ops.topk(queries, ops.pack(items, instruction_set=name), 20) for name in ("avx2", "avx512"))
    assert torch.equal(first.ids, second.ids)
    assert torch.equal(first.logits, second.logits)


@INSTRUCTION_SETS
def test_early_exit_keeps_the_rows_that_go_on(instruction_set):
    """Rows leave the tiles at different times over 5,000 items; the others must not notice."""
    queries, items = _floats(300, 5000, 16)
    table = ops.pack(items, instruction_set=instruction_set)
    rng = np.random.default_rng(0)
    targets = ragged([rng.integers(1, 5001, rng.integers(0, 40)) for _ in range(300)])
    counters = torch.from_numpy(rng.integers(0, 2**32, (300, 3)))
    exact = ops.rank_within(queries, table, targets)
    for tau in (10, 100, 1000):
        got = ops.rank_and_sample(queries, table, targets, tau, ops.Draw(5, counters=counters))
        drawn = ops.topk_sample(queries, table, ops.Draw(5, counters=counters))
        passed = exact <= tau
        assert 0 < passed.sum() < 300
        assert torch.equal(got.ranks, exact.clamp(max=tau + 1))
        assert torch.equal(got.ids, torch.where(passed, drawn.ids, 0))


@INSTRUCTION_SETS
def test_close_to_double_precision(instruction_set):
    queries, items = _floats(20, 200, 1024)
    got = ops.topk(queries, ops.pack(items, instruction_set=instruction_set), 200)
    exact = (queries.double() @ items.double().T).gather(1, got.ids)
    assert (got.logits.double() - exact).abs().max() < 1e-4 * exact.abs().max()


def test_changing_packed_embeddings_is_noticed():
    items = torch.nn.Parameter(torch.ones(6, 2))
    table = ops.pack(items)
    ops.topk(torch.ones(1, 2), table, 1)
    with torch.no_grad():
        items.mul_(2.0)
    with pytest.raises(ValueError, match="pack them again"):
        ops.topk(torch.ones(1, 2), table, 1)


def test_inference_tensors_and_gradients_are_fine():
    with torch.inference_mode():
        table = ops.pack(torch.ones(6, 2))
    assert ops.topk(torch.ones(1, 2, requires_grad=True), table, 1).ids.tolist() == [[1]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from Linux's rusage")
def test_no_matrix_of_rows_by_items():
    """512 rows by 60,000 items would be 117 MiB."""
    code = """
import resource, torch
from rsir import ops
torch.manual_seed(0)
items, queries = torch.randn(60_001, 16), torch.randn(512, 16)
table = ops.pack(items, backend="cpp")
targets = excluded = ops.Ragged(torch.arange(1, 513), torch.arange(513))
counters = torch.zeros(512, 3, dtype=torch.int64)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ops.topk(queries[:1], table, 1)
before = peak()
ops.rank_and_sample(queries, table, targets, draw=ops.Draw(20, counters=counters), excluded=excluded, threads=2)
print(peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 16 * 1024  # KiB

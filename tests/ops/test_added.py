"""Scores added to the logits of a few items, beside what test_ops.py holds every op to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir import ops
from rsir.ops.added import Adding
from rsir.ops.added import scorer as scorer_of
from rsir.ops.cpp_catalogue import CppCatalogue
from tests.ops import naive
from tests.ops.naive import ragged, random_case, sparse_scores


def test_sums_are_those_of_the_very_logits_of_the_scan(scorer):
    """With unrounded embeddings and values: the truth is a matrix of the backend's own logits."""
    rows, num_items, dim = (3, 50, 20) if scorer.interpreted else (40, 700, 64)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    table = scorer.pack(torch.randn(num_items + 1, dim, generator=generator))
    queries = torch.randn(rows, dim, generator=generator).to(scorer.device)
    every = ops.topk(queries, table, num_items)
    logits = torch.full((rows, num_items + 1), -torch.inf, device=scorer.device).scatter_(1, every.ids, every.logits)
    logits = logits.cpu().numpy()
    catalogue = ragged([range(1, num_items + 1)] * rows, scorer.device)
    np.testing.assert_array_equal(ops.logits_of(queries, table, catalogue).view(rows, -1).cpu().numpy(), logits[:, 1:])

    listed = [np.sort(rng.choice(num_items, rng.integers(0, 40), replace=False)) + 1 for _ in range(rows)]
    values = [(3 * rng.standard_normal(len(row))).astype(np.float32) for row in listed]
    added = sparse_scores(listed, values, scorer.device)
    scores = naive.with_added(logits, listed, values)
    for got, want in zip(ops.topk(queries, table, 30, added=added), naive.topk(scores, 30), strict=True):
        np.testing.assert_array_equal(got.cpu().numpy(), want)
    targets = [rng.integers(1, num_items + 1, rng.integers(0, 4)) for _ in range(rows)]
    for tau in (None, 1, 25):
        got = ops.rank_within(queries, table, ragged(targets, scorer.device), tau, added=added)
        assert got.tolist() == naive.ranks(scores, targets, tau).tolist()


def test_equal_sums_come_in_id_order_whether_added_or_not(scorer):
    table = scorer.pack(torch.ones(71, 4))
    queries = torch.ones(2, 4, device=scorer.device)
    added = sparse_scores([[3, 5, 9, 30], []], [[1, -1, 0, -0.0], []], scorer.device)
    found = ops.topk(queries, table, 12, excluded=ragged([[1, 9], []], scorer.device), added=added)
    assert found.ids.tolist() == [[3, 2, 4, 6, 7, 8, 10, 11, 12, 13, 14, 15], list(range(1, 13))]
    assert found.logits[0].tolist() == [5.0] + [4.0] * 11
    own = torch.tensor([30, 30], device=scorer.device)
    assert ops.place_within(queries, table, own, 40, added=added).tolist() == [29, 30]


def test_zeros_are_equal_whatever_their_sign(scorer):
    table = scorer.pack(torch.tensor([[0.0], [1e-30], [0.0]]))
    queries = torch.tensor([[-1e-30]], device=scorer.device)
    added = sparse_scores([[1, 2]], [[-0.0, -0.0]], scorer.device)
    assert ops.topk(queries, table, 2, added=added).ids.tolist() == [[1, 2]]


def test_nothing_added_changes_nothing(scorer):
    case = random_case((6, 30, 5), seed=4)
    table, queries = scorer.pack(case.items), case.queries.to(scorer.device)
    excluded = ragged(case.excluded, scorer.device)
    none = sparse_scores([[]] * 6, [[]] * 6, scorer.device)
    for got, want in zip(
        ops.topk(queries, table, 7, excluded=excluded, added=none),
        ops.topk(queries, table, 7, excluded=excluded),
        strict=True,
    ):
        assert torch.equal(got, want)
    targets = ragged(case.targets, scorer.device)
    assert torch.equal(ops.rank_within(queries, table, targets, added=none), ops.rank_within(queries, table, targets))
    empty = sparse_scores([], [], scorer.device)
    assert ops.topk(queries[:0], table, 3, added=empty).ids.shape == (0, 3)
    assert ops.rank_within(queries[:0], table, ragged([], scorer.device), added=empty).shape == (0,)


def test_a_row_does_not_depend_on_the_others(scorer, monkeypatch):
    """Padded matrices of listed items are made a few rows at a time."""
    case = random_case((9, 40, 5), seed=1)
    table, queries = scorer.pack(case.items), case.queries.to(scorer.device)
    added = sparse_scores(case.listed, case.values, scorer.device)
    whole = ops.topk(queries, table, 8, added=added)
    monkeypatch.setattr("rsir.ops.composed._MOST", 100)
    assert all(map(torch.equal, ops.topk(queries, table, 8, added=added), whole))
    for row in (0, 4):
        alone = sparse_scores(case.listed[row : row + 1], case.values[row : row + 1], scorer.device)
        assert torch.equal(ops.topk(queries[row : row + 1], table, 8, added=alone).ids[0], whole.ids[row])


@pytest.mark.parametrize("ids", [[2, 2], [3, 1]])
def test_lists_that_do_not_ascend_are_refused(ids):
    added = sparse_scores([[3], ids, [1]], [[1], [1, 1], [1]])
    with pytest.raises(ValueError, match="added: row 1 does not ascend, expected each id once and in order"):
        ops.topk(torch.ones(3, 2), torch.ones(4, 2), 1, added=added)


def test_values_that_do_not_fit_are_refused():
    queries, items = torch.ones(3, 2), torch.ones(4, 2)
    added = sparse_scores([[3], [], [1]], [[1], [], [float("nan")]])
    with pytest.raises(ValueError, match="added: row 2 holds NaN, expected numbers"):
        ops.topk(queries, items, 1, added=added)
    with pytest.raises(ValueError, match=r"added.values: expected \(2,\) float32 on cpu, got \(1,\)"):
        ops.topk(queries, items, 1, added=added._replace(values=torch.ones(1)))
    with pytest.raises(ValueError, match=r"added: row 0 holds id 4, expected ids in 1..3"):
        ops.topk(queries, items, 1, added=added._replace(ids=torch.tensor([4, 1])))


def test_tables_in_half_precision_too(scorer):
    case = random_case((5, 40, 6), seed=2)
    table = scorer.pack(case.items, torch.float16)
    added = sparse_scores(case.listed, case.values, scorer.device)
    got = ops.topk(case.queries.to(scorer.device), table, 9, added=added)
    want = naive.topk(naive.with_added(case.logits(), case.listed, case.values), 9)
    assert got.ids.tolist() == want[0].tolist()


def equal(got, want) -> None:
    for one, other in zip(*((got, want) if isinstance(got, tuple) else ((got,), (want,))), strict=True):
        assert torch.equal(one, other)


def test_the_compiled_ops_are_those_that_are_composed(scorer):
    """Of unrounded numbers, every bit: with many listed items, some of them excluded, and panels that are split."""
    rows, num_items = (3, 40) if scorer.interpreted else (37, 900)
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(1)
    table = scorer.pack(torch.randn(num_items + 1, 16, generator=generator))
    queries = torch.randn(rows, 16, generator=generator).to(scorer.device)

    def lists(most: int) -> list[np.ndarray]:
        return [np.sort(rng.choice(num_items, rng.integers(0, most + 1), replace=False)) + 1 for _ in range(rows)]

    listed = lists(num_items // 3)
    listed[1] = np.arange(1, num_items + 1)
    values = [(4 * rng.standard_normal(len(row))).astype(np.float32) for row in listed]
    added = sparse_scores(listed, values, scorer.device, torch.int32)
    excluded = [np.union1d(row[:3], other) for row, other in zip(listed, lists(20), strict=True)]
    excluded = ragged(excluded, scorer.device, torch.int32)
    targets = ragged([rng.integers(1, num_items + 1, 2) for _ in range(rows)], scorer.device, torch.int32)
    pool = ragged(lists(30), scorer.device, torch.int32)
    own = torch.tensor([row[len(row) // 2] if len(row) else 1 for row in listed], dtype=torch.int32)
    own = own.to(scorer.device)
    counters = torch.from_numpy(rng.integers(0, 2**32, (rows, 3))).to(scorer.device)
    bars = ops.topk(queries, table, 9).logits[:, 8].contiguous()  # of items: some are equal
    fast, slow = scorer_of(table, added), Adding(added)
    assert type(fast) is (CppCatalogue if scorer.backend == "cpp" else Adding)
    for threads in (1, 3):
        for k in (1, 20, num_items):
            draw = ops.Draw(k, 0.7, 5, counters)
            for some in (None, excluded):
                equal(fast.topk(queries, table, k, some, threads), slow.topk(queries, table, k, some, threads))
                for name, own_lists in (("topk_sample", ()), ("pool_sample", (pool,))):
                    given = queries, table, *own_lists, draw, some, threads
                    equal(getattr(fast, name)(*given), getattr(slow, name)(*given))
                for tau in (None, 3):
                    given = queries, table, targets, tau, draw, some, threads
                    equal(fast.rank_and_sample(*given), slow.rank_and_sample(*given))
                    given = queries, table, targets, tau, k, some, threads
                    equal(fast.rank_and_topk(*given), slow.rank_and_topk(*given))
                given = queries, table, own, k, some, threads
                equal(fast.place_within(*given), slow.place_within(*given))
        for limit in (None, 1, 15):
            for name, above in (("rank_within", targets), ("count_above", bars)):
                given = queries, table, above, limit, threads
                equal(getattr(fast, name)(*given), getattr(slow, name)(*given))

"""Proved verdicts against the exact scan: rsir.generation.screening."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.proofs import ProofStats, rank_within_proved
from rsir import ops
from rsir.generation.neighbours import CandidateIndex
from rsir.ops import Ragged


def problem(num_items: int, rows: int, seed: int, dim: int = 8, spread: float = 0.3, copies: bool = False):
    """Items around a few centres, queries near them, and 0 to 4 targets a row, some near the query."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((6, dim))
    items = centres[random.integers(6, size=num_items + 1)] + spread * random.standard_normal((num_items + 1, dim))
    items *= np.exp(0.3 * random.standard_normal((num_items + 1, 1)))
    if copies:  # exact ties between targets and others, and nearly equal logits
        items[1:] = items[random.integers(1, 1 + max(1, num_items // 3), size=num_items)]
    queries = centres[random.integers(6, size=rows)] + spread * random.standard_normal((rows, dim))
    best = np.argsort(-(queries @ items[1:].T), axis=1) + 1
    lists = [
        [best[row, min(num_items - 1, int(num_items ** random.random()) - 1)] for _ in range(random.integers(5))]
        for row in range(rows)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])])
    ids = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in lists])
    return (
        torch.from_numpy(items.astype(np.float32)),
        torch.from_numpy(queries.astype(np.float32)),
        Ragged(torch.from_numpy(ids), torch.from_numpy(offsets)),
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_items=st.integers(1, 400),
    tau=st.integers(1, 30),
    probes=st.sampled_from([1, 2, 8]),
    spread=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    copies=st.booleans(),
    method=st.sampled_from(["flat", "ivf"]),
    half=st.booleans(),
)
def test_verdicts_are_those_of_the_exact_scan(seed, num_items, tau, probes, spread, copies, method, half):
    items, queries, targets = problem(num_items, 30, seed, spread=spread, copies=copies)
    if half:
        index = CandidateIndex(ops.pack(items, dtype=torch.float16), method=method, probes=probes, seed=seed)
        items = items.half().float()
    else:
        index = CandidateIndex(items, method=method, probes=probes, seed=seed)
    exact = ops.rank_within(queries, items, targets, tau)
    ranks, stats = rank_within_proved(queries, index, targets, tau)
    assert torch.equal(ranks, exact)
    assert stats.rows == stats.rejected + stats.scanned == 30
    assert stats.trusted == stats.audited == 0
    trusted, _ = rank_within_proved(queries, index, targets, tau, verify="trust", audit=0)
    rejected = trusted > tau
    assert (exact[rejected] > tau).all()
    # A proof holds for every backend: the reference sums in float64, so its close calls may fall otherwise.
    assert (ops.rank_within(queries, items, targets, tau, backend="reference")[rejected] > tau).all()
    assert (trusted <= exact).all()


def large():
    """A catalogue of tight clusters."""
    return problem(20_000, 400, seed=5, dim=16, spread=0.1)


def test_proofs_settle_most_failures():
    items, queries, targets = large()
    index = CandidateIndex(items, method="ivf")
    ranks, stats = rank_within_proved(queries, index, targets, 10)
    assert torch.equal(ranks, ops.rank_within(queries, items, targets, 10))
    failures = int((ranks > 10).sum())
    assert 0.9 * failures < stats.rejected <= failures


def test_trust_measures_its_leak():
    items, queries, targets = problem(5_000, 1_000, seed=5, dim=16, spread=1.0)
    index = CandidateIndex(items, method="ivf", probes=1)
    exact = ops.rank_within(queries, items, targets, 10)
    nothing, all_open = rank_within_proved(queries, index, targets, 10, verify="trust", audit=0)
    is_open = nothing <= 10
    assert all_open.trusted == int(is_open.sum()) == all_open.rows - all_open.rejected
    assert all_open.audited == all_open.scanned == 0
    assert np.isnan(all_open.leak)

    everything, full = rank_within_proved(queries, index, targets, 10, verify="trust", audit=1)
    assert torch.equal(everything, exact)
    assert full.audited == full.scanned == full.trusted == all_open.trusted
    true_leak = float((exact[is_open] > 10).float().mean())
    assert 0 < full.leak == pytest.approx(true_leak)

    half, part = rank_within_proved(queries, index, targets, 10, verify="trust", audit=0.5)
    assert 0.3 * part.trusted < part.audited < 0.7 * part.trusted
    assert abs(part.leak - true_leak) < 4 * (true_leak / part.audited) ** 0.5 + 0.02
    audited = half != nothing
    assert torch.equal(half[audited], exact[audited])


@pytest.mark.parametrize("verify", ["exact", "trust"])
def test_batches_and_threads_change_nothing(verify):
    items, queries, targets = large()
    index = CandidateIndex(items, method="ivf", probes=1)
    whole, stats = rank_within_proved(queries, index, targets, 5, verify=verify, threads=2)
    ranks, total = [], ProofStats()
    for start in range(0, len(queries), 37):
        stop = min(start + 37, len(queries))
        low, high = targets.offsets[start], targets.offsets[stop]
        part = Ragged(targets.ids[low:high], targets.offsets[start : stop + 1] - low)
        some, count = rank_within_proved(queries[start:stop], index, part, 5, verify=verify, threads=1)
        ranks.append(some)
        total += count
    assert torch.equal(whole, torch.cat(ranks))
    assert total == stats


@pytest.mark.parametrize("method", ["flat", "ivf"])
def test_odd_queries_and_empty_batches(method):
    items, queries, targets = problem(200, 6, seed=1)
    index = CandidateIndex(items, method=method)
    queries[0] = torch.nan
    queries[1, 2] = torch.inf
    queries[2] = 0
    queries[3] = 3e38
    queries[4] = 1e-40
    ranks, _ = rank_within_proved(queries, index, targets, 10)
    assert torch.equal(ranks, ops.rank_within(queries, items, targets, 10))
    none, stats = rank_within_proved(queries[:0], index, Ragged(targets.ids[:0], targets.offsets[:1]), 10)
    assert none.shape == (0,)
    assert stats == ProofStats()


def test_wrong_arguments():
    items, queries, targets = problem(200, 6, seed=1)
    index = CandidateIndex(items, method="ivf")
    with pytest.raises(ValueError, match="verify: expected 'exact' or 'trust', got 'hope'"):
        rank_within_proved(queries, index, targets, 10, verify="hope")
    with pytest.raises(ValueError, match="audit: expected a share"):
        rank_within_proved(queries, index, targets, 10, audit=2)
    with pytest.raises(ValueError, match="tau: expected a whole number"):
        rank_within_proved(queries, index, targets, 0)
    with pytest.raises(ValueError, match="targets: row 0 holds id 999"):
        rank_within_proved(queries[:1], index, Ragged(torch.tensor([999]), torch.tensor([0, 1])), 10)


@pytest.mark.parametrize("tau", [60, 20_000_000])
def test_a_tau_that_nothing_fails_searches_nothing(monkeypatch, tau):
    items, queries, targets = problem(60, 30, 0)
    index = CandidateIndex(items, method="ivf")
    monkeypatch.setattr(CandidateIndex, "search", lambda *_, **__: pytest.fail("searched"))
    ranks, stats = rank_within_proved(queries, index, targets, tau)
    assert torch.equal(ranks, ops.rank_within(queries, items, targets, tau))
    assert stats.rejected == int((targets.offsets.diff() == 0).sum()) > 0


def test_candidates_are_searched_a_bounded_number_at_a_time(monkeypatch):
    items, queries, targets = problem(300, 40, 1)
    index = CandidateIndex(items, method="ivf")
    whole = rank_within_proved(queries, index, targets, 20)
    sizes, search = [], CandidateIndex.search

    def counted(self, queries, k, **options):
        sizes.append(len(queries) * k)
        return search(self, queries, k, **options)

    monkeypatch.setattr(CandidateIndex, "search", counted)
    monkeypatch.setattr("rsir.generation.screening._CANDIDATES", 150)
    parts = rank_within_proved(queries, index, targets, 20)
    assert max(sizes) <= 150
    assert torch.equal(parts[0], whole[0])
    assert parts[1] == whole[1]

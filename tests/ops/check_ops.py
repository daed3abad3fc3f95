"""Every op of a table against the plain computation, on one case."""

from __future__ import annotations

import numpy as np
import torch

from rsir import ops
from tests.ops import naive
from tests.ops.naive import ragged, sparse_scores

SEED = 2**63 + 12345  # both key words in use


def equal(got, want) -> None:
    for one, other in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
        np.testing.assert_array_equal(one.cpu().numpy(), other)
        assert one.cpu().numpy().dtype == other.dtype


def check_everything(scorer, case, *, k: int, temperature: float, tau: int | None, dtype=None, adding=False) -> None:
    """All ops on one case, with or without scores that are added."""
    table, device = scorer.pack(case.items, dtype), scorer.device
    queries, counters = case.queries.to(device), case.counters.to(device)
    targets, excluded, pool = (ragged(lists, device) for lists in (case.targets, case.excluded, case.pool))
    draw = ops.Draw(k, temperature, SEED, counters)
    logits = case.logits()
    listed = np.concatenate([row[ids] for row, ids in zip(logits, case.pool, strict=True)])
    equal(ops.logits_of(queries, table, pool), (listed,))
    added = sparse_scores(case.listed, case.values, device) if adding else None
    if adding:
        logits = naive.with_added(logits, case.listed, case.values)

    equal(ops.topk(queries, table, k, added=added), naive.topk(logits, k))
    equal(ops.topk(queries, table, k, excluded=excluded, added=added), naive.topk(logits, k, case.excluded))
    want = naive.sample(logits, k, temperature, SEED, case.counters, None, case.excluded)
    equal(ops.topk_sample(queries, table, draw, excluded=excluded, added=added), want)
    want_pool = naive.sample(logits, k, temperature, SEED, case.counters, case.pool, case.excluded)
    equal(ops.pool_sample(queries, table, pool, draw, excluded=excluded, added=added), want_pool)
    want_ranks = naive.ranks(logits, case.targets, tau)
    equal(ops.rank_within(queries, table, targets, tau, added=added), (want_ranks,))
    bars = logits[np.arange(len(logits)), np.random.default_rng(k).integers(0, table.num_items + 1, len(logits))]
    above = (logits[:, 1:] > bars[:, None]).sum(1).clip(max=tau)
    equal(ops.count_above(queries, table, torch.from_numpy(bars).to(device), tau, added=added), (above,))
    limit = table.num_items if tau is None else tau
    own = torch.from_numpy(np.random.default_rng(k).integers(1, table.num_items + 1, len(queries)))
    want_places = naive.places(logits, own.numpy(), limit, case.excluded)
    equal(ops.place_within(queries, table, own.to(device), limit, excluded=excluded, added=added), (want_places,))
    want_places = naive.places(logits, own.numpy(), limit, [[]] * len(queries))
    equal(ops.place_within(queries, table, own.to(device), limit, added=added), (want_places,))
    passed = want_ranks <= (table.num_items if tau is None else tau)
    equal(
        ops.rank_and_sample(queries, table, targets, tau, draw, excluded=excluded, added=added),
        (want_ranks, np.where(passed, want[0], 0), np.where(passed, want[1], np.float32(-np.inf))),
    )
    best = naive.topk(logits, k, case.excluded)
    want_best = (np.where(passed[:, None], best[0], 0), np.where(passed[:, None], best[1], np.float32(-np.inf)))
    found = ops.rank_and_topk(queries, table, targets, tau, k, excluded=excluded, added=added)
    equal(found, (want_ranks, *want_best))

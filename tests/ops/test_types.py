"""What the types of the ops check themselves."""

from __future__ import annotations

import pytest
import torch

from rsir import ops

COUNTERS = torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 0}, "k: expected a whole number of at least 1, got 0"),
        ({"k": True}, "k: expected a whole number of at least 1, got True"),
        ({"k": 1.5}, "k: expected a whole number of at least 1, got 1.5"),
        ({"temperature": 0.0}, "temperature: expected a finite number above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature: expected a finite number above 0, got nan"),
        ({"seed": -1}, r"seed: expected a whole number in 0..2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, r"seed: expected a whole number in 0..2\*\*64 - 1, got 18446744073709551616"),
        ({"k": 2}, "counters: needed when k > 1"),
        ({"counters": COUNTERS.int()}, r"counters: expected \(B, 3\) int64, got \(2, 3\) torch.int32"),
        ({"counters": COUNTERS[:, :2]}, r"counters: expected \(B, 3\) int64, got \(2, 2\) torch.int64"),
        ({"counters": COUNTERS - 1}, r"counters: expected every word in 0..2\*\*32 - 1"),
        ({"counters": COUNTERS + 2**32}, r"counters: expected every word in 0..2\*\*32 - 1"),
    ],
)
def test_a_draw_checks_itself(values, message):
    with pytest.raises(ValueError, match=message):
        ops.Draw(**values)


def test_a_draw_of_some_rows_has_their_counters():
    counters = torch.arange(12).reshape(4, 3)
    part = ops.Draw(3, 0.5, 7, counters).of_rows(torch.tensor([3, 1]))
    assert (part.k, part.temperature, part.seed) == (3, 0.5, 7)
    assert torch.equal(part.counters_of(torch.ones(2, 1)), counters[[3, 1]])
    assert ops.GREEDY.of_rows(torch.tensor([0])) is ops.GREEDY
    assert torch.equal(ops.GREEDY.counters_of(torch.ones(2, 1)), COUNTERS)


def test_a_draw_of_other_rows_than_the_queries_is_refused(scorer):
    table, queries = scorer.pack(torch.ones(4, 2)), torch.ones(3, 2, device=scorer.device)
    draw = ops.Draw(2, counters=COUNTERS.to(scorer.device))
    lists = ops.Ragged(torch.ones(3, dtype=torch.int64), torch.arange(4))
    lists = ops.Ragged(*(part.to(scorer.device) for part in lists))
    for call in (
        lambda: ops.topk_sample(queries, table, draw),
        lambda: ops.pool_sample(queries, table, lists, draw),
        lambda: ops.rank_and_sample(queries, table, lists, 1, draw),
    ):
        with pytest.raises(ValueError, match=r"draw.counters: expected \(3, 3\) on .*, got \(2, 3\)"):
            call()

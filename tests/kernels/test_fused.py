"""The kernels, interpreted, against a few lines of plain torch.

Scores are small whole numbers wherever ties matter: every order of summation then gives the same bits.
"""

import pytest
import torch

pytest.importorskip("triton", minversion="3.5")

from rsir.kernels import Best, ItemTable, Lists, best_items, draw, pool_best, rank_and_best, rank_within


def problem(rows, num_items, dim, *, seed=0, odd=False):
    make = torch.Generator(torch.get_default_device()).manual_seed(seed)
    queries = torch.randint(-2, 3, (rows, dim), generator=make).float()
    items = torch.randint(-2, 3, (num_items + 1, dim), generator=make).float()
    items[0] = 1e6  # padding must never show
    if odd:
        items[1::7] = float("nan")
        items[2::11, 0] = float("inf")
        items[3::13, 0] = float("-inf")
    return queries, items


def lists(rows, num_items, longest, *, seed=1):
    make = torch.Generator(torch.get_default_device()).manual_seed(seed)
    lengths = torch.randint(0, longest + 1, (rows,), generator=make)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    ids = torch.randint(1, num_items + 1, (int(offsets[-1]),), generator=make, dtype=torch.int32)
    return Lists(torch.cat([ids, ids[:0]]), offsets)


def member(ragged, rows, num_items):
    hit = torch.zeros(rows, num_items + 1, dtype=torch.bool)
    hit[torch.repeat_interleave(ragged.offsets.diff()), ragged.ids.long()] = True
    return hit


def logits_of(queries, items):
    logits = torch.stack([(queries * item).sum(dim=1) for item in items], dim=1)
    logits = torch.where(logits.isnan(), -torch.inf, logits)
    logits[:, 0] = -torch.inf
    return logits


def best_of(logits, k):
    values, ids = logits.sort(dim=1, descending=True, stable=True)
    ids = torch.where(values == -torch.inf, 0, ids)
    short = max(0, k - logits.shape[1])
    pad = torch.nn.functional.pad
    return pad(ids[:, :k], (0, short)), pad(values[:, :k], (0, short), value=-torch.inf)


def ranks_of(logits, hit, worst):
    target = torch.where(hit, logits, -torch.inf).amax(dim=1, keepdim=True)
    ranks = (1 + (logits[:, 1:] > target).sum(dim=1)).clamp(max=worst)
    return torch.where(hit.any(dim=1), ranks, worst)


def assert_best(got, expected):
    torch.testing.assert_close(got.ids, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(got.logits, expected[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rows", "num_items", "dim", "k"),
    [(1, 1, 1, 1), (7, 5, 3, 9), (2, 33, 3, 4), (34, 129, 5, 6), (3, 300, 100, 20), (5, 260, 2, 260)],
)
@pytest.mark.parametrize("odd", [False, True])
def test_best_items(rows, num_items, dim, k, odd):
    queries, items = problem(rows, num_items, dim, odd=odd)
    excluded = lists(rows, num_items, 7)
    logits = logits_of(queries, items)
    table = ItemTable.pack(items)
    assert_best(best_items(queries, table, k, None), best_of(logits, k))
    logits[member(excluded, rows, num_items)] = -torch.inf
    assert_best(best_items(queries, table, k, excluded), best_of(logits, k))


@pytest.mark.parametrize("group", [4, 8, 16, 32])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_ties_across_groups_go_to_the_lower_id(group, k):
    queries = torch.ones(2, 1)
    items = torch.ones(201, 1)
    items[150:160] = 2.0  # above the ties, in the middle of groups
    excluded = Lists(torch.tensor([1, 2, 33, 33, 152], dtype=torch.int32), torch.tensor([0, 0, 5]))
    logits = logits_of(queries, items)
    logits[member(excluded, 2, 200)] = -torch.inf
    assert_best(best_items(queries, ItemTable.pack(items), k, excluded, group=group), best_of(logits, k))


def test_a_query_of_nan_has_no_items():
    queries, items = problem(3, 600, 4)
    queries[1] = float("nan")
    table = ItemTable.pack(items)
    assert_best(best_items(queries, table, 5, None), best_of(logits_of(queries, items), 5))
    assert not rank_and_best(queries, table, lists(3, 600, 2), 600, 5, None)[1].ids[1].any()


def test_everything_excluded():
    queries, items = problem(2, 40, 3)
    everything = Lists(torch.arange(1, 41, dtype=torch.int32).repeat(2), torch.tensor([0, 40, 80]))
    got = best_items(queries, ItemTable.pack(items), 3, everything)
    assert not got.ids.any()
    assert got.logits.eq(-torch.inf).all()


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("tau", [None, 1, 5, 1000])
@pytest.mark.parametrize("phases", [1, 3])
def test_rank_within(tau, odd, phases):
    queries, items = problem(35, 600, 4, odd=odd)
    targets = lists(35, 600, 3)
    expected = ranks_of(logits_of(queries, items), member(targets, 35, 600), (tau or 600) + 1)
    assert torch.equal(rank_within(queries, ItemTable.pack(items), targets, tau, phases=phases), expected)


def test_rank_counts_no_equal_score_and_not_the_target_itself():
    # Equal rows must score equal bits wherever they stand: a target counts neither itself nor its copies.
    make = torch.Generator(torch.get_default_device()).manual_seed(3)
    queries, base = torch.randn(33, 50, generator=make), torch.randn(50, generator=make)
    targets = Lists(torch.arange(1, 34, dtype=torch.int32) * 9, torch.arange(34))
    table = ItemTable.pack(base.expand(301, -1).contiguous())
    assert rank_within(queries, table, targets, None).eq(1).all()


@pytest.mark.parametrize("phases", [1, 3])
def test_one_pass_gives_rank_and_best(phases):
    queries, items = problem(20, 600, 4)
    targets, excluded = lists(20, 600, 2), lists(20, 600, 9, seed=2)
    table = ItemTable.pack(items)
    ranks, best = rank_and_best(queries, table, targets, 30, 5, excluded, phases=phases)
    alone = best_items(queries, table, 5, excluded)
    passed = ranks <= 30
    assert 0 < passed.sum() < 20
    assert torch.equal(ranks, rank_within(queries, table, targets, 30))
    assert torch.equal(best.ids, torch.where(passed[:, None], alone.ids, 0))
    assert best.logits[~passed].eq(-torch.inf).all()


@pytest.mark.parametrize("odd", [False, True])
def test_pool_best(odd):
    queries, items = problem(9, 150, 3, odd=odd)
    pool, excluded = lists(9, 150, 140), lists(9, 150, 20, seed=2)
    logits = logits_of(queries, items)
    logits[~member(pool, 9, 150)] = -torch.inf
    assert_best(pool_best(queries, ItemTable.pack(items), pool, 6, None), best_of(logits, 6))
    logits[member(excluded, 9, 150)] = -torch.inf
    assert_best(pool_best(queries, ItemTable.pack(items), pool, 6, excluded), best_of(logits, 6))


def test_bits_depend_on_neither_the_batch_nor_the_cap_nor_the_group():
    make = torch.Generator(torch.get_default_device()).manual_seed(5)
    queries, items = torch.randn(20, 70, generator=make), torch.randn(301, 70, generator=make)
    targets, excluded = lists(20, 300, 3), lists(20, 300, 9, seed=2)
    table = ItemTable.pack(items)
    ranks, best = rank_and_best(queries, table, targets, None, 7, excluded)
    pooled = pool_best(
        queries, table, Lists(torch.arange(1, 301, dtype=torch.int32).repeat(20), torch.arange(21) * 300), 7, excluded
    )
    assert torch.equal(pooled.ids, best_items(queries, table, 7, excluded).ids)
    for group in (4, 16):
        again = rank_and_best(queries, table, targets, None, 7, excluded, group=group, scratch_bytes=6000)
        assert torch.equal(again[0], ranks)
        assert torch.equal(again[1].ids, best.ids)
        assert torch.equal(again[1].logits, best.logits)
    for row in (0, 19):
        one = [
            Lists(part.ids[part.offsets[row] : part.offsets[row + 1]], torch.tensor([0, int(part.offsets.diff()[row])]))
            for part in (targets, excluded)
        ]
        alone = rank_and_best(queries[row : row + 1], table, one[0], None, 7, one[1])
        assert torch.equal(alone[0], ranks[row : row + 1])
        assert torch.equal(alone[1].ids, best.ids[row : row + 1])
        assert torch.equal(alone[1].logits, best.logits[row : row + 1])


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        ItemTable.pack(torch.ones(3, 2), "float8")


def test_no_rows():
    table, none = (
        ItemTable.pack(torch.ones(4, 2)),
        Lists(torch.empty(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int64)),
    )
    queries = torch.ones(0, 2)
    ranks, best = rank_and_best(queries, table, none, 5, 3, none)
    assert ranks.shape == (0,)
    assert best.ids.shape == (0, 3)
    assert pool_best(queries, table, none, 3, None).ids.shape == (0, 3)
    assert draw(best, 1.0, 0, torch.zeros(0, 3, dtype=torch.int64)).shape == (0,)


def test_infinite_logits_draw_the_lowest_id():
    best = Best(torch.tensor([[7, 9, 4], [0, 0, 0]]), torch.tensor([[torch.inf, torch.inf, 1.0], [-torch.inf] * 3]))
    assert draw(best, 0.5, 1, torch.zeros(2, 3, dtype=torch.int64)).tolist() == [0, 0]

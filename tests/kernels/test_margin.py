"""A pass of rounded factors gives the answers of float32 to the bit, however close scores lie."""

import pytest
import torch

pytest.importorskip("triton", minversion="3.5")

from rsir.kernels import ItemTable, Lists, best_items, count_above, rank_and_best, rank_within
from rsir.kernels import recheck as recheck_module
from rsir.kernels.margin import item_bounds, query_bounds, rounded

ROUNDED = ["tf32", "float16", "bfloat16"]


def make(seed=0):
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def near_ties(queries, items, *, seed=0):
    """Items whose scores differ in their last bits: one item, each number moved by an ulp or two."""
    found = items[5:6].repeat(len(items), 1)
    steps = torch.randint(-2, 3, found.shape, generator=make(seed), dtype=torch.int32)
    found = (found.view(torch.int32) + steps).view(torch.float32)
    found[7::9] = items[7::9]
    return queries, found


def case(kind, rows=6, num_items=300, dim=12):
    queries = torch.randn(rows, dim, generator=make(1))
    items = torch.randn(num_items + 1, dim, generator=make(2))
    if kind == "near ties":
        return near_ties(queries, items)
    if kind == "equal":
        items[1:] = items[torch.randint(1, 9, (num_items,), generator=make(3))]
    elif kind == "scales":
        items *= 10.0 ** torch.randint(-12, 12, (num_items + 1, 1), generator=make(3))
        queries *= 10.0 ** torch.randint(-12, 12, (rows, 1), generator=make(4))
    elif kind == "odd":
        items[1::7], items[2::11, 0], items[3::13, 0], items[4::17] = torch.nan, torch.inf, -torch.inf, 0.0
        items[6::19] = 3e38
        queries[1], queries[2, 0], queries[3], queries[4] = torch.nan, torch.inf, 0.0, 2e38
    elif kind == "cancelling":  # a score near 0 of large terms
        queries[:, 1::2] = -queries[:, ::2]
        items[:, 1::2] = items[:, ::2] * (1 + 1e-6 * torch.randn(num_items + 1, 1, generator=make(5)))
    elif kind == "tiny":  # whose squares underflow
        items *= 1e-30
        queries *= 1e-25
    return queries, items


KINDS = ["plain", "near ties", "equal", "scales", "odd", "cancelling", "tiny"]


def some_lists(rows, num_items, longest, seed):
    lengths = torch.randint(0, longest + 1, (rows,), generator=make(seed))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Lists(
        torch.randint(1, num_items + 1, (int(offsets[-1]),), generator=make(seed + 1), dtype=torch.int32), offsets
    )


def assert_same(got, want):
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("bfloat16", kind) for kind in KINDS]
    + [("float16", "near ties"), ("float16", "scales"), ("float16", "odd"), ("tf32", "near ties"), ("tf32", "odd")],
)
def test_answers_are_those_of_float32(precision, kind):
    queries, items = case(kind)
    rows, num_items = len(queries), len(items) - 1
    targets, excluded = some_lists(rows, num_items, 3, 6), some_lists(rows, num_items, 9, 8)
    exact, table = ItemTable.pack(items), ItemTable.pack(items, precision)
    for k in (1, 5):
        assert_same(best_items(queries, table, k, excluded), best_items(queries, exact, k, excluded))
    bars = torch.einsum("bd,bd->b", queries, items[5 : 5 + rows])
    assert torch.equal(count_above(queries, table, bars, None), count_above(queries, exact, bars, None))
    for tau, phases in ((None, 1), (20, 3)):
        want = rank_within(queries, exact, targets, tau)
        assert torch.equal(rank_within(queries, table, targets, tau, phases=phases), want)
        got = rank_and_best(queries, table, targets, tau, 3, None, phases=phases)
        want_ranks, want_best = rank_and_best(queries, exact, targets, tau, 3, None)
        assert_same((got[0], *got[1]), (want_ranks, *want_best))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ROUNDED)
def test_no_score_is_further_off_than_its_margin(kind, precision):
    """Against float64, for products of the rounded factors and for sums in float32 in several orders."""
    queries, items = case(kind)
    low, low_queries = rounded(items, precision), rounded(queries, precision)
    norms, share = item_bounds(items, low, precision)
    margin = query_bounds(queries, low_queries, share, precision)[:, None].double() * norms[None].double()
    exact = queries.double() @ items.double().T
    slack = (queries.shape[1] * 2.0**-24) * (queries.double().norm(dim=1)[:, None] * items.double().norm(dim=1)[None])
    for got in (
        low_queries.double() @ low.double().T,
        (low_queries.float() @ low.float().T).double(),
        (queries @ items.T).double(),
    ):
        wrong = (got - exact).abs() + slack  # the two scores that are compared may err in opposite directions
        assert ((wrong <= margin) | ~exact.isfinite() | ~wrong.isfinite()).all()
        assert (margin.isinf() | (exact.isfinite() & got.isfinite()))[1:, 1:].all()


def test_little_is_left_open():
    """The margin is a small part of the spread of scores, or the pass would decide nothing."""
    queries, items = torch.randn(64, 64, generator=make()), torch.randn(4000, 64, generator=make(1))
    spread = (queries @ items.T).std(dim=1)
    for precision, most in (("tf32", 0.02), ("float16", 0.006), ("bfloat16", 0.04)):
        norms, share = item_bounds(items, rounded(items, precision), precision)
        margins = query_bounds(queries, rounded(queries, precision), share, precision)
        assert (margins * norms.mean() / spread).mean() < most


def test_more_is_open_than_a_list_holds(monkeypatch):
    monkeypatch.setattr(recheck_module, "_CAPACITY", 32)
    monkeypatch.setattr(recheck_module, "_SEGMENT", 256)
    queries, items = case("near ties")
    targets = Lists(torch.full((len(queries),), 5, dtype=torch.int32), torch.arange(len(queries) + 1))
    table = ItemTable.pack(items, "bfloat16")
    assert torch.equal(
        rank_within(queries, table, targets, None), rank_within(queries, ItemTable.pack(items), targets, None)
    )


def test_the_recount_is_needed(monkeypatch):
    """Without it near ties are ranked and chosen wrongly, so the tests above can fail."""
    queries, items = case("near ties")
    items[7::9] = items[8]
    targets = Lists(torch.full((len(queries),), 5, dtype=torch.int32), torch.arange(len(queries) + 1))
    exact, table = ItemTable.pack(items), ItemTable.pack(items, "bfloat16")
    best, ranks = best_items(queries, exact, 3, None), rank_within(queries, exact, targets, None)
    assert torch.equal(best_items(queries, table, 3, None).ids, best.ids)
    for name in ("recount", "complete"):
        monkeypatch.setattr(f"rsir.kernels.fused.{name}", lambda *arguments: None)
    assert not torch.equal(rank_within(queries, table, targets, None), ranks)
    assert not torch.equal(best_items(queries, table, 3, None).ids, best.ids)


@pytest.mark.parametrize("precision", ROUNDED)
def test_tables_kept_in_half_precision(precision):
    queries, items = case("near ties")
    exact, table = ItemTable.pack(items.half()), ItemTable.pack(items.half(), precision)
    targets = some_lists(len(queries), len(items) - 1, 3, 6)
    assert torch.equal(rank_within(queries, table, targets, None), rank_within(queries, exact, targets, None))
    assert_same(best_items(queries, table, 7, None), best_items(queries, exact, 7, None))


def test_chunks_change_nothing():
    queries, items = case("near ties", rows=35)
    targets = some_lists(35, len(items) - 1, 3, 6)
    table = ItemTable.pack(items, "bfloat16")
    ranks, best = rank_and_best(queries, table, targets, None, 7, None)
    again = rank_and_best(queries, table, targets, None, 7, None, scratch_bytes=60_000)
    assert_same((again[0], *again[1]), (ranks, *best))

"""Every op on every backend against the row-by-row truth in naive.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir import ops
from tests.ops import naive
from tests.ops.check_ops import SEED, check_everything, equal
from tests.ops.naive import ragged, random_case


@pytest.mark.parametrize(("k", "tau"), [(1, None), (5, 1), (20, 10)])
def test_every_op_on_every_shape(scorer, shape, k, tau):
    check_everything(scorer, random_case(shape, seed=k), k=k, temperature=1.5, tau=tau)
    check_everything(scorer, random_case(shape, seed=k), k=k, temperature=1.5, tau=tau, adding=True)


def test_k_above_catalogue_and_pool(scorer):
    case = random_case((4, 9, 3))
    for adding in (False, True):
        check_everything(scorer, case, k=12, temperature=1.0, tau=None, adding=adding)


def test_any_small_case(scorer):
    """Property test: any shape, lists, k, temperature and tau, with rows of special values among the items."""
    most = 6 if scorer.interpreted else 90
    special = st.sampled_from([0.0, 1.0, -1.0, 2.0, float("nan"), float("inf"), float("-inf")])

    @settings(max_examples=2 if scorer.interpreted else 25, deadline=None)
    @given(data=st.data())
    def check(data):
        shape = tuple(data.draw(st.integers(1, limit)) for limit in (most, most, 9))
        case = random_case(shape, data.draw(st.integers(0, 2**32)))
        for row in data.draw(st.lists(st.integers(0, shape[1]), max_size=6)):
            case.items[row] = torch.tensor(data.draw(st.lists(special, min_size=shape[2], max_size=shape[2])))
        k = data.draw(st.sampled_from([1, 2, 7, 30]))
        temperature = data.draw(st.sampled_from([0.3, 1.0, 4.0]))
        tau = data.draw(st.sampled_from([None, 1, 3, 10**12]))
        adding = data.draw(st.booleans())
        check_everything(scorer, case, k=k, temperature=temperature, tau=tau, adding=adding)

    check()


def test_equal_scores_come_in_id_order(scorer):
    table = scorer.pack(torch.ones(71, 4))
    queries = torch.ones(3, 4, device=scorer.device)
    found = ops.topk(queries, table, 40, excluded=ragged([[], [1, 2], [5]], scorer.device))
    assert found.ids[0].tolist() == list(range(1, 41))
    assert found.ids[1].tolist() == list(range(3, 43))
    assert found.ids[2].tolist() == [1, 2, 3, 4, *range(6, 42)]
    assert ops.rank_within(queries, table, ragged([[70], [1], [35, 2]], scorer.device), 1).tolist() == [
        1,
        1,
        1,
    ]


def test_nan_and_infinite_logits(scorer):
    nan, inf = float("nan"), float("inf")
    values = torch.tensor([0.0, nan, inf, -inf, 1.0, inf, -1.0, nan])
    table = scorer.pack(values[:, None])
    queries = torch.ones(1, 1, device=scorer.device)
    found = ops.topk(queries, table, 7)
    assert found.ids.tolist() == [[2, 5, 4, 6, 0, 0, 0]]
    assert found.logits.tolist() == [[inf, inf, 1.0, -1.0, -inf, -inf, -inf]]

    def rank(*targets: int) -> int:
        return int(ops.rank_within(queries, table, ragged([targets], scorer.device)))

    assert [rank(item) for item in range(1, 8)] == [5, 1, 5, 3, 1, 4, 5]
    assert rank(1, 6) == 4
    assert rank() == 8
    # +inf beats any noise, and between two of them the lower id wins
    draws = torch.arange(24).reshape(8, 3).to(scorer.device)
    sampled = ops.topk_sample(queries.repeat(8, 1), table, ops.Draw(k=4, seed=1, counters=draws))
    assert sampled.ids.tolist() == [2] * 8
    # a query of NaN has no item to offer
    silent = ops.rank_and_sample(queries * nan, table, ragged([[4]], scorer.device), 3)
    assert (silent.ranks.item(), silent.ids.item(), silent.logits.item()) == (1, 0, -inf)


def test_nothing_eligible(scorer):
    table = scorer.pack(torch.ones(6, 2))
    queries = torch.ones(2, 2, device=scorer.device)
    everything = ragged([range(1, 6), [1, 2, 3, 4, 5, 5, 1]], scorer.device)
    assert ops.topk(queries, table, 3, excluded=everything).ids.tolist() == [[0] * 3] * 2
    for drawn in (
        ops.topk_sample(queries, table, excluded=everything),
        ops.pool_sample(queries, table, ragged([[1, 2], []], scorer.device), excluded=everything),
        ops.pool_sample(queries, table, ragged([[], []], scorer.device)),
        ops.rank_and_sample(queries, table, ragged([[1], []], scorer.device), 2, excluded=everything)[1:],
    ):
        ids, logits = drawn
        assert ids.tolist() == [0, 0]
        assert logits.tolist() == [-float("inf")] * 2


def test_no_rows(scorer):
    table = scorer.pack(torch.ones(6, 2))
    none = torch.zeros(0, 2, device=scorer.device)
    empty = ragged([], scorer.device)
    assert ops.topk(none, table, 3, excluded=empty).ids.shape == (0, 3)
    assert ops.rank_within(none, table, empty).shape == (0,)
    assert ops.rank_and_sample(none, table, empty, 1).ids.shape == (0,)
    assert ops.pool_sample(none, table, empty).ids.shape == (0,)


def test_rank_is_the_place_in_the_ranking(scorer):
    """With unrounded embeddings too: an item never counts itself, whatever the arithmetic."""
    rows, num_items, dim = (3, 50, 20) if scorer.interpreted else (40, 700, 64)
    generator = torch.Generator().manual_seed(0)
    table = scorer.pack(torch.randn(num_items + 1, dim, generator=generator))
    queries = torch.randn(rows, dim, generator=generator).to(scorer.device)
    ids = ops.topk(queries, table, 15).ids
    one_each = torch.arange(rows + 1, device=scorer.device)
    for place in range(15):
        targets = ops.Ragged(ids[:, place].contiguous(), one_each)
        assert ops.rank_within(queries, table, targets).tolist() == [place + 1] * rows
        assert ops.rank_within(queries, table, targets, 7).tolist() == [min(place, 7) + 1] * rows


def test_a_place_is_that_among_the_best(scorer):
    """With unrounded embeddings, histories that hold the target, and rows so few that items are shared out."""
    rows, num_items, dim = (3, 50, 20) if scorer.interpreted else (200, 3000, 64)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    table = scorer.pack(torch.randn(num_items + 1, dim, generator=generator))
    queries = torch.randn(rows, dim, generator=generator).to(scorer.device)
    best = ops.topk(queries, table, 30).ids.cpu().numpy()
    places = rng.integers(0, 25, rows)
    targets = best[np.arange(rows), places]
    histories = [np.append(rng.choice(row, 9), target) for row, target in zip(best, targets, strict=True)]
    want = [
        1 + place - len(set(history) & set(row[:place]))
        for place, history, row in zip(places, histories, best, strict=True)
    ]
    for chosen in ([0], list(range(rows)), list(range(rows))[::-1]):
        for threads in (1, 2, 3):
            got = ops.place_within(
                queries[chosen],
                table,
                torch.from_numpy(targets[chosen]).to(scorer.device),
                10,
                excluded=ragged([histories[row] for row in chosen], scorer.device),
                threads=threads,
            )
            assert got.tolist() == [min(want[row], 11) for row in chosen]


def test_draws_follow_the_softmax_over_the_top_k(scorer):
    """Chi-square against the exact probabilities; 29.9 is its 99.99% point at 7 degrees of freedom."""
    n, k, temperature = (150 if scorer.interpreted else 20_000), 8, 1.7
    values = torch.tensor([0.0, 3, -1, 2, 2, 0, 1, 4, -2, 3, 1, 2, -3])
    table = scorer.pack(values[:, None])
    counters = torch.stack([torch.arange(n), torch.full((n,), 7), torch.zeros(n, dtype=torch.int64)], 1)
    counters = counters.to(scorer.device)
    queries = torch.ones(n, 1, device=scorer.device)
    pool = ragged([range(1, 13)] * n, scorer.device)
    draw = ops.Draw(k, temperature, SEED, counters)
    top = ops.topk(queries[:1], table, k)
    expected = n * (top.logits[0].double() / temperature).softmax(0).cpu().numpy()
    for drawn in (ops.topk_sample(queries, table, draw), ops.pool_sample(queries, table, pool, draw)):
        counts = np.bincount(drawn.ids.cpu().numpy(), minlength=13)
        assert set(np.flatnonzero(counts)) <= set(top.ids[0].tolist())
        observed = counts[top.ids[0].cpu().numpy()]
        assert ((observed - expected) ** 2 / expected).sum() < 29.9


def test_a_draw_does_not_depend_on_its_batch(scorer):
    rows, num_items, dim = (6, 40, 8) if scorer.interpreted else (100, 900, 64)
    case = random_case((rows, num_items, dim), seed=3)
    table, device = scorer.pack(case.items), scorer.device

    def draw(chosen: list[int], threads: int | None = None):
        return ops.rank_and_sample(
            case.queries[chosen].to(device),
            table,
            ragged([case.targets[row] for row in chosen], device),
            50,
            ops.Draw(9, 2.0, SEED, case.counters[chosen].to(device)),
            excluded=ragged([case.excluded[row] for row in chosen], device),
            threads=threads,
        )

    whole = draw(list(range(rows)))
    assert len(set(whole.ids.tolist())) > 1
    order = np.random.default_rng(0).permutation(rows).tolist()
    for chosen in ([0], [rows - 1], order[: rows // 2], order):
        for got, want in zip(draw(chosen), whole, strict=True):
            assert torch.equal(got, want[chosen])
    for threads in (1, 2, 5):
        assert all(torch.equal(a, b) for a, b in zip(draw(list(range(rows)), threads), whole, strict=True))


def test_neighbour_votes(scorer):
    rows, num_items, degree = (5, 20, 4) if scorer.interpreted else (200, 300, 10)
    rng = np.random.default_rng(0)
    graph = rng.integers(0, num_items + 1, (num_items + 1, degree)).astype(np.int32)
    items = rng.integers(1, num_items + 1, rows)
    sources = [rng.integers(1, num_items + 1, rng.integers(0, 60)) for _ in range(rows)]
    want = [sum(item in graph[s] for s in set(source.tolist())) for item, source in zip(items, sources, strict=True)]
    assert sum(want) > 0
    got = ops.neighbour_votes(
        torch.from_numpy(graph).to(scorer.device),
        torch.from_numpy(items).to(scorer.device),
        ragged(sources, scorer.device),
        backend=scorer.whole,
    )
    assert got.dtype == torch.int64
    assert got.tolist() == want
    none = torch.zeros(0, dtype=torch.int64, device=scorer.device)
    graph_here = torch.from_numpy(graph).to(scorer.device)
    assert ops.neighbour_votes(graph_here, none, ragged([], scorer.device), backend=scorer.whole).shape == (0,)
    with pytest.raises(ValueError, match=r"sources: row 1 holds id 0"):
        ops.neighbour_votes(graph_here, none.new_ones(2), ragged([[1], [0]], scorer.device), backend=scorer.whole)


@pytest.mark.parametrize("bad", [0, -3, 6])
def test_ids_out_of_range_name_the_row(scorer, bad):
    table = scorer.pack(torch.ones(6, 2))
    queries = torch.ones(3, 2, device=scorer.device)
    lists = ragged([[1], [], [5, bad]], scorer.device)
    for call in (
        lambda: ops.topk(queries, table, 2, excluded=lists),
        lambda: ops.topk_sample(queries, table, excluded=lists),
        lambda: ops.pool_sample(queries, table, lists),
        lambda: ops.rank_within(queries, table, lists, 1),
        lambda: ops.rank_and_sample(queries, table, lists, 1),
        lambda: ops.place_within(queries, table, torch.tensor([1, 2, bad], device=scorer.device), 1),
    ):
        with pytest.raises(ValueError, match=rf"row 2 holds id {bad}, expected ids in 1..5"):
            call()


def test_strided_input_and_both_id_types(scorer):
    case = random_case((6, 30, 5), seed=4)
    want = naive.topk(case.logits(), 4, case.excluded)
    strided = torch.stack([case.items, case.items], 2)[:, :, 0]
    queries = torch.stack([case.queries, case.queries], 2)[:, :, 0].to(scorer.device)
    assert not strided.is_contiguous()
    table = scorer.pack(strided)
    for dtype in (torch.int32, torch.int64):
        equal(ops.topk(queries, table, 4, excluded=ragged(case.excluded, scorer.device, dtype)), want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_other_dtypes_are_refused(scorer, dtype):
    table = scorer.pack(torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"expected float32.*\.float\(\)"):
        ops.topk(torch.ones(1, 2, device=scorer.device).to(dtype), table, 1)
    if dtype != torch.float16:
        with pytest.raises(ValueError, match=r"expected float32.*\.float\(\)"):
            ops.pack(torch.ones(4, 2).to(dtype), backend=scorer.whole)


def test_bars_that_no_logit_can_be_compared_with_are_refused(scorer):
    table, queries = scorer.pack(torch.ones(4, 2)), torch.ones(2, 2, device=scorer.device)
    with pytest.raises(ValueError, match="bars: expected numbers, got NaN in row 1"):
        ops.count_above(queries, table, torch.tensor([0.0, float("nan")], device=scorer.device))
    with pytest.raises(ValueError, match=r"bars: expected \(2,\) float32 on"):
        ops.count_above(queries, table, torch.ones(3, device=scorer.device))


def test_a_table_belongs_to_one_backend(scorer):
    table = scorer.pack(torch.ones(4, 2))
    other = "cpp" if scorer.backend == "reference" else "reference"
    with pytest.raises(ValueError, match=f"the table is packed for .*, got {other!r}; pack the items anew"):
        ops.topk(torch.ones(1, 2, device=scorer.device), table, 1, backend=other)


@pytest.mark.parametrize("tau", [2**30 + 1, 2**31])
def test_rows_without_targets_fail_whatever_tau_is(scorer, tau):
    table = scorer.pack(torch.randn(41, 3))
    queries, targets = torch.randn(2, 3, device=scorer.device), ragged([[], [7]], scorer.device)
    assert ops.rank_within(queries, table, targets, tau)[0] == tau + 1
    sample = ops.rank_and_sample(queries, table, targets, tau)
    assert sample.ids.tolist()[0] == 0
    assert sample.ids.tolist()[1] > 0


def test_queries_that_need_a_gradient_get_none(scorer):
    table = scorer.pack(torch.randn(9, 3))
    queries = torch.randn(2, 3, device=scorer.device, requires_grad=True)
    assert not ops.topk(queries, table, 2).logits.requires_grad
    assert not ops.topk_sample(queries, table).logits.requires_grad


@pytest.fixture
def flushing():
    """Numbers next to zero are zero in this thread, as users set it for speed."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormal numbers")
    yield
    torch.set_flush_denormal(False)


def test_flushing_denormals_changes_no_tie(scorer, flushing):
    table = scorer.pack(torch.zeros(400, 4))
    queries = torch.ones(1, 4, device=scorer.device)
    assert ops.place_within(queries, table, torch.tensor([250], device=scorer.device), 399).tolist() == [250]
    assert torch.set_flush_denormal(True)  # it is as the caller left it


def test_flushing_denormals_changes_no_answer_of_any_thread(flushing):
    make = torch.Generator().manual_seed(0)
    items, queries = torch.randn(700, 4, generator=make) * 1e-20, torch.randn(600, 4, generator=make) * 1e-20
    with_one = ops.topk(queries, items, 5, threads=1)
    torch.set_flush_denormal(False)
    for threads in (1, 4):
        assert torch.equal(ops.topk(queries, items, 5, threads=threads).ids, with_one.ids)

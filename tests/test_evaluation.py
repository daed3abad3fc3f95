"""Metrics, recommendations and the paired test against naive oracles."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.config import ModelConfig
from rsir.data import Sequences, leave_one_out
from rsir.data.ragged import Ragged
from rsir.errors import BackboneError, DataError
from rsir.evaluation import by_thirds, difference_beyond_seeds, evaluate, mean_interval, paired_test, recommend
from rsir.models import build, pack_items
from tests.harness.definitions import Lookup, oracle, order_of, tasks_of


@st.composite
def problems(draw):
    num_items = draw(st.integers(2, 40))
    item = st.integers(1, num_items)
    histories = draw(st.lists(st.lists(item, min_size=1, max_size=9), min_size=1, max_size=30))
    targets = draw(st.lists(item, min_size=len(histories), max_size=len(histories)))
    return num_items, histories, targets, draw(st.integers(0, 1000))


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["reference", "cpp"]), st.booleans())
def test_metrics_equal_the_oracle_at_every_batch_size(problem, backend, included):
    num_items, histories, targets, seed = problem
    model = Lookup(num_items, seed)
    popularity = np.random.default_rng(seed).integers(0, 50, num_items + 1)
    tasks = dataclasses.replace(tasks_of(histories, targets), repeats="included" if included else "excluded")
    table = pack_items(model, backend=backend)
    results = [evaluate(model, tasks, popularity=popularity, batch_size=size, table=table) for size in (1, 7, 512)]
    expected = oracle(model, histories, targets, popularity, included)
    assert results[0].metrics == pytest.approx(expected, rel=0, abs=1e-12, nan_ok=True)
    places = evaluate(model, tasks, spread=False, batch_size=7, table=table)
    assert np.array_equal(places.ranks, results[0].ranks)
    assert places.metrics == {name: value for name, value in results[0].metrics.items() if name[:2] not in ("co", "po")}
    for result in results[1:]:
        assert result.metrics == pytest.approx(results[0].metrics, rel=0, abs=0, nan_ok=True)
        assert np.array_equal(result.ranks, results[0].ranks)
    for name in ("recall@5", "ndcg@10", "mrr@20"):
        assert results[0].gains(name).mean() == results[0].metrics[name]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trained_shape_is_the_same_at_every_batch_size(threads):
    """Real logits, where a different rounding would move places."""
    generator = np.random.default_rng(0)
    data = Sequences.from_lists([generator.integers(1, 301, n) for n in generator.integers(3, 40, 300)], 300)
    model = build(ModelConfig(dim=16, feedforward=16, max_len=20), 300)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tasks = leave_one_out(data).test
        results = [evaluate(model, tasks, batch_size=size) for size in (41, 8192)]
    finally:
        torch.set_num_threads(before)
    assert results[0].metrics == results[1].metrics
    assert results[0].metrics["recall@20"] > 0


@pytest.mark.parametrize("spread", [True, False])
def test_a_target_in_the_history_is_a_miss_unless_repeats_are_included(spread):
    model = Lookup(30)
    model.table[:] = 0  # all tie: lower ids first
    tasks = tasks_of([[1, 2, 3], [1, 2, 3]], [2, 5])
    assert tasks.known().tolist() == [True, False]
    assert evaluate(model, tasks, spread=spread).ranks.tolist() == [0, 2]
    included = dataclasses.replace(tasks, repeats="included")
    assert evaluate(model, included, spread=spread).ranks.tolist() == [2, 5]
    targets = dataclasses.replace(tasks_of([[1, 2, 3, 2], [1, 2, 3]], [2, 5]), repeats="targets")
    assert evaluate(model, targets, spread=spread).ranks.tolist() == [1, 2]  # 2 comes back, 1 and 3 do not


def test_thirds_divide_the_tasks_by_a_value():
    model = Lookup(30, 3)
    histories, targets = [[1 + i % 30] for i in range(60)], [1 + (7 * i) % 30 for i in range(60)]
    found = evaluate(model, tasks_of(histories, targets))
    values = np.array([i % 9 for i in range(60)])
    groups = by_thirds(found, values)
    assert [(group["least"], group["most"]) for group in groups] == [(0, 2), (3, 5), (6, 8)]
    assert sum(group["tasks"] for group in groups) == 60
    middle = (values >= 3) & (values <= 5)
    assert groups[1]["recall@10"] == found.gains("recall@10")[middle].mean()
    whole = sum(group["tasks"] * group["ndcg@10"] for group in groups) / 60
    assert whole == pytest.approx(found.metrics["ndcg@10"])
    assert [group["tasks"] for group in by_thirds(found, np.ones(60, np.int64))] == [60]


def test_bad_input():
    model = Lookup(5)
    with pytest.raises(DataError, match="no task"):
        evaluate(model, tasks_of([], []))
    with pytest.raises(DataError, match=r"target: expected item ids in 1..5, got ids from 6 to 6"):
        evaluate(model, tasks_of([[1]], [6]))
    with pytest.raises(DataError, match=r"history: expected item ids in 1..5"):
        evaluate(model, tasks_of([[9]], [1]))
    with pytest.raises(DataError, match=r"popularity: expected \(6,\)"):
        evaluate(model, tasks_of([[1]], [1]), popularity=np.zeros(5, np.int64))
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        evaluate(model, tasks_of([[1]], [1]), batch_size=0)
    with pytest.raises(BackboneError, match="lacks num_items"):
        evaluate(object(), tasks_of([[1]], [1]))
    with pytest.raises(ValueError, match=r"metric: expected one of recall@5, .* got 'ndcg@7'"):
        evaluate(model, tasks_of([[1]], [1])).gains("ndcg@7")


@settings(max_examples=30, deadline=None)
@given(problems(), st.integers(1, 50), st.booleans())
def test_recommendations(problem, k, exclude):
    num_items, histories, _, seed = problem
    model = Lookup(num_items, seed)
    best = recommend(model, Ragged.from_lists(histories, np.int64), k, exclude_history=exclude)
    assert best.ids.shape == best.logits.shape == (len(histories), k)
    for history, ids, logits in zip(histories, best.ids.tolist(), best.logits, strict=True):
        order = order_of(model, history, set(history) if exclude else set())[:k]
        assert ids == order + [0] * (k - len(order))
        expected = model.table[order] @ model.queries[history[-1]]
        assert torch.equal(logits[: len(order)], expected)
        assert bool((logits[len(order) :] == -torch.inf).all())


def test_recommend_names_bad_histories():
    model = Lookup(5)
    with pytest.raises(ValueError, match="history 1 is empty"):
        recommend(model, Ragged.from_lists([[1], [], [2]]), 3)
    with pytest.raises(DataError, match=r"1..5, got ids from 0 to 2"):
        recommend(model, Ragged.from_lists([[0, 2]]), 3)


class TestPaired:
    def test_equal_models(self):
        gains = np.random.default_rng(0).random(50)
        result = paired_test(gains, gains)
        assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)

    def test_exact_p_value(self):
        """Five tasks, all better: of the 32 ways to swap, 2 are as extreme."""
        result = paired_test(np.zeros(5), np.ones(5), permutations=20_000)
        assert result.p_value == pytest.approx(2 / 32, abs=0.006)

    def test_p_values_are_uniform_without_a_difference(self):
        generator = np.random.default_rng(1)
        p = [paired_test(*generator.normal(size=(2, 60)), permutations=500, seed=i).p_value for i in range(200)]
        assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.06)

    def test_a_clear_difference(self):
        generator = np.random.default_rng(2)
        noise = generator.normal(0, 0.5, 3000)
        result = paired_test(np.zeros(3000), noise - noise.mean() + 0.05)
        assert result.difference == pytest.approx(0.05)
        assert (result.low, result.high) == pytest.approx(
            (0.05 - 1.96 * 0.5 / 3000**0.5, 0.05 + 1.96 * 0.5 / 3000**0.5), rel=0.05
        )
        assert result.p_value == 1 / 10_001

    def test_one_task_says_nothing(self):
        assert mean_interval(np.array([0.5])) == (0.5, -math.inf, math.inf)

    def test_seeds_widen_the_interval(self):
        first, second = np.full(10_000, 0.2), np.full(10_000, 0.19)
        mean, low, high = difference_beyond_seeds(first, second, 0.03)
        margin = 1.96 * 2**0.5 * 0.03 * 0.2  # no task differs from another
        assert (mean, low, high) == pytest.approx((-0.01, -0.01 - margin, -0.01 + margin), rel=1e-4)
        noise = np.random.default_rng(0).normal(0, 0.5, 10_000)
        _, noisy_low, noisy_high = difference_beyond_seeds(first, second + noise, 0.03)
        assert noisy_high - noisy_low > high - low
        assert difference_beyond_seeds(first[:1], second[:1], 0.03)[1:] == (-math.inf, math.inf)

    def test_shapes(self):
        with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
            paired_test([1, 2, 3], [1, 2])

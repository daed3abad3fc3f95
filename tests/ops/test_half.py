"""Item tables in half precision: the same ops, on rounded items, on every backend."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rsir import ops
from tests.ops.check_ops import check_everything
from tests.ops.naive import ragged, random_case

HALF = torch.float16


@pytest.mark.parametrize(("k", "tau"), [(1, None), (5, 10)])
def test_every_op_is_exact_on_the_rounded_table(scorer, shape, k, tau):
    """Whole numbers that a little more was added to: half precision takes it off again, and all answers are exact."""
    case = random_case(shape, seed=k)
    given = dataclasses.replace(case, items=case.items * 1.0001)
    assert (given.items != case.items).any()
    assert torch.equal(given.items.half().float(), case.items)
    rounded = dataclasses.replace(given, items=given.items.half().float())
    table = scorer.pack(given.items, HALF)
    queries = case.queries.to(scorer.device)
    for got, want in zip(ops.topk(queries, table, 9), ops.topk(queries, scorer.pack(rounded.items), 9), strict=True):
        assert torch.equal(got, want)
    check_everything(scorer, dataclasses.replace(rounded, items=rounded.items.half()), k=k, temperature=1.5, tau=tau)


def _values(scorer, table, count: int) -> torch.Tensor:
    """The table's own numbers (count,), by the logits of items of one dimension."""
    ones = torch.ones(count, 1, device=scorer.device)
    pool = ragged([[item] for item in range(1, count + 1)], scorer.device)
    return ops.pool_sample(ones, table, pool).logits.cpu()


def _step(scorer) -> int:
    """The compiled backends read all numbers; for the others, which go through torch's own conversion, some will do."""
    return 1 if scorer.backend == "cpp" else 997


def test_every_half_is_read_as_what_it_is(scorer):
    halves = torch.arange(2**16).to(torch.uint16).view(HALF)
    halves = halves[halves.isfinite()][:: _step(scorer)]
    table = scorer.pack(torch.cat([halves[:1], halves])[:, None])
    assert torch.equal(_values(scorer, table, len(halves)), halves.float())
    found = ops.topk(torch.ones(1, 1, device=scorer.device), table, 20)
    assert torch.equal(found.logits.cpu()[0], halves.float().sort(descending=True).values[:20])


def test_rounding_is_to_the_nearest_and_of_ties_to_the_even(scorer):
    halves = torch.arange(2**15).to(torch.uint16).view(HALF)
    halves = halves[halves.isfinite()].double()
    between = ((halves[1:] + halves[:-1]) / 2).float()  # exact, and so are its neighbours
    up, down = torch.tensor(float("inf")), torch.tensor(0.0)
    values = torch.cat([between, torch.nextafter(between, up), torch.nextafter(between, down)])
    values = torch.cat([values, -values])[:: _step(scorer)]
    table = scorer.pack(torch.cat([values[:1], values])[:, None], HALF)
    assert torch.equal(_values(scorer, table, len(values)), values.half().float())


def test_special_values(scorer):
    values = torch.tensor([0.0, float("nan"), float("inf"), -float("inf"), 1.0])
    table = scorer.pack(values[:, None], HALF)
    found = ops.topk(torch.ones(1, 1, device=scorer.device), table, 4)
    assert found.ids.tolist() == [[2, 4, 0, 0]]


def test_refusals(scorer):
    items = torch.ones(4, 2)
    items[2, 1] = 1e5
    with pytest.raises(ValueError, match=r"item [12] goes up to 100000, and float16 to 65504"):
        scorer.pack(items, HALF)
    with pytest.raises(ValueError, match=r"dtype: expected torch\.float32 or torch\.float16"):
        scorer.pack(items, torch.bfloat16)
    with pytest.raises(ValueError, match=r"items: expected float32 or float16, got torch\.float64"):
        scorer.pack(items.double())


def test_a_half_table_takes_half_the_memory():
    items = torch.randn(1001, 64)
    tables = [ops.pack(items, backend="cpp", dtype=dtype).handle[0] for dtype in (None, HALF)]
    assert tables[1].nbytes * 2 == tables[0].nbytes


def test_training_on_after_packing_is_still_noticed(scorer):
    if scorer.backend != "cpp":
        pytest.skip("the others read the items themselves")
    items = torch.ones(4, 2)
    table = scorer.pack(items, HALF)
    items.mul_(2)
    with pytest.raises(ValueError, match="changed in place"):
        ops.topk(torch.ones(1, 2), table, 1)

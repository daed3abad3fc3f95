"""Measured tile sizes are kept, found again, and only taken where the answer stays the same; time is made up."""

import json

import pytest
import torch

pytest.importorskip("triton", minversion="3.5")

from rsir.kernels import ItemTable, Lists, fastest_precision, rank_and_best
from rsir.kernels.plan import _measured, device_file, make_plan, measured_plan, platform
from rsir.kernels.tune import candidates, compare, main, tune

from rsir import ops


def here():
    return torch.empty(0).device


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _measured.cache_clear()
    yield
    _measured.cache_clear()


def timer(times):
    """A clock that gives the times one after the other, whatever it is to time."""
    left = iter(times)
    return lambda run: next(left)


def test_the_fastest_is_kept_for_its_class_of_shapes_and_used():
    make = torch.Generator(torch.get_default_device()).manual_seed(0)
    queries, items = torch.randn(20, 9, generator=make), torch.randn(150, 9, generator=make)
    table, targets = ItemTable.pack(items), Lists(torch.arange(1, 21, dtype=torch.int32), torch.arange(21))
    plans = candidates(make_plan(platform(), "ieee", 9, 20), "ieee")[:4]
    used = []

    def run(plan):
        used.append(plan)
        ranks, best = rank_and_best(queries, table, targets, None, 5, None, plan=plan)
        return [ranks, best.ids, best.logits]

    every = len(candidates(plans[0], "ieee"))
    times = [9.0 - place if place < 4 else 99.0 for place in range(every)]
    result = tune(run, here(), "ieee", 9, 20, timer(times))
    assert list(result.values()) == sorted(times)
    assert next(iter(result)) == plans[3]
    assert set(used) == set(result)
    assert measured_plan(platform(), here(), "ieee", 9, 4096) == plans[3]
    for other in (("ieee", 9, 16), ("ieee", 10, 20), ("float16", 9, 20)):  # neither batch, width nor precision
        assert measured_plan(platform(), here(), *other) == make_plan(platform(), *other)
    ranks, best = rank_and_best(queries, table, targets, None, 5, None)
    assert all(torch.equal(a, b) for a, b in zip([ranks, *best], run(plans[0]), strict=True))


def test_measurements_of_other_shapes_stay():
    for dim in (8, 16):
        tune(lambda plan: [], here(), "float16", dim, 1, timer([3.0, 1.0, *[2.0] * 9]))
    assert sorted(json.loads(device_file(here()).read_text())) == ["float16 d=16", "float16 d=8"]
    assert [file.name for file in device_file(here()).parent.iterdir()] == [device_file(here()).name]


def test_the_fastest_precision_is_the_default_for_its_width():
    items = torch.ones(3, 8)
    assert fastest_precision(items) == "ieee"
    tune(lambda plan: [], here(), "ieee", 8, 1, timer(range(99)))
    times = compare(lambda precision: [items], here(), ["ieee", "tf32", "bfloat16"], 8, timer([3.0, 1.0, 2.0]))
    assert list(times) == ["tf32", "bfloat16", "ieee"]
    assert fastest_precision(items) == "tf32"
    assert ops.pack(items, backend="triton").instruction_set == "tf32"
    assert ops.pack(items, backend="triton", instruction_set="ieee").instruction_set == "ieee"
    assert fastest_precision(items[:, :7]) == fastest_precision(items.half()) == "ieee"
    assert "ieee d=8 rows<=16" in json.loads(device_file(here()).read_text())


def test_a_precision_of_another_answer_is_left_out():
    times = compare(lambda p: [torch.tensor(p == "ieee")], here(), ["tf32", "ieee"], 8, timer([1.0]))
    assert list(times) == ["ieee"]
    assert fastest_precision(torch.ones(3, 8)) == "ieee"


def test_another_answer_is_never_taken():
    first = make_plan(platform(), "ieee", 8, 100)
    result = tune(lambda plan: [torch.tensor(plan == first)], here(), "ieee", 8, 100, timer([5.0]))
    assert list(result) == [first]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"fastest d=8": {"precision": "int4"}}',
        '{"ieee d=8 rows>16": {"block_m": 64}}',
        '{"ieee d=8 rows>16": 3}',
    ],
)
def test_a_broken_file_is_named_and_not_used(text):
    device_file(here()).parent.mkdir(parents=True)
    device_file(here()).write_text(text)
    with pytest.warns(UserWarning, match=r"kernels-.*json.*Measure again or delete"):
        plan = measured_plan(platform(), here(), "ieee", 8, 100)
    assert plan == make_plan(platform(), "ieee", 8, 100)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_command_needs_a_gpu():
    with pytest.raises(SystemExit, match="needs a GPU"):
        main([])


@pytest.mark.parametrize("block_m", [-64, 0, 48, "64", None])
def test_sizes_that_cannot_be_are_not_used(block_m):
    plan = make_plan(platform(), "float16", 8, 1)
    values = {"block_m": block_m, "num_warps": 4, "num_stages": 1}
    device_file(here()).parent.mkdir()
    device_file(here()).write_text(json.dumps({"float16 d=8": values}))
    with pytest.warns(UserWarning, match="these tile sizes are not used: expected"):
        assert measured_plan(platform(), here(), "float16", 8, 1) == plan


def test_a_user_without_a_home_has_the_plan_of_the_shape(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.warns(UserWarning, match="not used: Could not determine home"):
        assert measured_plan(platform(), here(), "float16", 8, 1) == make_plan(platform(), "float16", 8, 1)

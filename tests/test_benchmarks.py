"""Every benchmark runs at its smallest size and prints a table; so that none rots unseen."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import cost, growth, large, peers, scale
from benchmarks.baselines import Catalogue, Way
from benchmarks.evaluation import metrics, plain_ranks
from benchmarks.generation import plain_torch
from benchmarks.oracle import all_trajectories
from benchmarks.peer_workers.ranking import validation_ndcg
from rsir import ops
from rsir.config import GenerationConfig, ModelConfig, SimulationConfig
from rsir.data import leave_one_out, simulate
from rsir.evaluation import evaluate
from rsir.models import build

QUICK = {  # and what the table must show
    "ops": ["rank count", "| torch, ", "nothing added"],
    "fidelity": ["FAISS proofs"],
    "generation": ["per-row loop", "trajectories/s", "plain torch: 0 of the sample's"],
    "evaluation": ["| torch, ", "users/s", "Both give NDCG@20"],
    "update": ["| 1 | ", "| update |", "scratch / update", "95% intervals over users"],
    "cold": ["| as learnt |", "| vectors folded in, item_trust 0 |", "are in no history"],
    "serving": ["two networks, 1 history", "plain torch", "histories/s"],
    "training": ["| plain torch, bfloat16 |", "gave the same loss", "ms a step"],
    "loading": ["| one Parquet file |", "same users, items and order: yes"],
    "bases": ["| sasrec-full | 0 |", "| bsarec-full | 0 |", "seconds an epoch"],
    "alternatives": ["| item-kNN |", "| EASE |"],
    "backbones": ["| hstu |", "sasrec: validation NDCG@20", "decoding item by item"],
    "rounding": ["| top-20 list holds another item |", "trajectories kept"],
    "growth": ["| users | 240 |", "**exponent**"],
    "distributed": ["| 2 processes |", "evaluation: 2 processes and one gave the same bytes"],
    "scale": ["| generate | scan |", "| 80 | 200 | train |", "Off by", "| 1,000,000,000 | 10,000,000 |", "Assumed:"],
    "large": ["| index for proofs |", "| evaluation |", "rank verdicts took a scan"],
    "streaming": ["| 2,000 | generation |", "of 4,096 MiB", "- Growth with users"],
    "peers": ["| rsir | 2 |", "rsir ran alone"],
}


@pytest.fixture(autouse=True)
def _as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are cached apart from those of real runs, and the number of threads is restored."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", QUICK)
def test_quick(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([name, "--quick", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("## ")
    for part in QUICK[name]:
        assert part in shown


def test_the_service_under_load(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    assert command.main(["service", "--quick", "--connections", "2"]) == 0
    shown = capsys.readouterr().out
    assert "| run.recommend, one history, in the process |" in shown
    assert "| POST /recommend, 2 connection(s) |" in shown


def test_larger_catalogues(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["training", "--quick", "--threads", "1", "--catalogues", "200", "1000"]) == 0
    shown = capsys.readouterr().out
    assert "| 2 steps, 1,000 items | rows |" in shown
    assert "1,000 items, 1 threads, a step: whole table" in shown


def test_rates_are_found_again_and_may_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"train": (2e-6, 3e-10), "generate": (1e-5, 0.0), "evaluate": (0.0, 2e-11)}
    runs = [{"users": users, "items": items} for users, items in [(100, 50), (100, 9000), (800, 400)]]
    for run in runs:
        run |= {phase: float(np.dot(known[phase], scale.units(run, phase))) for phase in known}
    rates = scale.fitted(runs, 1e11)
    for phase, seconds in known.items():
        assert rates.seconds[phase] == pytest.approx(seconds, rel=1e-6, abs=1e-18)
    kept = {"machine": {"cpu": "another"}, "peak": 1e11, "measured": runs, "checked": runs[:1]}
    (tmp_path / "rates.json").write_text(json.dumps(kept))
    assert command.main(["scale", "--rates", str(tmp_path / "rates.json"), "--price", "2"]) == 0
    shown = capsys.readouterr().out
    assert "- cpu: another" in shown
    assert "Off by 0% on average" in shown
    assert "USD 2 an hour" in shown


def test_slow_devices_and_failures_cost_time() -> None:
    seconds = {"train": 1000.0, "generate": 20_000.0, "evaluate": 4200.0}
    planned = cost.Plan(64, seconds, evaluations=42)
    even = replace(cost.Assumed(), spread=0.0, block_spread=0.0, slow=0.0)
    sound = replace(cost.H100, mtbf=float("inf"))

    def hours(device: cost.Device, assumed: cost.Assumed) -> float:
        runs = [cost.simulate(planned, device, assumed, np.random.default_rng([0, k])) for k in range(20)]
        return float(np.mean(runs))

    assert hours(sound, even) == pytest.approx(sum(seconds.values()))
    failing = hours(replace(cost.H100, mtbf=64.0), even) - sum(seconds.values())
    expected = sum(seconds.values()) / 3600 * (even.restart + even.save / 2)  # one failure an hour
    assert failing == pytest.approx(expected, rel=0.3)
    slow = np.ones(64)
    slow[5] = 2.0
    last = cost._divided(20_000.0, slow, even, np.random.default_rng(0))
    block = 20_000.0 / cost.BLOCKS
    assert 20_000.0 < last <= 20_000.0 * 64 / 63.5 + 2 * block


def test_every_benchmark_is_listed_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    for name in command.BENCHMARKS:
        assert f"  {name} " in listed
        with pytest.raises(SystemExit) as end:
            importlib.import_module(f"benchmarks.{name}").main(["--help"])
        assert end.value.code == 0
    assert set(QUICK) <= set(command.BENCHMARKS)
    assert command.main(["speed"]) == 2


@pytest.fixture(scope="module")
def problem():
    """A model that has learnt nothing, but ranks, and the split of simulated users."""
    parts = leave_one_out(simulate(SimulationConfig(num_users=150, num_items=90)).sequences)
    return build(ModelConfig(dim=16, heads=2, layers=1, max_len=12), 90, seed=3).eval(), parts


@pytest.mark.parametrize("tau", [5, 40])
def test_plain_generation_is_the_loop(problem, tau: int) -> None:
    model, parts = problem
    settings = {"seed": 4, "round_": 2, "tau": tau}
    config = GenerationConfig(m=3, k=1)
    expected = all_trajectories(model, parts.train, config, **settings, on_fail="drop")
    assert len(expected) > (20 if tau > 10 else 0)
    for chunk in (7, 64, 1000):
        assert plain_torch(model, parts.train, config, chunk, **settings) == expected


def test_plain_evaluations_are_those_of_the_library(problem) -> None:
    model, parts = problem
    tasks, ours = parts.validation, evaluate(model, parts.validation).metrics
    for counting in ("float", "bytes"):
        found = metrics(plain_ranks(model, tasks, Way(32, counting)))
        assert found == pytest.approx({name: ours[name] for name in found})
    histories = tasks.histories
    arrays = {"validation_items": histories.values, "validation_offsets": histories.offsets}
    arrays["validation_targets"] = tasks.targets
    table = model.item_embeddings().detach()

    def score(histories: list[np.ndarray]) -> torch.Tensor:
        newest = [torch.from_numpy(history[-12:].astype(np.int64)) for history in histories]
        lengths = torch.tensor([len(history) for history in newest])
        return model.encode(torch.nn.utils.rnn.pad_sequence(newest, batch_first=True), lengths) @ table.T

    assert validation_ndcg(score, arrays) == pytest.approx(ours["ndcg@20"])


@pytest.mark.parametrize("group", [0, 7, 64])
def test_the_plain_catalogue_gives_ranks_and_lists_of_the_library(group: int) -> None:
    generator = torch.Generator().manual_seed(0)
    items, queries = (torch.randn(n, 16, generator=generator) for n in (301, 40))
    bars = ops.topk(queries, items, 30).logits[:, 20].contiguous()
    for counting in ("float", "bytes"):
        catalogue = Catalogue(items, Way(40, counting, group))
        logits = catalogue.score(queries)
        above = catalogue.count(logits, bars - 1e-4)
        assert torch.equal(above, ops.count_above(queries, items, bars - 1e-4))
        assert torch.equal(catalogue.best(logits, 20), ops.topk(queries, items, 20).ids)


def test_peers_say_how_they_are_set_up(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make it by `python -m benchmarks peers --setup"):
        peers.main(["--quick", "--threads", "1", "--peers", str(tmp_path)])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is Linux's")
def test_the_memory_limit_refuses_what_is_above_it() -> None:
    taken = int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) / 2**20
    with large.memory_limit(taken + 0.5), pytest.raises(MemoryError):
        np.empty(2**30, np.uint8)
    assert np.empty(2**30, np.uint8).size == 2**30


def test_exponents_and_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs rsir[plots]")
    assert growth.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    lines = [
        {**growth.BASE, "axis": "users", "users": users} | dict.fromkeys(growth.PHASES, 0.5 * users)
        for users in (10, 20, 40)
    ]
    assert growth.table(lines)[-1] == "| users | **exponent** |" + " **1.00** |" * 5
    growth.plot(lines, tmp_path / "growth.svg")
    assert b"<svg" in (tmp_path / "growth.svg").read_bytes()

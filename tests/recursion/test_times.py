"""A whole run of a backbone that uses times: rounds, resuming, refit, update, recommendations and exports."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

import rsir
from rsir import files
from rsir.cli import main as command
from rsir.config import AcquisitionConfig, DistillationConfig, GenerationConfig, ModelConfig
from rsir.data import Sequences, read_histories
from rsir.data.ragged import Timed
from rsir.errors import ConfigError, DataError, Interrupted
from rsir.evaluation import evaluate
from rsir.export.model import export
from rsir.generation.times import with_times
from rsir.models import encode_sequences
from rsir.models.itemknn import network_of
from rsir.recursion.loop import recurse
from rsir.runs.results import Run, enriched
from rsir.runtime.runtime import Runtime
from tests.harness.small import ON_DATA as SMALL

CONFIG = dataclasses.replace(
    SMALL, rounds=1, retention="all", model=ModelConfig(name="hstu", dim=8, layers=1, heads=2, max_len=12)
)


@pytest.fixture(scope="module")
def run(weeks: tuple[pd.DataFrame, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return recurse(CONFIG, data=rsir.from_frame(weeks[0]), out=tmp_path_factory.mktemp("times") / "run")


def test_a_run_uses_the_times_that_are_there(run):
    assert run.config.model.times == "on"
    assert json.loads((run.path / "round-01" / "model.json").read_text())["model"]["times"] == "on"
    trajectories = Sequences.load(run.path / "round-01" / "trajectories.parquet")
    assert len(trajectories) > 20
    train = enriched(run, 1)
    real = train.select(train.is_real)
    assert np.array_equal(trajectories.times, with_times(trajectories, real).times)
    again = rsir.load(run.path)
    assert network_of(again.model).uses_times
    test = rsir.evaluate(again).metrics
    assert test["ndcg@20"] == run.rounds[run.best].test["ndcg@20"]
    later = dataclasses.replace(run.data, times=run.data.times * 100)
    assert rsir.evaluate(again, later).metrics != test


def test_a_stopped_run_goes_on_to_the_same_files(run, weeks, tmp_path):
    data, out = rsir.from_frame(weeks[0]), tmp_path / "run"
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 12

    with pytest.raises(Interrupted):
        recurse(CONFIG, data=data, out=out, runtime=Runtime(stop=stop))
    recurse(CONFIG, data=data, out=out, resume=True)
    for name in ("round-00/model.safetensors", "round-01/model.safetensors", "round-01/trajectories.parquet"):
        assert (out / name).read_bytes() == (run.path / name).read_bytes()


def test_without_times_or_without_their_use(run, weeks):
    """The same run, then, and one of a version that knew no times."""
    data = rsir.from_frame(weeks[0])
    without = dataclasses.replace(data, times=None)
    off = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, times="off"))
    first, second = recurse(off, data=data), recurse(CONFIG, data=without)
    assert first.config.model.times == second.config.model.times == "off"
    assert first.rounds[1].test == second.rounds[1].test != run.rounds[1].test
    with pytest.raises(DataError, match=r"model\.times on: hstu expects the time of each event"):
        recurse(dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, times="on")), data=without)
    with pytest.raises(ConfigError, match=r"model\.times on: bsarec does not use times"):
        recurse(dataclasses.replace(SMALL, model=dataclasses.replace(SMALL.model, times="on")), data=data)


@pytest.mark.parametrize(
    "change",
    [
        {"generation": GenerationConfig(m=2, generator="itemknn")},
        {"generation": GenerationConfig(m=2, generator="recommender"), "retention": "all"},
        {"acquisition": AcquisitionConfig(policy="disagreement")},
        {"distillation": DistillationConfig(share=0.3, k=4), "rounds": 2, "sources": "all", "retention": "none"},
        {"distillation": DistillationConfig(share=0.3, k=4, teacher="itemknn"), "successor": "finetune"},
    ],
)
def test_every_part_of_a_run_hands_times_on(weeks, change):
    made = recurse(dataclasses.replace(CONFIG, **change), data=rsir.from_frame(weeks[0]))
    assert network_of(made.model).uses_times
    assert all(result.validation["ndcg@20"] > 0 for result in made.rounds)


def test_users_are_recommended_to_at_the_newest_time(run, tmp_path):
    named = run.recommend(users=["u5", "u17"], k=5)
    recommender = run.recommender()
    lists = recommender.histories_of(["u5", "u17"]).lists
    assert isinstance(lists, Timed)
    assert lists.asked.tolist() == [run.data.times.max()] * 2
    everybody = recommender.histories_of().lists
    assert len(everybody) == len(run.data)
    typed = run.recommend([["i1", "i4"], []], k=5)  # without times
    assert len(typed[0]) == len(typed[1]) == 5
    assert command.main(["recommend", str(run.path), "--out", str(tmp_path / "top.csv"), "--k", "5"]) == 0
    table = pd.read_csv(tmp_path / "top.csv")
    assert table[table.user_id == "u5"].item_id.tolist() == named[0]


def test_a_file_of_histories_brings_its_times(run, log, tmp_path):
    """As those of the run's own users, where they are the same events."""
    own = log[log.user.isin(["u5", "u17"])]
    own = own[[(row.user, row.item) in known_events(run) for row in own.itertuples()]]
    own.to_csv(tmp_path / "some.csv", index=False)
    assert (
        command.main(
            ["recommend", str(run.path), "--histories", str(tmp_path / "some.csv"), "--out", str(tmp_path / "top.csv")]
        )
        == 0
    )
    lists = read_histories(tmp_path / "some.csv", run.data).lists
    assert np.array_equal(lists.times, run.recommender().histories_of(["u17", "u5"]).lists.times)
    assert lists.asked.tolist() == [run.data.times.max()] * 2
    table = pd.read_csv(tmp_path / "top.csv")
    expected = run.recommend(users=["u17", "u5"], k=10)
    for user, items in zip(("u17", "u5"), expected, strict=True):
        assert table[table.user_id == user].item_id.tolist() == items


def known_events(run):
    users, items = run.data.user_labels.to_pylist(), run.data.item_labels.to_pylist()
    return {(users[row], items[one - 1]) for row in range(len(run.data)) for one in run.data[row]}


def test_refit_and_update(run, weeks, tmp_path):
    again = rsir.load(run.refit(tmp_path / "refit").path)
    assert network_of(again.model).uses_times
    assert len(again.recommend(users=["u5"], k=3)[0]) == 3
    updated = run.update(weeks[1], tmp_path / "next")
    assert updated.config.model.times == "on"
    assert updated.data.num_items > run.data.num_items
    with pytest.raises(DataError, match="expected times, as the run's events have them"):
        run.update(weeks[1][["user", "item"]], tmp_path / "other")


def test_a_run_of_a_version_without_times_stays_without(run, weeks, tmp_path):
    data = rsir.from_frame(weeks[0])
    off = dataclasses.replace(CONFIG, rounds=0, model=dataclasses.replace(CONFIG.model, times="off"))
    made = recurse(off, data=data, out=tmp_path / "old")
    manifest = json.loads((made.path / "manifest.json").read_text())
    del manifest["config"]["model"]["times"]
    values = json.loads((made.path / "config.json").read_text())
    del values["model"]["times"]
    manifest.pop("checksum")
    (made.path / "manifest.json").write_bytes(files.to_json({**manifest, "checksum": files.checksum(manifest)}))
    (made.path / "config.json").write_bytes(files.to_json(values))
    assert rsir.load(made.path).config.model.times == "off"


def test_exports_take_times(run, tmp_path):
    model = network_of(run.model)
    model = model.members[0] if hasattr(model, "members") else model
    export(model, run.data, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for rows, width in ((1, 2), (4, 7)):
        items = torch.randint(1, 40, (rows, width), generator=torch.Generator().manual_seed(width))
        lengths, times = torch.full((rows,), width), torch.arange(width + 1).expand(rows, -1) * 1000
        with torch.no_grad():
            torch.testing.assert_close(program(items, lengths, times), model.encode(items, lengths, times))


def test_onnx_takes_times(run, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = network_of(run.model)
    model = model.members[0] if hasattr(model, "members") else model
    export(model, run.data, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["items", "lengths", "times"]
    items, lengths = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])
    times = torch.tensor([[0, 60, 9000, 90_000], [5, 10**6, 0, 0]])
    given = {"items": items.numpy(), "lengths": lengths.numpy(), "times": times.numpy()}
    (query,) = session.run(["query"], given)
    with torch.no_grad():
        np.testing.assert_allclose(query, model.encode(items, lengths, times).numpy(), rtol=1e-4, atol=1e-5)


def test_tasks_with_times_are_evaluated_in_any_batches(run):
    model = network_of(run.model)
    tasks = rsir.data.leave_one_out(run.data).test
    whole, parts = evaluate(model, tasks), evaluate(model, tasks, batch_size=7)
    assert np.array_equal(whole.ranks, parts.ranks)
    assert torch.equal(
        encode_sequences(model, tasks.histories)[3:5], encode_sequences(model, tasks.histories.rows(3, 5))
    )

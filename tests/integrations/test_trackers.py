"""Rounds in trackers: a fake, and the real ones where they are installed; none of them touches a network."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from rsir.cli import main as command
from rsir.config import FidelityConfig, ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig
from rsir.errors import ConfigError
from rsir.integrations.trackers import TRACKERS, Tracking, scalars
from rsir.recursion.loop import recurse

SMALL = RecursionConfig(
    rounds=1,
    guard=False,
    simulation=SimulationConfig(num_users=60, num_items=40),
    model=ModelConfig(dim=8, layers=1, heads=1, feedforward=8, max_len=12),
    training=TrainingConfig(max_evaluations=1),
    fidelity=FidelityConfig(tau=12),
)


class Fake:
    def __init__(self, fails_at=None):
        self.logged, self.closed, self.fails_at = {}, 0, fails_at

    def log(self, values, step):
        if step == self.fails_at:
            raise ConnectionError("no route")
        self.logged[step] = values

    def close(self):
        self.closed += 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return recurse(SMALL, out=tmp_path_factory.mktemp("runs") / "mine")


def test_every_round_and_figure_arrives(run):
    fake = Fake()
    tracking = Tracking([fake], run.path, SMALL)
    for result in run.rounds:
        tracking(result)
    tracking.close()
    assert (list(fake.logged), fake.closed) == ([0, 1], 1)
    assert fake.logged[1]["test/recall@10"] == run.rounds[1].test["recall@10"]
    assert fake.logged[1]["generated"] == run.rounds[1].generated
    assert "seconds/train" in fake.logged[0]
    assert "novel_share" not in fake.logged[0]  # nan in round 0


def test_metrics_are_lines_in_any_case(run, tmp_path):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [result.metrics() for result in run.rounds]
    other = tmp_path / "run"
    recurse(dataclasses.replace(SMALL, rounds=0), out=other)
    recurse(SMALL, out=other, resume=True)
    assert (other / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()


def test_a_tracker_that_fails_does_not_end_the_run(run):
    lost, fine = Fake(fails_at=1), Fake()
    tracking = Tracking([lost, fine], run.path, SMALL)
    tracking(run.rounds[0])
    with pytest.warns(UserWarning, match="Fake: ConnectionError: no route; nothing more is sent to it"):
        tracking(run.rounds[1])
    tracking.close()
    assert (lost.closed, fine.closed, list(fine.logged)) == (0, 1, [0, 1])


def test_names_and_packages(run, monkeypatch, tmp_path, capsys):
    with pytest.raises(ConfigError, match="expected some of tensorboard, wandb, mlflow, got 'excel'"):
        Tracking(["excel"], run.path, SMALL)
    monkeypatch.setattr("rsir.integrations.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"wandb is not installed: pip install 'rsir\[wandb\]'"):
        Tracking(["wandb"], run.path, SMALL)
    assert command.main(["--out", str(tmp_path / "run"), "--track", "mlflow"]) == 2
    assert "rsir[mlflow]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_option_of_the_command_line(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setitem(TRACKERS, "wandb", lambda folder, config: fake)
    monkeypatch.setattr("rsir.integrations.trackers.find_spec", lambda name: object())
    tiny = ["--simulation.num_users=60", "--simulation.num_items=40", "--fidelity.tau=10"]
    assert (
        command.main(
            ["--rounds=0", "--training.max_evaluations=1", *tiny, "--out", str(tmp_path / "run"), "--track", "wandb"]
        )
        == 0
    )
    assert (list(fake.logged), fake.closed) == ([0], 1)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # as of a run that is resumed
        tracking = Tracking(["tensorboard"], tmp_path, SMALL)
        for result in run.rounds:
            tracking(result)
        tracking.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    wanted = scalars(run.rounds[1])
    assert set(wanted) <= set(events.Tags()["scalars"])
    found = {event.step: event.value for event in events.Scalars("validation/ndcg@20")}
    assert found == pytest.approx({n: result.validation["ndcg@20"] for n, result in enumerate(run.rounds)})


@pytest.mark.filterwarnings("ignore")
def test_mlflow(run, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(["mlflow"], tmp_path, SMALL)
    for result in run.rounds:
        tracking(result)
    tracking.close()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("rsir").experiment_id])
    history = client.get_metric_history(found.info.run_id, "test/recall_at_10")
    assert [metric.value for metric in history] == [result.test["recall@10"] for result in run.rounds]
    assert found.data.params["fidelity.tau"] == "15"
    assert found.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore")
def test_wandb(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracking = Tracking(["wandb"], tmp_path, SMALL)
    for result in run.rounds:
        tracking(result)
    tracking.close()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))
    assert "wandb" in sys.modules

"""A run goes on with next week's events: warm networks, a larger catalogue, a folder of its own."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import rsir
from rsir.cli import main as command
from rsir.data.load import split
from rsir.errors import ConfigError, DataError, Interrupted, RunError
from rsir.models import ItemKnn, checkpoint
from rsir.models.growth import grown
from rsir.models.itemknn import network_of
from rsir.recursion.loop import recurse
from rsir.recursion.update import update
from rsir.runs.results import Run
from rsir.runtime.runtime import Runtime
from rsir.training.fit import fit, training_seed
from tests.harness.small import ON_DATA as SMALL

CONFIG = dataclasses.replace(SMALL, rounds=1, retention="all", accumulate=False)


@pytest.fixture(scope="module")
def run(weeks: tuple[pd.DataFrame, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return recurse(CONFIG, data=rsir.from_frame(weeks[0]), out=tmp_path_factory.mktemp("update") / "shop")


@pytest.fixture(scope="module")
def updated(run: Run, weeks: tuple[pd.DataFrame, pd.DataFrame]) -> Run:
    return run.update(weeks[1], run.path.with_name("next"))


def tree(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("log.jsonl", "report.html", "timings.json", "manifest.json")
    }


def test_a_refit_starts_from_its_networks(updated: Run) -> None:
    """The few steps of an update were chosen for trainings that start from trained weights."""
    config, result = updated.config, updated.rounds[0]
    refit = dataclasses.replace(updated, best=0, rounds=[result]).refit()
    own = checkpoint.load(updated.path / "round-00")
    steps = result.best_step, 0
    wanted = fit(config.model, config.training, updated.data, None, steps=steps, seed=training_seed(0, 0), init=own)
    made = network_of(refit.model)
    with pytest.raises(RunError, match="this update was made without a folder, and its refit starts from its networks"):
        dataclasses.replace(updated, path=None, best=0, rounds=[result]).refit()
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in wanted.model.state_dict().items())


def test_the_new_run(run: Run, updated: Run, weeks: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    assert updated.data.num_interactions == len(weeks[0]) + len(weeks[1])
    assert updated.data.num_items > run.data.num_items
    assert updated.data.item_labels[: run.data.num_items].equals(run.data.item_labels)
    assert updated.config.training.patience == 3
    again = rsir.load(updated.path)
    assert again.lineage == updated.lineage
    assert [one["run"] for one in again.lineage] == ["shop"]
    assert again.lineage[0]["events"] == len(weeks[0])
    assert ", going on from shop; round" in repr(again)
    assert again.recommend(k=5) == updated.recommend(k=5)
    new = set(weeks[1].item) - set(weeks[0].item)
    assert new
    assert new <= {item for row in updated.recommend(k=50) for item in row}
    third = again.update(dataclasses.replace(weeks_later(again.data)), rounds=0, **{"training.max_evaluations": 1})
    assert [one["run"] for one in third.lineage] == ["shop", "next"]
    assert len(third.rounds) == 1


def weeks_later(data: rsir.Sequences) -> rsir.Sequences:
    """One more event of every user."""
    some = data.select(np.flatnonzero(data.lengths > 0))
    items = some.items[some.offsets[1:] - 1] % data.num_items + 1
    return dataclasses.replace(
        some,
        items=items,
        offsets=np.arange(len(some) + 1),
        times=some.times[some.offsets[1:] - 1] + 10**9,
        source=np.arange(len(some)),
        round=np.zeros(len(some), np.int16),
    )


def test_networks_start_from_those_of_their_rounds(run: Run, updated: Run) -> None:
    parts = split(updated.data, updated.config.data)
    knn = ItemKnn.fit(parts.train, updated.config.itemknn)
    for round_ in (0, 1):
        seed = training_seed(run.config.seed, round_)
        old = checkpoint.load(run.path / f"round-{round_:02d}")
        first = grown(old, run.config.model, knn, seed=seed)
        if round_ == 0:
            wanted = fit(
                run.config.model, updated.config.training, parts.train, parts.validation, seed=seed, init=first
            )
            made = checkpoint.load(updated.path / "round-00").state_dict()
            assert all(value.equal(made[name]) for name, value in wanted.model.state_dict().items())
        from rsir.recursion.update import _Start

        start = _Start(run, updated.config, dataclasses.replace(_added(updated)))
        assert all(value.equal(first[name]) for name, value in start.weights(round_).items())


def _added(run: Run):
    from rsir.data.io.additions import Additions

    return Additions(run.data, 1, 0, 0, 0, 0)


def test_the_old_run_stays(run: Run, weeks: tuple[pd.DataFrame, pd.DataFrame], tmp_path) -> None:
    before = tree(run.path)
    run.update(weeks[1], rounds=0)
    assert tree(run.path) == before


def test_an_update_that_was_stopped_is_resumed(run: Run, updated: Run, weeks, tmp_path) -> None:
    calls = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 12

    with pytest.raises(Interrupted):
        update(run, weeks[1], tmp_path / "next", runtime=Runtime(stop=stop))
    assert (tmp_path / "next" / "manifest.json").exists()
    with pytest.raises(RunError, match="goes on from another run; resume it by rsir update RUN"):
        rsir.run(out=tmp_path / "next", resume=True)
    resumed = run.update(weeks[1], tmp_path / "next", resume=True)
    assert [one.metrics() for one in resumed.rounds] == [one.metrics() for one in updated.rounds]
    assert tree(tmp_path / "next") == tree(updated.path)


def test_what_cannot_be_updated(run: Run, weeks, tmp_path) -> None:
    base = recurse(dataclasses.replace(CONFIG, rounds=0), data=run.data)
    for wrong, message in (
        (lambda: base.update(weeks[1], tmp_path / "new"), "made without a folder"),
        (lambda: dataclasses.replace(run, refitted=True).update(weeks[1]), "update the run it was made from"),
        (lambda: run.update(weeks[1], run.path), "expected another folder than the run's"),
        (lambda: run.update(weeks[1], run.path.parent), "holds files that are not of a run"),
    ):
        with pytest.raises(RunError, match=message):
            wrong()
    with pytest.raises(ConfigError, match=r"model\.dim: an update keeps"):
        run.update(weeks[1], tmp_path / "new", **{"model.dim": 16})
    with pytest.raises(DataError, match="shares no user and no item"):
        run.update(weeks[1].assign(user="nobody", item="nothing"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command(run: Run, weeks, tmp_path, capsys) -> None:
    shutil.copytree(run.path, tmp_path / "shop")
    weeks[1].rename(columns={"item": "what"}).to_csv(tmp_path / "new.csv", index=False)
    shop, new = str(tmp_path / "shop"), str(tmp_path / "new.csv")
    short = ["--rounds", "0", "--set", "training.max_evaluations=1"]
    assert command.main(["update", shop, "--data", new, "--item", "what", *short]) == 0
    said = capsys.readouterr()
    assert f"{len(weeks[1]):,} new events, " in said.err
    assert "new items" in said.err
    assert f"{shop}-update-1, which goes on from {shop}" in said.out
    assert command.main(["inspect", f"{shop}-update-1"]) == 0
    assert f"Goes on:  from shop ({len(weeks[0])} events)" in capsys.readouterr().out
    for words, message in (
        ([shop, "--data", new], "which column holds the item ids"),
        ([shop, "--data", str(tmp_path / "none.csv")], "no such file"),
        ([shop, "--data", new, "--item", "what", "--resume"], "--resume: needs --out"),
        ([shop, "--data", new, "--item", "what", "--set", "trainin.patience=3"], "did you mean training.patience"),
        ([shop, "--data", new, "--item", "what", "--set", "rounds"], "expected NAME=VALUE"),
        ([shop, "--data", new, "--item", "what", "--out", f"{shop}-update-1"], "holds a run already"),
    ):
        assert command.main(["update", *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "shop-update-2").exists()

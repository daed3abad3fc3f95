"""A run with item vectors and titles: unseen items are recommended, titles are shown, refit and update keep them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsir
from rsir.cli import main as command
from rsir.config import DataConfig, ItemKnnConfig, SimulationConfig
from rsir.data import simulate
from rsir.data.load import split
from rsir.errors import DataError, RunError
from rsir.evaluation import evaluate
from rsir.models.itemknn import network_of
from rsir.recursion.loop import recurse
from rsir.runs.results import Run
from tests.harness.small import ON_DATA as SMALL

UNSEEN = ["i3", "i9", "new 1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log without three items, and a file of all items."""
    folder = tmp_path_factory.mktemp("vectors")
    made = simulate(SimulationConfig(num_users=80, num_items=50, mean_length=7)).sequences
    users = np.repeat(np.arange(len(made)), made.lengths)
    ids = {"user": [f"u{one}" for one in users], "item": [f"i{one}" for one in made.items]}
    log = pd.DataFrame({**ids, "time": made.times})
    early = log.time <= log.time.quantile(0.9)
    log[early & ~log.item.isin(UNSEEN)].to_csv(folder / "log.csv", index=False)
    log[~early].to_csv(folder / "week.csv", index=False)
    names = [*(f"i{one}" for one in range(1, 51)), "new 1"]
    vectors = np.random.default_rng(1).normal(size=(len(names), 5)).astype(np.float32)
    titles = [f"The {name}" for name in names]
    pq.write_table(pa.table({"item": names, "vector": vectors.tolist(), "title": titles}), folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    given = DataConfig(path=str(folder / "log.csv"), items=str(folder / "items.parquet"))
    with pytest.warns(rsir.errors.DataWarning, match="items without an event are in the catalogue"):
        return recurse(dataclasses.replace(SMALL, rounds=1, data=given), out=folder / "run")


def test_unseen_items_are_recommended_under_their_titles(run: Run) -> None:
    assert set(UNSEEN) <= set(run.data.item_labels.to_pylist())
    table = run.model.item_embeddings() if not hasattr(run.model, "network") else run.model.network.item_embeddings()
    assert table.isfinite().all()
    again = rsir.load(run.path)
    found = again.recommend(k=50)
    assert all(set(UNSEEN) <= set(row) for row in found)
    assert found.titles[0] == [f"The {name}" for name in found[0]]
    assert found.table()["title"].to_pylist()[:3] == found.titles[0][:3]
    assert again.recommend([["new 1"]], k=3).by == ["model"]
    assert len(again.similar("new 1", k=5)) == 5
    assert "The i1" in (run.path / "report.html").read_text("utf-8")


def test_the_count_takes_unseen_items_for_those_of_near_vectors(run: Run, folder: Path) -> None:
    """The same in the run, read back from its folder, refitted, and by a run that was made without a folder."""
    unseen = run.recommender().items.ids(UNSEEN)
    assert run.rounds[run.best].vote > 0
    tasks = split(run.data, run.config.data).test

    def shares(one: Run) -> tuple[list[int], list[float]]:
        found = one.model.knn.shares(tasks.histories.values, tasks.histories.offsets)
        return found.ids.tolist(), found.values.tolist()

    assert set(unseen) <= set(shares(run)[0])
    again = rsir.load(run.path)
    assert shares(again) == shares(run)
    assert evaluate(again.model, tasks).metrics["ndcg@10"] == run.rounds[run.best].test["ndcg@10"]
    refit = again.refit(folder / "counted")
    assert set(unseen) <= set(shares(refit)[0])
    assert shares(rsir.load(folder / "counted")) == shares(refit)
    assert set(unseen) <= set(shares(dataclasses.replace(run, path=None, best=0).refit())[0])
    assert run.similar("new 1", k=3, by="count")
    silent = dataclasses.replace(again, model=network_of(again.model))
    assert silent.similar("new 1", k=3, by="count")
    blind = dataclasses.replace(run.config, rounds=0, itemknn=ItemKnnConfig(cold_neighbours=0))
    with pytest.warns(rsir.errors.DataWarning, match="items without an event"):
        assert not set(unseen) & set(shares(recurse(blind))[0])


def test_vectors_that_are_gone_are_named(run: Run, folder: Path) -> None:
    copy = folder / "copy"
    shutil.copytree(run.path, copy)
    (copy / "items.parquet").unlink()
    with pytest.raises(RunError, match=r"items\.parquet: no such file; put the original back"):
        rsir.load(copy)


def test_commands_show_titles(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["recommend", str(run.path), "--users", "u1", "--k", "2"]) == 0
    assert "The i" in capsys.readouterr().out
    assert command.main(["similar", str(run.path), "i1", "--k", "2"]) == 0
    assert "The i" in capsys.readouterr().out
    for name in ("top.parquet", "top.csv", "top.jsonl"):
        assert command.main(["recommend", str(run.path), "--k", "2", "--out", str(folder / name)]) == 0
    rows = pq.read_table(folder / "top.parquet")
    assert rows["title"].to_pylist() == [f"The {name}" for name in rows["item_id"].to_pylist()]
    assert json.loads((folder / "top.jsonl").read_text().splitlines()[0])["title"].startswith("The i")
    assert "title" in (folder / "top.csv").read_text().splitlines()[0]


def test_the_service_has_titles(run: Run) -> None:
    service = pytest.importorskip("tests.service.test_service")
    client = service.Client(run.path)
    try:
        status, said = client("/recommend?user=u1&k=3")
        assert status == 200
        assert [one["title"] for one in said["items"]] == [f"The {one['item']}" for one in said["items"]]
        assert client("/similar?item=i1&k=1")[1]["items"][0]["title"].startswith("The ")
    finally:
        client.close()


def test_a_refit_and_an_update_keep_them(run: Run, folder: Path) -> None:
    refit = run.refit(folder / "refit")
    assert rsir.load(folder / "refit").titles == run.titles
    assert set(UNSEEN) <= set(refit.recommend(k=50)[0])
    (folder / "items.parquet").rename(folder / "gone.parquet")
    try:
        newer = run.update(folder / "week.csv", folder / "newer", **{"training.max_evaluations": 1}, rounds=0)
    finally:
        (folder / "gone.parquet").rename(folder / "items.parquet")
    assert newer.data.num_items == run.data.num_items
    assert newer.titles == run.titles


def test_bad_files_write_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"item": ["q"], "vector": [[1.0]]}), folder / "bad.parquet")
    words = ["--data", str(folder / "log.csv"), "--items", str(folder / "bad.parquet"), "--out", str(folder / "none")]
    assert command.main(words) == 2
    assert "has none of the" in capsys.readouterr().err
    assert not (folder / "none").exists()
    with pytest.raises(DataError, match="no such file"):
        rsir.run(data=folder / "log.csv", out=folder / "none", **{"data.items": str(folder / "missing.parquet")})

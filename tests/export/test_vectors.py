"""Vectors as Parquet: their inner products are the model's logits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsir.cli import main as command
from rsir.config import ItemKnnConfig, SimulationConfig
from rsir.data import simulate
from rsir.recursion.loop import recurse
from rsir.runs.results import Run
from tests.harness.small import ON_DATA as SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plain = simulate(SimulationConfig(num_users=60, num_items=40, mean_length=6)).sequences
    data = dataclasses.replace(plain, item_labels=pa.array([f"item {row}" for row in range(40)]))
    config = dataclasses.replace(SMALL, rounds=1, retention="all", itemknn=ItemKnnConfig(vote="off"))
    return recurse(config, data=data, out=tmp_path_factory.mktemp("vectors") / "run")


def test_inner_products_are_the_scores(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {}
    for what in ("items", "users"):
        assert command.main(["export", str(run.path), str(tmp_path / f"{what}.parquet"), "--vectors", what]) == 0
        assert f"vectors of {len(run.data) if what == 'users' else 40} {what}" in capsys.readouterr().out
        tables[what] = pq.read_table(tmp_path / f"{what}.parquet")
    vectors = {what: np.array(table["vector"].to_pylist(), np.float32) for what, table in tables.items()}
    assert tables["items"]["label"].to_pylist() == run.data.item_labels.to_pylist()
    scores = vectors["users"] @ vectors["items"].T
    found = run.recommend(users=tables["users"]["label"].to_pylist(), k=3, repeats="included")
    for row, (names, values) in enumerate(zip(found, found.scores, strict=True)):
        places = [run.data.item_labels.to_pylist().index(name) for name in names]
        assert np.allclose(scores[row, places], values, atol=1e-4)
        assert np.isclose(scores[row].max(), values[0], atol=1e-4)


def test_what_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["items.csv", "--vectors", "items"], "vectors are written as Parquet"),
        (["items.parquet", "--vectors", "all"], "expected one of items, users"),
        (["items.parquet", "--vectors", "items", "--round", "0"], "--round and --held-out are of training data"),
    ):
        assert command.main(["export", str(run.path), str(tmp_path / words[0]), *words[1:]]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""Recommendations for all users, written block by block."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.cli import main as command
from rsir.cli import recommend
from rsir.cli.recommend import histories_of, write
from rsir.config import (
    DataConfig,
    FidelityConfig,
    GenerationConfig,
    ModelConfig,
    RecursionConfig,
    SimulationConfig,
    TrainingConfig,
)
from rsir.data import Sequences, read_histories, simulate
from rsir.data.io.readers import histories_config
from rsir.data.ragged import Ragged
from rsir.errors import DataError, DataWarning
from rsir.evaluation import recommend as top
from rsir.recursion.loop import recurse
from tests.harness.toys import ToyBackbone


def by_user(path):
    table = pq.read_table(path)
    found = {}
    for user, item, rank in zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "rank")), strict=True):
        assert rank == len(found.setdefault(user, [])) + 1
        found[user].append(item)
    return found


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(recommend, "BLOCK", 3)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=30)
@given(rows=st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=9), k=st.integers(1, 11))
def test_blocks_are_the_whole_and_labels_come_out(tmp_path_factory, rows, k):
    path = tmp_path_factory.mktemp("scores") / "top.parquet"
    labels = pa.array([f"item {number}" for number in range(9)])
    data = Sequences.from_lists(rows, 9, item_labels=labels, user_labels=pa.array([f"u{n}" for n in range(len(rows))]))
    model = ToyBackbone(9)
    write(path, model, data, histories_of(data), k)
    wanted = {}
    for number, row in enumerate(rows):
        if row:
            ids = top(model, Ragged.from_lists([row]), k).ids[0].tolist()
            wanted[f"u{number}"] = [f"item {item - 1}" for item in ids if item]
    assert by_user(path) == {user: items for user, items in wanted.items() if items}
    assert [entry.name for entry in path.parent.iterdir()] == ["top.parquet"]
    filled = sum(bool(row) for row in rows)
    assert pq.ParquetFile(path).num_row_groups == -(-filled // 3)


def test_scores_fall_with_the_rank(tmp_path):
    data = Sequences.from_lists([[1, 2, 3], [4, 5]], 12)
    write(tmp_path / "top.parquet", ToyBackbone(12), data, histories_of(data), 5, exclude_history=False)
    table = pq.read_table(tmp_path / "top.parquet")
    assert table.schema.names == ["user_id", "item_id", "rank", "score"]
    scores = table["score"].to_numpy().reshape(2, 5)
    assert (np.diff(scores) <= 0).all()
    with pytest.raises(DataError, match="k: expected at least 1, got 0"):
        write(tmp_path / "top.parquet", ToyBackbone(12), data, histories_of(data), 0)
    with pytest.raises(
        DataError, match=r"top\.csv: expected a file that ends in \.parquet or \.pq, as Parquet is written"
    ):
        write(tmp_path / "top.csv", ToyBackbone(12), data, histories_of(data), 1)
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "no" / "top.parquet", ToyBackbone(12), data, histories_of(data), 1)


def test_histories_over_a_catalogue(tmp_path):
    catalogue = Sequences.from_lists([[1, 2, 3]], 3, item_labels=pa.array(["x", "y", "z"]))
    path = tmp_path / "h.csv"
    path.write_text("user,item,time\nb,z,2\nb,x,1\na,new,1\nc,new,1\nc,y,0\n")
    histories = read_histories(path, catalogue)
    assert histories.users.to_pylist() == ["b", "c"]
    assert (histories.lists.values.tolist(), histories.lists.offsets.tolist()) == ([1, 3, 2], [0, 2, 3])
    assert (histories.unknown_events, histories.unknown_users) == (2, 1)
    path.write_text("user,item\nb,new\n")
    with pytest.raises(DataError, match=r"none of its items, 'new' for one, is in the catalogue"):
        read_histories(path, catalogue)
    numbered = Sequences.from_lists([[1, 2, 3]], 3, item_labels=pa.array(["7", "007", "x"]))
    path.write_text("user,item\nb,7\n")
    assert read_histories(path, numbered).lists.values.tolist() == [1]
    assert read_histories(
        path, dataclasses.replace(numbered, item_labels=pa.array([9, 7, 8]))
    ).lists.values.tolist() == [2]
    path.write_text("user,item\nb,3\n")
    assert read_histories(path, dataclasses.replace(numbered, item_labels=None)).lists.values.tolist() == [3]


def test_histories_drop_what_training_drops(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("user,item,time\na,x,1\na,x,1\na,y,2\na,x,3\nb,new,1\nb,new,1\nb,y,5\nb,y,5\nb,x,7\n")
    catalogue = Sequences.from_lists([[1, 2]], 2, item_labels=pa.array(["x", "y"]))
    with pytest.warns(DataWarning, match=r"e\.csv: dropped 2 of 7 events"):
        histories = read_histories(path, catalogue)
    assert (histories.lists.values.tolist(), histories.lists.offsets.tolist()) == ([1, 2, 1, 2, 1], [0, 3, 5])
    assert (histories.unknown_events, histories.unknown_users) == (2, 0)


def test_histories_take_of_a_run_what_fits_them(tmp_path):
    catalogue = Sequences.from_lists([[1, 2, 3]], 3, item_labels=pa.array(["x", "y", "z"]))
    run = DataConfig(path="events.csv", user="who", item="what", time="when", rating="liked", min_rating=3, k_core=5)

    def read_after(name, content, run=run, **given):
        (tmp_path / name).write_text(content)
        histories = read_histories(tmp_path / name, catalogue, histories_config(tmp_path / name, run, given))
        return dict(zip(histories.users.to_pylist(), histories.lists, strict=True))

    def same(found, **wanted):
        assert {user: items.tolist() for user, items in found.items()} == wanted

    same(read_after("a.csv", "who,what,when,liked\na,z,2,5\na,y,3,1\na,x,1,4\n"), a=[1, 3])
    same(read_after("b.csv", "user_id,item_id,stars\na,z,5\na,y,1\na,x,4\n"), a=[3, 1])
    same(read_after("c.csv", "who,thing\na,z\na,y\n", item="thing"), a=[3, 2])
    same(read_after("d.txt", "a x y\n"), a=[1, 2])
    same(read_after("seqs.data", "a x y\n", DataConfig(path="seqs.data", format="text")), a=[1, 2])
    same(read_after("e.csv", "user,item\na,z\n", DataConfig(path="seqs.data", format="text")), a=[3])
    with pytest.raises(DataError, match=r"c\.csv: no column 'when' for the time"):
        read_after("c.csv", "who,what\na,z\n", time="when")
    with pytest.raises(DataError, match="which format is this"):
        read_after("h.data", "a x y\n")
    (tmp_path / "f.csv").write_bytes(b"user,\xe9\n")
    with pytest.raises(DataError, match=r"f\.csv: line 1: expected UTF-8 text"):
        histories_config(tmp_path / "f.csv", run, {})
    with pytest.raises(DataError, match=r"g\.csv: no such file"):
        histories_config(tmp_path / "g.csv", run, {})


def test_command(tmp_path, capsys, monkeypatch):
    config = RecursionConfig(
        rounds=0,
        simulation=SimulationConfig(num_users=60, num_items=40),
        model=ModelConfig(dim=8, layers=1, heads=1, feedforward=8, max_len=12),
        training=TrainingConfig(max_evaluations=1),
        generation=GenerationConfig(m=1),
        fidelity=FidelityConfig(tau=15),
    )
    data = simulate(config.simulation).sequences
    named = dataclasses.replace(data, item_labels=pa.array([f"item {number}" for number in range(40)]))
    run = recurse(config, data=named, out=tmp_path / "run")
    out = tmp_path / "top.parquet"
    assert command.main(["recommend", str(tmp_path / "run"), "--out", str(out), "--k", "4"]) == 0
    assert f"{out}: the best 4 items for 60 users" in capsys.readouterr().out
    found = by_user(out)
    assert found[data.user_labels[0].as_py()] == run.recommend([[f"item {item - 1}" for item in data[0]]], k=4)[0]
    (tmp_path / "h.csv").write_text("who,what\n9,item 3\n9,item 39\n9,nothing\n")
    arguments = ["--histories", str(tmp_path / "h.csv"), "--user", "who", "--item", "what"]
    assert command.main(["recommend", str(tmp_path / "run"), "--out", str(out), *arguments]) == 0
    assert by_user(out) == {9: run.recommend([["item 3", "item 39"]])[0]}
    assert "1 events, and 0 users who have no others" in capsys.readouterr().err
    (tmp_path / "h.csv").write_text("user,item,time\n9,item 3,1\n9,item 3,1\n")
    assert (
        command.main(["recommend", str(tmp_path / "run"), "--out", str(out), "--histories", str(tmp_path / "h.csv")])
        == 0
    )
    assert capsys.readouterr().err.startswith(f"rsir: note: {tmp_path / 'h.csv'}: dropped 1 of 2 events that repeat")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert command.main(["recommend", str(tmp_path / "run"), "--out", str(out), "--gpu"]) == 2
    assert "rsir: error: --gpu: torch finds no CUDA device (torch " in capsys.readouterr().err
    table = tmp_path / "top.csv"
    assert command.main(["recommend", str(tmp_path / "nothing"), "--out", str(table)]) == 2
    assert f"{table}: expected a file that ends in .parquet or .pq" in capsys.readouterr().err
    assert not table.exists()
    assert command.main(["recommend", str(tmp_path), "--out", str(out)]) == 2
    assert "holds no run" in capsys.readouterr().err

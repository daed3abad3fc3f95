"""Recommendations for all users, written block by block."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.cli import main as command
from rsir.config import (
    DataConfig,
    FidelityConfig,
    GenerationConfig,
    ItemKnnConfig,
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
from rsir.serving import recommender as engine
from rsir.serving.output import write
from rsir.serving.recommender import Recommender
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
    monkeypatch.setattr(engine, "BLOCK", 3)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=30)
@given(rows=st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=9), k=st.integers(1, 11))
def test_blocks_are_the_whole_and_labels_come_out(tmp_path_factory, rows, k):
    path = tmp_path_factory.mktemp("scores") / "top.parquet"
    labels = pa.array([f"item {number}" for number in range(9)])
    data = Sequences.from_lists(rows, 9, item_labels=labels, user_labels=pa.array([f"u{n}" for n in range(len(rows))]))
    model = ToyBackbone(9)
    recommender = Recommender(model, data)
    write(path, recommender, recommender.histories_of(), k)
    wanted = {}
    counts = np.bincount([0, *(item for row in rows for item in row)], minlength=10)
    popular = sorted(range(1, 10), key=lambda item: (-counts[item], item))[:k]
    for number, row in enumerate(rows):
        ids = top(model, Ragged.from_lists([row]), k).ids[0].tolist() if row else popular
        wanted[f"u{number}"] = [f"item {item - 1}" for item in ids if item]
    assert by_user(path) == {user: items for user, items in wanted.items() if items}
    assert [entry.name for entry in path.parent.iterdir()] == ["top.parquet"]
    assert pq.ParquetFile(path).num_row_groups == -(-len(rows) // 3)
    by = {(row["user_id"], row["by"]) for row in pq.read_table(path).to_pylist()}
    assert by == {(f"u{n}", "model" if row else "popularity") for n, row in enumerate(rows) if wanted[f"u{n}"]}


def test_scores_fall_with_the_rank(tmp_path):
    data = Sequences.from_lists([[1, 2, 3], [4, 5]], 12)
    recommender = Recommender(ToyBackbone(12), data)
    histories = recommender.histories_of()
    write(tmp_path / "top.parquet", recommender, histories, 5, repeats="included")
    table = pq.read_table(tmp_path / "top.parquet")
    assert table.schema.names == ["user_id", "item_id", "rank", "score", "by"]
    scores = table["score"].to_numpy().reshape(2, 5)
    assert (np.diff(scores) <= 0).all()
    with pytest.raises(DataError, match="k: expected at least 1, got 0"):
        write(tmp_path / "top.parquet", recommender, histories, 0)
    with pytest.raises(DataError, match=r"top\.txt: expected a file that ends in \.parquet, \.pq, \.csv, \.jsonl"):
        write(tmp_path / "top.txt", recommender, histories, 1)
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "no" / "top.parquet", recommender, histories, 1)


def test_every_format_says_the_same(tmp_path):
    labels = pa.array([f'item, "{number}" é' for number in range(12)])
    data = Sequences.from_lists(
        [[1, 2, 3], [], [4, 5]], 12, item_labels=labels, user_labels=pa.array(["ann", "bo", "c"])
    )
    recommender = Recommender(ToyBackbone(12), data)
    for name in ("top.parquet", "top.csv", "top.jsonl"):
        assert write(tmp_path / name, recommender, recommender.histories_of(), 3) == 1
    rows = pq.read_table(tmp_path / "top.parquet").to_pylist()
    assert [json.loads(line) for line in (tmp_path / "top.jsonl").read_text("utf-8").splitlines()] == rows
    found = pa.csv.read_csv(tmp_path / "top.csv")
    assert found.drop_columns("score").to_pylist() == [{k: v for k, v in row.items() if k != "score"} for row in rows]
    assert found["score"].to_numpy().astype(np.float32).tolist() == [row["score"] for row in rows]


def test_histories_over_a_catalogue(tmp_path):
    catalogue = Sequences.from_lists([[1, 2, 3]], 3, item_labels=pa.array(["x", "y", "z"]))
    path = tmp_path / "h.csv"
    path.write_text("user,item,time\nb,z,2\nb,x,1\na,new,1\nc,new,1\nc,y,0\n")
    histories = read_histories(path, catalogue)
    assert histories.users.to_pylist() == ["a", "b", "c"]
    assert (histories.lists.values.tolist(), histories.lists.offsets.tolist()) == ([1, 3, 2], [0, 0, 2, 3])
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
    assert capsys.readouterr().err == "rsir: note: skipped 1 events whose items are not in the catalogue\n"
    (tmp_path / "h.csv").write_text("user,item,time\n9,item 3,1\n9,item 3,1\n")
    assert (
        command.main(["recommend", str(tmp_path / "run"), "--out", str(out), "--histories", str(tmp_path / "h.csv")])
        == 0
    )
    assert capsys.readouterr().err.startswith(f"rsir: note: {tmp_path / 'h.csv'}: dropped 1 of 2 events that repeat")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert command.main(["recommend", str(tmp_path / "run"), "--out", str(out), "--gpu"]) == 2
    assert "rsir: error: --gpu: torch finds no CUDA device (torch " in capsys.readouterr().err
    table = tmp_path / "top.xlsx"
    assert command.main(["recommend", str(tmp_path / "nothing"), "--out", str(table)]) == 2
    assert f"{table}: expected a file that ends in .parquet, .pq, .csv, .jsonl" in capsys.readouterr().err
    assert not table.exists()
    assert command.main(["recommend", str(tmp_path), "--out", str(out)]) == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A run whose item-kNN votes, its items and users under names."""
    config = RecursionConfig(
        rounds=1,
        guard=False,
        itemknn=ItemKnnConfig(vote="auto"),
        simulation=SimulationConfig(num_users=80, num_items=50, mean_length=7),
        model=ModelConfig(dim=8, layers=1, heads=1, feedforward=8, max_len=12),
        training=TrainingConfig(max_evaluations=2),
        generation=GenerationConfig(m=1),
        fidelity=FidelityConfig(tau=15),
    )
    data = simulate(config.simulation).sequences
    named = dataclasses.replace(
        data,
        item_labels=pa.array([f"item {number}" for number in range(50)]),
        user_labels=pa.array([f"user {number}" for number in range(80)]),
    )
    run = recurse(config, data=named, out=tmp_path_factory.mktemp("counted") / "run")
    assert run.rounds[run.best].vote > 0
    return run


def printed(capsys, *arguments):
    """What the command prints, as rows of user, item, rank, score and by."""
    assert command.main(["recommend", *map(str, arguments)]) == 0
    shown = capsys.readouterr()
    return [line.split("  ") for line in shown.out.splitlines()[1:]], shown.err


def test_the_command_says_what_python_says(counted, tmp_path, capsys):
    stock, never = tmp_path / "stock.csv", tmp_path / "never.txt"
    stock.write_text("item_id\nitem 3\nitem 9\nitem 22\nitem 31\nitem 5\nnew\n")
    never.write_text("item 22\n\n")
    options = ["--candidates", stock, "--exclude", never, "--round", 0, "--k", 3, "--repeats", "included"]
    rows, err = printed(capsys, counted.path, "--users", "user 3", "user 17", *options)
    with pytest.warns(DataWarning, match="recommend: skipped 1 candidates that are not in the catalogue"):
        found = counted.recommend(
            users=["user 3", "user 17"],
            candidates=["item 3", "item 9", "item 22", "item 31", "item 5", "new"],
            exclude=["item 22"],
            round_=0,
            k=3,
            repeats="included",
        )
    wanted = [
        (r["user_id"], r["item_id"], str(r["rank"]), f"{r['score']:.4f}", r["by"]) for r in found.table().to_pylist()
    ]
    assert [tuple(cell.strip() for cell in row if cell) for row in rows] == wanted
    assert {item for row in found for item in row} <= {"item 3", "item 9", "item 31", "item 5"}
    assert err == "rsir: note: skipped 1 candidates that are not in the catalogue\n"
    rows, err = printed(capsys, counted.path, "--history", "item 3", "nothing", "--k", 2)
    assert [row[0].strip() for row in rows] == counted.recommend([["item 3"]], k=2)[0]
    assert err == "rsir: note: skipped 1 events whose items are not in the catalogue\n"
    rows, _ = printed(capsys, counted.path, "--history", "--k", 2)
    assert [row[0].strip() for row in rows] == counted.recommend([[]], k=2)[0]
    assert {row[-1].strip() for row in rows} == {"popularity"}


def test_users_of_a_file_alone(counted, tmp_path, capsys):
    histories, users, out = tmp_path / "h.csv", tmp_path / "users.txt", tmp_path / "top.parquet"
    histories.write_text("user,item\na,item 1\nb,item 2\nc,item 3\nd,new\n")
    users.write_text("d\nb\n")
    arguments = ["recommend", str(counted.path), "--histories", str(histories), "--users-in", str(users)]
    assert command.main([*arguments, "--out", str(out), "--k", "2"]) == 0
    shown = capsys.readouterr()
    assert by_user(out) == {"b": counted.recommend([["item 2"]], k=2)[0], "d": counted.recommend([[]], k=2)[0]}
    assert "Of 1 of them nothing is known: they have the most popular items" in shown.out
    assert "skipped 1 events whose items are not in the catalogue; 1 users have no others" in shown.err
    users.write_text("e\n")
    assert command.main([*arguments, "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"rsir: error: {histories}: has no user 'e'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--users nobody", "user 'nobody' is not in the data of the run, which has 'user 0' for one; give a history"),
        ("--history nothing --k 3", "histories: none of their items, 'nothing' for one, is in the catalogue"),
        ("--history --round 2", "expected a round in 0..1, got 2"),
        ("--history --candidates none.txt", "none.txt: no such file"),
        (
            "--history --candidates new.txt",
            "candidates: expected items of the catalogue, got only unknown ones, ",
        ),
        ("--history --exclude empty.txt", "empty.txt: expected names of items, got none"),
        ("--history --users a", "--users: expected it without --history, got both"),
        ("--users a --users-in new.txt", "--users: expected it without --users-in, got both"),
        ("--history --item what", "--item: names a column of --histories FILE, and none is given"),
        ("", "rsir recommend: expected --out FILE, or --users ID or --history ITEM to print some"),
        ("--out top.parquet --k 0", "k: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_asked_for(counted, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.txt").write_text("new\n")
    (tmp_path / "empty.txt").write_text("\n")
    assert command.main(["recommend", str(counted.path), *arguments.split()]) == 2
    assert message in capsys.readouterr().err

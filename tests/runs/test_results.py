"""Finished runs back from their folders; what they were trained on, for use elsewhere; enrichment with any model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

import rsir
from rsir.cli import main as command
from rsir.config import (
    AcquisitionConfig,
    DataConfig,
    FidelityConfig,
    GenerationConfig,
    ItemKnnConfig,
    SimulationConfig,
)
from rsir.data import Sequences, from_frame, leave_one_out, simulate, to_table, write
from rsir.errors import BackboneError, ConfigError, DataError, RunError
from rsir.recursion import loop
from rsir.recursion.loop import recurse
from rsir.runs.results import enriched
from rsir.training.fit import fit
from tests.harness.small import ON_DATA as SMALL
from tests.harness.toys import IncrementalToyBackbone, ToyBackbone


@pytest.fixture(scope="module")
def data() -> Sequences:
    """Simulated users under names."""
    plain = simulate(SimulationConfig(num_users=80, num_items=50, mean_length=7)).sequences
    named = {
        "user_labels": pa.array([f"user {row}" for row in range(len(plain))]),
        "item_labels": pa.array([f"item {row}" for row in range(plain.num_items)]),
    }
    return dataclasses.replace(plain, **named)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return recurse(SMALL, data=data, out=tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("retention", ["none", "pair"])
def test_a_run_comes_back_whole(data, tmp_path, retention):
    config = dataclasses.replace(SMALL, retention=retention)
    run = recurse(config, data=data, out=tmp_path / "run")
    again = rsir.load(tmp_path / "run")
    assert (again.config, again.best, again.path) == (run.config, run.best, run.path)
    assert [one.metrics() for one in again.rounds] == [one.metrics() for one in run.rounds]
    assert again.data.fingerprint() == data.fingerprint()
    histories = [["item 3", "item 7"], ["item 49"]]
    assert again.recommend(histories, k=4) == run.recommend(histories, k=4)
    assert all(label.startswith("item ") for row in again.recommend(histories) for label in row)


def test_repeats_are_one_rule_for_what_is_measured_and_what_is_recommended(data):
    """Users who only ever come back: nothing that is new to them can be the target."""
    again = Sequences.from_lists([[a, a + 1, a, a + 1, a] for a in range(1, 40)], 40)
    configs = [dataclasses.replace(SMALL, rounds=0, data=DataConfig(repeats=rule)) for rule in ("excluded", "included")]
    excluded, included = (recurse(config, data=again) for config in configs)
    assert excluded.rounds[0].test["recall@20"] == 0 < included.rounds[0].test["recall@20"]
    for run, rule in ((excluded, "excluded"), (included, "included")):
        assert (5 in run.recommend([[5]], k=40)[0]) == (rule == "included")
        assert 5 in run.recommend([[5]], k=40, repeats="included")[0]
        assert 5 not in run.recommend([[5]], k=40, repeats="excluded")[0]
    with pytest.raises(DataError, match="repeats: expected excluded or included, got 'no'"):
        included.recommend([[5]], repeats="no")


def test_the_card_names_data_and_settings(data, run, tmp_path):
    from rsir.models import checkpoint

    card = checkpoint.read_card(run.path / "round-01")
    assert card["data"] == data.fingerprint()
    assert card["settings"]["generation.m"] == 2
    assert "data.path" not in card["settings"]
    assert card["metrics"] == run.rounds[1].alone != run.rounds[1].validation
    vote = run.rounds[1].vote
    assert vote > 0
    assert card["ensemble"] == {"rounds": [0, 1], "item_knn": vote, "metrics": run.rounds[1].validation}
    alone = dataclasses.replace(SMALL, rounds=0, itemknn=ItemKnnConfig(vote="off"))
    single = recurse(alone, data=data, out=tmp_path / "single")
    base = checkpoint.read_card(tmp_path / "single" / "round-00")
    assert base["metrics"] == single.rounds[0].validation == run.rounds[0].alone
    assert "ensemble" not in base


def test_a_device_that_is_not_there(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^device='cuda': torch finds no CUDA device \(torch .*; omit device='cuda'"):
        rsir.load(run.path, device="cuda")


def test_open_is_load(run):
    assert type(run).open(run.path).best == run.best


def test_a_run_whose_rounds_lose_recommends_with_its_base(data, tmp_path, monkeypatch):
    """From memory, from its folder and refitted: as if there had been no rounds."""
    trainings = []

    def spoiled(*args, **settings):
        trained = fit(*args, **settings)
        trainings.append(trained)
        if len(trainings) > 1:
            draw = torch.Generator().manual_seed(len(trainings))
            with torch.no_grad():
                for value in trained.model.parameters():
                    value.normal_(generator=draw)
        return trained

    base = recurse(dataclasses.replace(SMALL, rounds=0), data=data, out=tmp_path / "base")
    monkeypatch.setattr(loop, "fit", spoiled)
    run = recurse(SMALL, data=data, out=tmp_path / "run")
    assert len(run.rounds) == 3
    assert max(result.validation["ndcg@20"] for result in run.rounds[1:]) < run.rounds[0].validation["ndcg@20"]
    users = [[f"item {item - 1}" for item in row] for row in list(data.lists)[:20]]
    expected = base.recommend(users, 5)
    for one in (run, rsir.load(run.path)):
        assert one.best == 0
        assert one.recommend(users, 5) == expected
    refit = run.refit(tmp_path / "refit")
    assert [path.name for path in sorted((tmp_path / "refit").glob("round-*"))] == ["round-00"]
    assert (
        refit.recommend(users, 5)
        == rsir.load(tmp_path / "refit").recommend(users, 5)
        == base.refit().recommend(users, 5)
    )


def test_data_that_is_gone_or_damaged(data, run, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    (copy / "data.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RunError, match=r"data\.parquet: damaged.*put the original back, or make it again by --resume"):
        rsir.load(copy)
    data.select(np.arange(10)).save(copy / "data.parquet")
    with pytest.raises(RunError, match="is not the data the run was made from"):
        rsir.load(copy)
    (copy / "data.parquet").unlink()
    with pytest.raises(RunError, match=r"is missing, and simulated data has changed since"):
        rsir.load(copy)
    recurse(SMALL, data=data, out=copy, resume=True)
    assert rsir.load(copy).data.fingerprint() == data.fingerprint()
    with pytest.raises(RunError, match="holds no run"):
        rsir.load(tmp_path / "nothing")


def test_a_run_resumes_where_its_file_is_not(data, tmp_path):
    file = tmp_path / "events.csv"
    write(data, file)
    config = dataclasses.replace(SMALL, rounds=0, data=DataConfig(path=str(file)))
    run = recurse(config, out=tmp_path / "run")
    file.unlink()
    again = recurse(config, out=tmp_path / "run", resume=True)
    assert again.data.fingerprint() == run.data.fingerprint()
    assert [one.metrics() for one in again.rounds] == [one.metrics() for one in run.rounds]
    elsewhere = dataclasses.replace(config, data=DataConfig(path=str(tmp_path / "other.csv")))
    with pytest.raises(DataError, match=r"other\.csv: no such file"):
        recurse(elsewhere, out=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="no run to resume"):
        recurse(config, out=tmp_path / "none", resume=True)
    (tmp_path / "run" / "data.parquet").unlink()
    with pytest.raises(RunError, match=r"data\.parquet: is missing, and the data cannot be read .*--data\.path FILE"):
        recurse(config, out=tmp_path / "run", resume=True)


def test_what_a_round_was_trained_on(data, run):
    train = leave_one_out(data).train
    assert enriched(run, 0).fingerprint() == train.fingerprint()
    second = enriched(run, 2)
    assert second.select(second.is_real).fingerprint() == dataclasses.replace(train, times=None).fingerprint()
    assert [int((second.round == number).sum()) for number in (1, 2)] == [run.rounds[n].acquired for n in (1, 2)]
    whole = enriched(run, 2, held_out=True).select(np.arange(len(data)))
    assert whole.items.tolist() == data.items.tolist()
    with pytest.raises(RunError, match=r"expected a round in 0\.\.2, got 3"):
        enriched(run, 3)
    with pytest.raises(RunError, match="made without a folder"):
        enriched(dataclasses.replace(run, path=None))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "inter", "txt"])
def test_export_command(run, tmp_path, suffix, capsys):
    from rsir.data import read

    file = tmp_path / f"e.{suffix}"
    assert command.main(["export", str(run.path), str(file), "--round", "1"]) == 0
    wanted = enriched(run, 1)
    shown = f"{wanted.num_real} real and {len(wanted) - wanted.num_real} generated sequences"
    assert shown in capsys.readouterr().out
    back = read(file, DataConfig(time=None))
    assert sorted(back.lengths.tolist()) == sorted(length for length in wanted.lengths.tolist() if length)
    assert command.main(["export", str(run.path), str(tmp_path / "e.xlsx")]) == 2
    assert "expected a name that ends in .txt, .csv" in capsys.readouterr().err
    assert command.main(["export", str(tmp_path), str(file)]) == 2


@pytest.mark.parametrize("model", [ToyBackbone, IncrementalToyBackbone])
def test_enrich_with_any_backbone(data, model):
    train = dataclasses.replace(leave_one_out(data).train, times=None)
    encoder = model(train.num_items, max_len=20)
    settings = {"generation": GenerationConfig(m=3, k=4), "fidelity": FidelityConfig(tau=20)}
    out = rsir.enrich(train, encoder, **settings, seed=3)
    assert isinstance(out, Sequences)
    assert out.select(out.is_real).fingerprint() == train.fingerprint()
    assert len(out) > len(train)
    assert set(out.round[~out.is_real]) == {1}
    assert out.lengths[~out.is_real].min() >= 3
    assert rsir.enrich(train, encoder, **settings, seed=3).fingerprint() == out.fingerprint()
    assert rsir.enrich(train, encoder, **settings, seed=4).fingerprint() != out.fingerprint()
    capped = rsir.enrich(train, encoder, **settings, acquisition=AcquisitionConfig(policy="capped", cap=1), seed=3)
    assert np.bincount(capped.source[~capped.is_real]).max() == 1
    twice = rsir.enrich(out, encoder, **settings, round_=2)
    assert set(twice.round) == {0, 1, 2}
    assert (twice.round == 1).sum() == (out.round == 1).sum()
    assert "source" in to_table(out).column_names


def test_enrich_from_a_frame():
    """Names go in and come out."""
    table = pa.table({"user": ["a"] * 5 + ["b"] * 5, "item": list("vwxyz") * 2})
    data = from_frame(table)
    out = rsir.enrich(data, ToyBackbone(5), fidelity=FidelityConfig(policy="off"), generation=GenerationConfig(k=3))
    assert set(to_table(out)["source"].to_pylist()) == {"a", "b"}
    assert set(to_table(out)["item_id"].to_pylist()) <= set("vwxyz")


def test_what_is_no_backbone(data):
    with pytest.raises(BackboneError, match=r"object is no Backbone: it lacks num_items, max_len"):
        rsir.enrich(data, object())
    with pytest.raises(ValueError, match="expected the 9 items of ToyBackbone, got a catalogue of 50"):
        rsir.enrich(data, ToyBackbone(9))

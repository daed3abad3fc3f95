"""The item-kNN's vote beside networks: its scores by a loop, its weight, and runs that recommend with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import rsir
from rsir.cli.main import main
from rsir.config import ItemKnnConfig
from rsir.data import Sequences, leave_one_out
from rsir.errors import BackboneError
from rsir.evaluation import evaluate, recommend
from rsir.models import ItemKnn, WithItemKnn
from rsir.models.itemknn import network_of
from rsir.training import voting
from rsir.training.voting import ranks_by_weight, vote_weight
from tests.harness.toys import ToyBackbone

SMALL: dict[str, Any] = {
    "rounds": 1,
    "model": {"dim": 8, "layers": 1, "heads": 1, "feedforward": 8},
    "training": {"max_evaluations": 1},
    "fidelity": {"tau": 10},
    "simulation": {"num_users": 80, "num_items": 50, "order": 0},  # where the first round is the best
}


def _data(num_items: int = 40) -> Sequences:
    rng = np.random.default_rng(5)
    return Sequences.from_lists([rng.choice(num_items, rng.integers(3, 9), False) + 1 for _ in range(60)], num_items)


@pytest.mark.parametrize("weight", [0.5, 4.0])
def test_scores_are_logits_and_weighted_logarithms_of_shares(weight: float) -> None:
    data = _data()
    network, knn = ToyBackbone(40), ItemKnn.fit(data)
    found = recommend(WithItemKnn(network, knn, weight), data.lists, 40, exclude_history=False)
    shares = knn.shares(data.items, data.offsets)
    for row in range(len(data)):
        history = torch.from_numpy(data[row].astype(np.int64))[None]
        scores = (network.item_embeddings() @ network.encode(history, torch.tensor([len(data[row])]))[0]).numpy()
        entries = slice(shares.offsets[row], shares.offsets[row + 1])
        share = np.zeros(41)
        share[shares.ids[entries]] = shares.values[entries]
        scores = scores + weight * np.log((share + 1e-4) / 1e-4)
        best = np.argsort(-scores[1:], kind="stable") + 1
        assert found.logits[row].numpy() == pytest.approx(scores[best], rel=1e-5, abs=1e-5)
        assert found.ids[row].numpy() == pytest.approx(best)


def test_the_weight_is_that_of_the_best_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = leave_one_out(_data())
    network, knn = ToyBackbone(40), ItemKnn.fit(parts.train)
    models = {weight: WithItemKnn(network, knn, weight) if weight else network for weight in voting.WEIGHTS}
    values = {weight: evaluate(model, parts.validation).metrics["ndcg@20"] for weight, model in models.items()}
    assert len(set(values.values())) > 1
    best = vote_weight(network, knn, parts.validation)
    assert values[best] == max(values.values())
    monkeypatch.setattr(voting, "WEIGHTS", (0.0,))
    assert vote_weight(network, knn, parts.validation) == 0


@pytest.mark.parametrize("repeats", ["excluded", "included", "targets"])
@pytest.mark.parametrize("tasks_at_once", [4096, 7])
def test_ranks_by_weight_are_those_of_an_evaluation_with_each(
    repeats: str, tasks_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voting, "_TASKS", tasks_at_once)
    data = _data(30)
    validation = leave_one_out(data).validation
    targets, histories = validation.targets.copy(), validation.histories
    targets[::5] = histories.values[histories.offsets[:-1:5]]  # had before
    validation = replace(validation, targets=targets, repeats=repeats)
    knn = ItemKnn.fit(leave_one_out(data).train, ItemKnnConfig(listed=6))  # targets that are listed and that are not
    network = ToyBackbone(30)
    with torch.no_grad():
        network.item_embeddings()[11:21] = network.item_embeddings()[1:11]  # ties
    found = ranks_by_weight(network, knn, validation)
    for weight, ranks in zip(voting.WEIGHTS, found, strict=True):
        model = WithItemKnn(network, knn, weight) if weight else network
        assert ranks.tolist() == evaluate(model, validation).ranks.tolist()
    assert len(np.unique(found, axis=0)) > 3
    assert (found > 0).any()
    assert (found == 0).any()


def test_a_count_of_another_catalogue_is_refused() -> None:
    with pytest.raises(BackboneError, match="expected a count of 30 items as the network has, got one of 40"):
        WithItemKnn(ToyBackbone(30), ItemKnn.fit(_data()), 1.0)


def test_a_run_with_a_vote_comes_back_from_its_folder_and_recommends_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voting, "WEIGHTS", (0.5,))  # so that it votes, whatever a network so small is worth
    run = rsir.run(out=tmp_path / "run", **SMALL)  # it votes by default
    kept_in_memory = rsir.run(itemknn={"vote": "auto"}, **SMALL)
    again = rsir.load(tmp_path / "run")
    assert [result.vote for result in run.rounds] == [0.5, 0.5]
    labels = run.data.item_labels.to_pylist()
    users = [[labels[item - 1] for item in run.data[row]] for row in range(10)]
    for other in (run, kept_in_memory, again):
        assert isinstance(other.model, WithItemKnn)
        assert rsir.evaluate(other).metrics == run.rounds[run.best].test
        assert rsir.evaluate(other, part="validation").metrics == run.rounds[run.best].validation
        assert other.recommend(users, 5) == run.recommend(users, 5)
    assert main(["recommend", str(tmp_path / "run"), "--out", str(tmp_path / "best.parquet"), "--k", "5"]) == 0
    table = pq.read_table(tmp_path / "best.parquet")
    assert table["item_id"].to_pylist()[:50] == [item for row in run.recommend(users, 5) for item in row]
    without = rsir.run(itemknn={"vote": "off"}, **SMALL)  # the same networks, as these alone generate and teach
    assert network_of(without.model) is without.model
    assert [result.alone for result in without.rounds][1:] == [result.alone for result in run.rounds][1:]
    assert run.rounds[0].alone == without.rounds[0].validation
    single = rsir.run(itemknn={"vote": "off"}, retention="none", **SMALL)  # networks alone recommend
    assert run.rounds[1].alone_against_base == single.rounds[1].against_base == single.rounds[1].alone_against_base
    assert run.rounds[1].against_base != single.rounds[1].against_base
    assert run.rounds[0].alone_against_base == {}
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "items.faiss")]) == 0
    assert "the item-kNN, which votes beside them, is left out" in capsys.readouterr().out


def test_a_run_with_a_vote_can_be_resumed(tmp_path: Path) -> None:
    whole = rsir.run(out=tmp_path / "whole", **SMALL)
    rsir.run(out=tmp_path / "parts", **{**SMALL, "rounds": 0})
    rsir.run(out=tmp_path / "parts", resume=True, rounds=1)
    for name in ("metrics.jsonl", "baselines.json", "round-01/model.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.rounds[1].against_base


def test_the_recommender_teaches_with_its_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voting, "WEIGHTS", (0.5,))
    runs = [
        rsir.run(**SMALL, itemknn={"search": "off"}, distillation={"share": 0.5, "teacher": teacher, "temperature": 2})
        for teacher in ("generator", "recommender", "recommender")
    ]
    weights = [network_of(run.model).item_embeddings().detach() for run in runs]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])


def test_the_count_teaches_the_base() -> None:
    alike = {**SMALL, "rounds": 0}
    taught, again, plain = (
        rsir.run(**alike, distillation={"share": share, "teacher": "itemknn"}) for share in (0.5, 0.5, 0.0)
    )
    weights = [run.model.item_embeddings().detach() for run in (taught, again, plain)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])

"""The adapter against RecTools itself, where it is installed."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch

from rsir.adapters import from_rectools
from rsir.data import leave_one_out, to_table
from rsir.data.ragged import Ragged
from rsir.errors import BackboneError
from tests.adapters.contract import check, log

rectools = pytest.importorskip("rectools")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.peers]


def fitted(data, kind="SASRecModel", **settings):
    """A SASRec of RecTools, or another transformer, one epoch."""
    import pandas as pd
    from pytorch_lightning import Trainer
    from rectools import Columns, models
    from rectools.dataset import Dataset

    frame = to_table(data).to_pandas().rename(columns={"user_id": Columns.User, "item_id": Columns.Item})
    seconds = range(len(frame)) if data.times is None else data.times
    frame[Columns.Weight], frame[Columns.Datetime] = (
        1.0,
        pd.Timestamp("2020-01-01") + pd.to_timedelta(seconds, unit="s"),
    )
    frame = frame[[Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]]
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
    model = getattr(models, kind)(
        n_blocks=1,
        n_heads=2,
        n_factors=16,
        session_max_len=8,
        batch_size=16,
        deterministic=True,
        get_trainer_func=lambda: Trainer(max_epochs=1, min_epochs=1, accelerator="cpu", devices=1, **quiet),
        **settings,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.construct(frame)
        return model.fit(dataset), dataset


@pytest.mark.parametrize("distance", ["dot", "cosine"])
def test_adapter(distance):
    data = log()
    model, _ = fitted(data, similarity_module_kwargs={"distance": distance})

    def own_scores(history):
        """The library's network on a history padded as the library does."""
        ids = model.data_preparator.item_id_map.convert_to_internal(history)
        x = torch.zeros(1, 8, dtype=torch.int64)
        x[0, -len(ids) :] = torch.from_numpy(ids[-8:])
        logits = model.torch_model({"x": x})[0, -1]
        externals = model.data_preparator.item_id_map.get_external_sorted_by_internal()
        return dict(zip(externals[1:], logits[1:].tolist(), strict=True))

    check(from_rectools(model), data, own_scores)


def test_recommends_what_the_library_recommends():
    from rsir.evaluation import recommend

    data = log()
    model, dataset = fitted(data)
    adapter = from_rectools(model)
    theirs = model.recommend(users=["u3", "u50"], dataset=dataset, k=5, filter_viewed=True)
    aligned = adapter.align(data)
    for user, row in (("u3", 3), ("u50", 50)):
        best = recommend(adapter, Ragged.from_lists([aligned[row]]), 5).ids[0]
        ours = [adapter.item_labels[int(i) - 1].as_py() for i in best]
        assert ours == theirs[theirs["user_id"] == user]["item_id"].tolist()


def test_hstu_with_its_default_attends_to_times():
    """Relative time attention: after the same items at the same times it recommends what the library does."""
    import numpy as np
    import pandas as pd

    from rsir.config import FidelityConfig
    from rsir.data.ragged import Timed
    from rsir.evaluation import evaluate, recommend
    from rsir.generation.enrich import enrich
    from rsir.models import encode_sequences

    plain = log()
    gaps = np.random.default_rng(0).integers(1, 10**6, plain.num_interactions)
    data = dataclasses.replace(plain, times=np.cumsum(gaps))
    model, dataset = fitted(data, "HSTUModel")
    adapter = from_rectools(model)
    assert adapter.uses_times
    aligned, now = adapter.align(data), int(data.times.max()) + 10**6
    asked = pd.DataFrame(
        {"user_id": ["u3", "u50"], "datetime": pd.Timestamp("2020-01-01") + pd.to_timedelta([now] * 2, "s")}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model.recommend(users=["u3", "u50"], dataset=dataset, k=5, filter_viewed=True, context=asked)
    for user, row in (("u3", 3), ("u50", 50)):
        a, b = aligned.offsets[row : row + 2]
        history = Timed(aligned.items[a:b], np.array([0, b - a]), aligned.times[a:b], np.array([now]))
        best = recommend(adapter, history, 5).ids[0]
        ours = [adapter.item_labels[int(i) - 1].as_py() for i in best]
        assert ours == theirs[theirs["user_id"] == user]["item_id"].tolist()
        micros = dataclasses.replace(history, times=history.times * 10**6, asked=history.asked * 10**6)
        again = encode_sequences(from_rectools(model, per_second=10**6), micros)
        assert torch.equal(again, encode_sequences(adapter, history))
    assert 0 <= evaluate(adapter, leave_one_out(aligned).test).metrics["ndcg@10"] <= 1
    enriched = enrich(leave_one_out(aligned).train, adapter, fidelity=FidelityConfig(policy="off"))
    assert len(enriched) > len(aligned)
    assert enriched.times is not None
    assert recommend(adapter, Ragged.from_lists([[1, 2]]), 3).ids.shape == (1, 3)  # without times
    with pytest.raises(BackboneError, match=r"per_second: expected a whole number of at least 1, got 0\.5"):
        from_rectools(model, per_second=0.5)


def test_its_metrics_of_our_recommendations(tmp_path):
    """Recall and NDCG of a run's recommendations, written as Parquet, are what the run says of them."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from rectools.metrics import NDCG, Recall, calc_metrics

    from rsir.config import SimulationConfig
    from rsir.data import simulate
    from rsir.recursion.loop import recurse
    from tests.harness.small import ON_DATA as SMALL

    data = simulate(SimulationConfig(num_users=80, num_items=50, mean_length=7)).sequences
    data = dataclasses.replace(data, item_labels=pa.array([f"item {row}" for row in range(50)]))
    run = recurse(dataclasses.replace(SMALL, rounds=0), data=data)
    test, names = leave_one_out(run.data).test, np.array(run.data.item_labels.to_pylist())
    found = run.recommend([names[test.histories[row] - 1].tolist() for row in range(len(test))], k=10)
    found.table().to_pandas().to_parquet(tmp_path / "top.parquet")
    reco = pd.read_parquet(tmp_path / "top.parquet").rename(columns={"history": "user_id"})
    held_out = pd.DataFrame({"user_id": np.arange(len(test)), "item_id": names[test.targets - 1]})
    metrics = {"recall@10": Recall(k=10), "ndcg@10": NDCG(k=10, divide_by_achievable=True)}
    theirs = calc_metrics(metrics, reco, held_out)
    ours = run.rounds[0].test
    assert ours["recall@10"] > 0
    assert theirs == pytest.approx({name: ours[name] for name in metrics}, rel=1e-9)


def test_what_is_not_fitted():
    from rectools.models import BERT4RecModel, SASRecModel

    with pytest.raises(BackboneError, match="expected a fitted model of RecTools"):
        from_rectools(SASRecModel())
    with pytest.raises(BackboneError, match="expected a fitted model"):
        from_rectools(BERT4RecModel())


def test_the_example_runs(capsys):
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[2] / "docs" / "examples" / "rectools_improves.py"
    spec = importlib.util.spec_from_file_location("rectools_improves", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--users=120", "--items=60", "--seeds=2", "--evaluations=2", "--epochs=1"])
    shown = capsys.readouterr().out
    assert "generated sequences beside 120 real ones" in shown
    assert "over 2 seeds" in shown

"""The public surface as a typed program uses it: mypy reads this file strictly, and it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import assert_type

import rsir
from rsir.config import FidelityConfig, ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig, from_dict
from rsir.data import EvaluationSet, Sequences, Split, from_frame, leave_one_out, read, simulate, to_table, write
from rsir.datasets import DATASETS, Dataset, fetch
from rsir.evaluation import Evaluation, PairedTest, evaluate, paired_test
from rsir.models import Backbone, build, names
from rsir.ops import TopK, topk
from rsir.recursion.loop import recurse
from rsir.runs.results import Run, enriched
from rsir.runs.rounds import RoundResult
from rsir.serving.output import Recommendations


class Mine:
    """A model of one's own, with nothing but what the protocol asks for."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table
        self.num_items = len(table) - 1
        self.max_len = 50

    def encode(self, items: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.table[items].sum(1) / lengths[:, None]

    def item_embeddings(self) -> torch.Tensor:
        return self.table


def test_data_and_models(tmp_path: Path) -> None:
    data = simulate(SimulationConfig(num_users=40, num_items=30)).sequences
    assert_type(data, Sequences)
    assert_type(data.items, npt.NDArray[np.int32])
    assert_type(data.times, npt.NDArray[np.int64] | None)
    write(data, tmp_path / "log.csv")
    assert_type(read(tmp_path / "log.csv"), Sequences)
    assert_type(from_frame(to_table(data)), Sequences)
    parts = leave_one_out(data)
    assert_type(parts, Split)
    assert_type(parts.validation, EvaluationSet)

    model: Backbone = Mine(torch.randn(data.num_items + 1, 8, generator=torch.Generator().manual_seed(0)))
    assert_type(rsir.enrich(parts.train, model, fidelity=FidelityConfig(tau=10)), Sequences)
    result = evaluate(model, parts.validation)
    assert_type(result, Evaluation)
    assert_type(result.metrics, dict[str, float])
    assert_type(paired_test(result.gains("ndcg@10"), result.gains("ndcg@10")), PairedTest)
    assert_type(names(), list[str])
    assert_type(topk(torch.randn(2, 8), model.item_embeddings(), k=3), TopK)
    assert_type(DATASETS, dict[str, Dataset])
    assert callable(fetch)
    assert callable(build)


def test_a_run(tmp_path: Path) -> None:
    config = from_dict(RecursionConfig, {"rounds": 1, "simulation": {"num_users": 40, "num_items": 30}})
    assert_type(config, RecursionConfig)
    small = RecursionConfig(
        rounds=1,
        simulation=config.simulation,
        model=ModelConfig(dim=8, layers=1, heads=1, feedforward=8),
        training=TrainingConfig(max_evaluations=1),
        fidelity=FidelityConfig(tau=5),
    )
    run = recurse(small, out=tmp_path / "run")
    assert_type(run, Run)
    assert_type(run.rounds, list[RoundResult])
    assert_type(run.rounds[0].validation, dict[str, float])
    assert_type(run.recommend([["a", "b"]][:0], k=3), Recommendations)
    assert_type(rsir.load(tmp_path / "run"), Run)
    assert_type(rsir.run(small, rounds=0), Run)
    assert_type(rsir.evaluate(run), Evaluation)
    assert_type(enriched(run, 1), Sequences)

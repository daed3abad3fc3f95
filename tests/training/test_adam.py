"""Adam on the item table: whole, and by rows for a large catalogue, which is here lowered to the toy one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rsir.config import ModelConfig, TrainingConfig
from rsir.data import Sequences, Split, leave_one_out
from rsir.errors import Interrupted
from rsir.metrics import CRITERION
from rsir.models import build
from rsir.runtime import resume
from rsir.runtime.resume import Checkpointer
from rsir.runtime.runtime import Runtime
from rsir.training import adam
from rsir.training.adam import TableAdam, table_adam
from rsir.training.fit import Trained, fit

MODEL = ModelConfig(dim=16, feedforward=16, max_len=10, dropout=0.2)
SETTINGS = TrainingConfig(
    batch_size=8, negatives=5, learning_rate=5e-3, evaluate_every=6, patience=2, max_evaluations=2
)
ITEMS = 400


@pytest.fixture(scope="module")
def parts() -> Split:
    generator = np.random.default_rng(0)
    rows = [generator.integers(1, ITEMS + 1, generator.integers(4, 12)) for _ in range(60)]
    return leave_one_out(Sequences.from_lists(rows, ITEMS))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adam, "_LARGE_CATALOGUE", 100)


def train(
    parts: Split, model: str = "sasrec", ema: float = 0.3, schedule: str = "constant", **options: object
) -> Trained:
    config, settings = dataclasses.replace(MODEL, name=model), dataclasses.replace(SETTINGS, ema=ema, schedule=schedule)
    return fit(config, settings, parts.train, parts.validation, seed=3, **options)


def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's Adam step everything."""
    monkeypatch.setattr("rsir.training.loop.table_adam", lambda *_: None)


@pytest.mark.parametrize("large", [50_000, 100])
@pytest.mark.parametrize(("model", "ema"), [("sasrec", 0.0), ("sasrec", 0.3), ("cl4srec", 0.999), ("gru4rec", 0.3)])
def test_ends_where_the_adam_of_torch_would(
    parts: Split, model: str, ema: float, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        by_torch(patch)
        expected = train(parts, model, ema)
    monkeypatch.setattr(adam, "_LARGE_CATALOGUE", large)
    taken: list[bool] = []
    step = TableAdam.step

    def counted(self: TableAdam) -> None:
        step(self)
        taken.append(self._lazy)

    monkeypatch.setattr(TableAdam, "step", counted)
    found = train(parts, model, ema)
    assert taken == [large == 100] * 12
    weights = expected.model.state_dict()
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=1e-3 * SETTINGS.learning_rate)
    assert found.best.metrics[CRITERION] == pytest.approx(expected.best.metrics[CRITERION], abs=1e-6)
    assert not found.model.items.sparse
    assert found.model.items.padding_idx == 0
    assert not found.model.items._forward_pre_hooks
    storages = [value.untyped_storage() for value in found.model.parameters()]
    assert all(each.nbytes() == value.nbytes for each, value in zip(storages, found.model.parameters(), strict=True))


def test_a_rate_that_falls_steps_all_rows(parts: Split, large: None) -> None:
    for schedule, lazy in (("constant", True), ("cosine", False)):
        settings = dataclasses.replace(SETTINGS, schedule=schedule)
        stepping = table_adam(build(MODEL, ITEMS, seed=0), settings, 1)
        assert stepping is not None
        assert stepping._lazy == lazy


def test_any_number_of_threads_gives_the_same_bits(parts: Split, large: None) -> None:
    before, weights = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            weights.append(train(parts).model.state_dict())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_training_that_stopped_after_every_step_ends_with_the_same_bits(
    parts: Split, large: None, schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(parts, schedule=schedule)
    monkeypatch.setattr(resume, "EVERY", 0.0)
    folder = tmp_path / "round-00" / "partial"
    folder.mkdir(parents=True)
    for _ in range(12):
        saved = Checkpointer(folder, lambda *_, **__: None)
        with pytest.raises(Interrupted):
            train(parts, schedule=schedule, checkpointer=saved, runtime=Runtime(stop=lambda: True))
    resumed = train(parts, schedule=schedule, checkpointer=Checkpointer(folder, lambda *_, **__: None))
    assert resumed.history[-1].loss == expected.history[-1].loss
    found = resumed.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.model.state_dict().items())


def test_whom_it_suits(large: None) -> None:
    def lazy(model: object, settings: TrainingConfig = SETTINGS) -> bool | None:
        stepping = table_adam(model, settings, 1)
        return None if stepping is None else stepping._lazy

    assert lazy(build(MODEL, ITEMS, seed=0)) is True
    assert lazy(build(MODEL, ITEMS, seed=0), dataclasses.replace(SETTINGS, negatives=ITEMS // 2)) is False
    assert lazy(build(MODEL, 50, seed=0)) is False
    assert lazy(build(MODEL, ITEMS, seed=0).double()) is None
    assert lazy(torch.nn.Linear(1, 1)) is None


def test_a_loss_that_reads_the_table_in_another_way_is_for_a_small_one() -> None:
    def loss(model: torch.nn.Module) -> torch.Tensor:
        return model.items(torch.tensor([1])).sum() + (model.items.weight * 2).sum()

    model = build(MODEL, ITEMS, seed=0)
    stepping = TableAdam(model, 1e-3, 1, 0.0, lazy=True)
    loss(model).backward()
    with pytest.raises(ValueError, match="item_table: the loss read this model's item embeddings in another way"):
        stepping.step()
    model, same = build(MODEL, ITEMS, seed=0), build(MODEL, ITEMS, seed=0)
    stepping, expected = TableAdam(model, 1e-3, 1, 0.0, lazy=False), torch.optim.Adam(same.parameters(), lr=1e-3)
    for each, by in ((model, stepping), (same, expected)):
        loss(each).backward()
        by.step()
    torch.testing.assert_close(model.items.weight[1:], same.items.weight[1:])
    assert not model.items.weight[0].any()

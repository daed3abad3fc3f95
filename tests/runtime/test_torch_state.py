"""What a caller has set in torch changes nothing of what rsir computes, and is in force again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import rsir
from rsir.models import checkpoint

SETTINGS: dict[str, Any] = {
    "rounds": 1,
    "simulation": {"num_users": 60, "num_items": 40},
    "model": {"dim": 8, "layers": 1, "heads": 1, "feedforward": 8},
    "training": {"max_evaluations": 1},
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "meta device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def state() -> tuple[object, ...]:
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    return *modes, torch.get_default_dtype(), torch.get_default_device()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return rsir.run(out=tmp_path_factory.mktemp("plain") / "run", **SETTINGS)


@pytest.mark.parametrize("name", STATES)
def test_a_run_is_the_same_in_any_state_of_torch(plain: Any, tmp_path: Path, name: str) -> None:
    histories = [plain.data.item_labels.to_pylist()[:3]]
    with STATES[name]():
        before = state()
        run = rsir.run(out=tmp_path / "run", **SETTINGS)
        loaded = rsir.load(tmp_path / "run")
        model = checkpoint.load(tmp_path / "run" / f"round-{run.best:02d}")
        metrics, best = rsir.evaluate(loaded).metrics, loaded.recommend(histories, 5)
        assert state() == before
    assert [result.validation for result in run.rounds] == [result.validation for result in plain.rounds]
    assert metrics == rsir.evaluate(plain).metrics
    assert best == plain.recommend(histories, 5)
    for key, value in checkpoint.load(plain.path / f"round-{plain.best:02d}").state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_sequences_are_enriched_in_any_state_of_torch(plain: Any) -> None:
    expected = rsir.enrich(plain.data, plain.model)
    for enter in STATES.values():
        with enter():
            assert rsir.enrich(plain.data, plain.model).fingerprint() == expected.fingerprint()

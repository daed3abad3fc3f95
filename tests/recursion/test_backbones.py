"""Each backbone in training, and in a whole run of the command line, on simulated users."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rsir.cli.main import main
from rsir.config import ModelConfig, SimulationConfig, TrainingConfig
from rsir.data import leave_one_out, simulate
from rsir.models import checkpoint, names
from rsir.training.fit import fit

TINY = """
rounds: 1
simulation: {num_users: 80, num_items: 40, mean_length: 6}
model: {dim: 8, layers: 1, feedforward: 8, max_len: 10}
training: {batch_size: 32, negatives: 16, max_evaluations: 2, learning_rate: 0.01}
generation: {m: 2}
fidelity: {tau: 10}
"""


@pytest.mark.parametrize("name", names())
def test_every_backbone_recurses(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(TINY)
    arguments = ["--model", name, "--config", str(settings), "--out", str(tmp_path / "run"), "--threads", "1"]
    assert main(arguments) == 0
    assert "round 1:" in capsys.readouterr().err
    for number in (0, 1):
        assert checkpoint.load(tmp_path / "run" / f"round-{number:02d}").config.name == name


@pytest.mark.parametrize("name", names())
def test_every_backbone_trains_to_the_same_bits_on_any_number_of_threads(name: str) -> None:
    parts = leave_one_out(simulate(SimulationConfig(num_users=80, num_items=40, mean_length=6)).sequences)
    model = ModelConfig(dim=16, feedforward=16, max_len=10).for_backbone(name)
    training = TrainingConfig(max_evaluations=2, batch_size=32, negatives=16)
    before = torch.get_num_threads()
    weights = []
    try:
        for threads, seed in ((1, 1), (2, 1), (1, 2)):
            torch.set_num_threads(threads)
            fitted = fit(model, training, parts.train, parts.validation, seed=seed).model
            weights.append(torch.cat([value.flatten() for value in fitted.state_dict().values()]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])

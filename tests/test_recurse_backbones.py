"""A whole run of the command line with each backbone, on simulated users."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.models import checkpoint, names
from rsir.recurse import main

TINY = """
rounds: 1
simulation: {num_users: 80, num_items: 40, mean_length: 6}
model: {dim: 8, layers: 1, feedforward: 8, max_len: 10}
training: {batch_size: 32, negatives: 16, max_evaluations: 2, learning_rate: 0.01}
generation: {m: 2}
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

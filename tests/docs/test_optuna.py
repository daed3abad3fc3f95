"""The example of a search by Optuna, where that is installed."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from rsir.data import Sequences

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_optuna() -> None:
    pytest.importorskip("optuna")
    search = runpy.run_path(str(EXAMPLES / "optuna_search.py"))["search"]
    data = Sequences.from_lists([[(user + step) % 25 + 1 for step in range(6)] for user in range(40)])
    short = {"training.max_evaluations": 1, "fidelity.tau": 10, "rounds": 0}
    study = search(data, trials=2, **short)
    assert len(study.trials) == 2
    assert 0 <= study.best_value <= 1
    assert set(study.best_params) == {"generation.p", "fidelity.tau", "model.dropout"}

"""A log with times, and what of it comes in a week after the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rsir.config import SimulationConfig
from rsir.data.simulate import simulate


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    made = simulate(SimulationConfig(num_users=80, num_items=50, mean_length=7)).sequences
    users = np.repeat(np.arange(len(made)), made.lengths)
    return pd.DataFrame(
        {"user": [f"u{one}" for one in users], "item": [f"i{one}" for one in made.items], "time": made.times}
    )


@pytest.fixture(scope="module")
def weeks(log: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    early = log.time <= log.time.quantile(0.8)
    return log[early & ~log.item.isin(["i3", "i9"])], log[~early]

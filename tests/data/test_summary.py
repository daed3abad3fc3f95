"""The line that says what was read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir.config import DataConfig, RecursionConfig, SimulationConfig
from rsir.data import Sequences, leave_one_out
from rsir.data.load import load_log
from rsir.data.ragged import Ragged
from rsir.data.splits import EvaluationSet
from rsir.data.summary import known_share, summary
from rsir.errors import DataWarning


def said(config):
    data, reading = load_log(config)
    return summary(data, leave_one_out(data), reading)


def test_a_file_with_everything(tmp_path):
    rows = [f"u{user},{item},{3 + (user == 1)},{time}" for user in range(4) for time, item in enumerate("abcab")]
    rows += ["u0,a,3,0", "u0,c,1,9", "NA,a,3,1", "u9,a,3,1", "u9,b,3,2,7"]
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating,time\n" + "\n".join(rows) + "\n")
    settings = DataConfig(path=str(path), on_bad_row="drop", min_rating=2, k_core=3)
    with pytest.warns(DataWarning) as notes:
        line = said(RecursionConfig(data=settings))
    assert len(notes) == 2  # bad rows, repeated events
    assert line == (
        f"{path} (csv: user 'user', item 'item', time 'time', rating 'rating'): 4 users, 3 items, 20 events; dropped 5 "
        "(1 without a user that can be read ('user'), 1 unlike the others (such as 'u9,b,3,2,7'), 1 rated below 2, "
        "1 repeating another, 1 outside of the 3-core); 4 users evaluated, who had 100% of their targets before; the "
        "largest user has 25% of the events"
    )


def test_what_has_no_columns(tmp_path):
    path = tmp_path / "toys.txt"
    path.write_text("1 2 3 4\n2 3 4 5\n")
    line = said(RecursionConfig(data=DataConfig(path=str(path))))
    assert line == (
        f"{path} (text): 2 users, 4 items, 6 events; 2 users evaluated, who had 0.0% of their targets before; the "
        "largest user has 50% of the events"
    )
    saved = tmp_path / "saved.parquet"
    data, _ = load_log(RecursionConfig(data=DataConfig(path=str(path))))
    data.save(saved)
    assert said(RecursionConfig(data=DataConfig(path=str(saved)))).startswith(
        f"{saved} (parquet of Sequences.save): 2 users, "
    )
    simulated = said(RecursionConfig(simulation=SimulationConfig(num_users=20, num_items=30)))
    assert simulated.startswith("simulated data: 20 users, ")
    assert summary(data, leave_one_out(data)).startswith("data: 2 users, ")


def test_nobody_evaluated():
    data = Sequences.from_lists([[1, 2], [2]], num_items=2)
    none = EvaluationSet(np.zeros(0, np.int64), Ragged.from_lists([]), np.zeros(0, np.int32))
    parts = type("Parts", (), {"test": none})
    assert known_share(none) == 0
    assert "evaluated" not in summary(data, parts)


@given(st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=9), min_size=1, max_size=9))
def test_the_known_share_is_that_of_a_loop(rows):
    tasks = leave_one_out(Sequences.from_lists(rows, num_items=6)).test
    assert known_share(tasks) == pytest.approx(np.mean([row[-1] in row[:-1] for row in rows]))

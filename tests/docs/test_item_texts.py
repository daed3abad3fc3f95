"""The example that embeds titles, where its embedder is installed."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import rsir
from rsir.data import Sequences

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_titles_that_say_the_same_are_near(tmp_path: Path) -> None:
    """Also of an item without an event, which then is recommended beside those that its title is like."""
    pytest.importorskip("wordllama")
    words = ["The Godfather", "Toy dinosaurs", "Wooden train track"]
    titles = [f"{words[item % 3]}, part {item}" for item in range(1, 31)]
    names = [f"f{item}" for item in range(1, 31)]
    csv, parquet = tmp_path / "titles.csv", tmp_path / "items.parquet"
    pyarrow.csv.write_csv(pa.table({"item": names, "title": titles}), csv)
    runpy.run_path(str(EXAMPLES / "item_texts.py"))["main"](str(csv), str(parquet))
    table = pq.read_table(parquet)
    vectors = np.array(table["vector"].to_pylist())
    alike = vectors @ vectors.T
    groups = np.arange(1, 31) % 3
    same = groups[:, None] == groups
    np.fill_diagonal(alike, np.nan)
    assert np.nanmin(np.where(same, alike, np.nan)) > np.nanmax(np.where(same, np.nan, alike))
    rng = np.random.default_rng(0)
    lists = [rng.permutation([item for item in range(1, 28) if item % 3 == user % 3])[:6] for user in range(60)]
    data = Sequences.from_lists(lists, 27, item_labels=pa.array(names[:27]))  # the last three have no event
    run = rsir.run(data=data, rounds=0, **{"data.items": str(parquet), "training.max_evaluations": 3})
    nearest = [item for item, _ in run.similar("f30", k=5)]
    assert sum(int(item[1:]) % 3 == 0 for item in nearest) >= 4


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_what_it_shows_without_files() -> None:
    pytest.importorskip("wordllama")
    demonstrate = runpy.run_path(str(EXAMPLES / "item_texts.py"))["demonstrate"]
    hit, chance = demonstrate(users=120, items=60, unseen=15, **{"training.max_evaluations": 4, "fidelity.tau": 10})
    assert 0 < chance < 1
    assert 0 < hit <= 1

"""The way back: frames for RecTools and atomic files for RecBole, and the libraries themselves where they are there."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import rsir
from rsir.data import Sequences
from rsir.errors import DataError

REAL = Sequences.from_lists(
    [[1, 2, 3], [3, 4]], 4, item_labels=pa.array(["a", "b", "c", "d"]), user_labels=pa.array(["u", "v"])
)
MADE = Sequences.from_lists([[3, 1]], 4, round=[1], source=[0])
ENRICHED = Sequences.concat(REAL, MADE)


def test_rectools_frame() -> None:
    frame = ENRICHED.to_rectools()
    assert list(frame.columns) == ["user_id", "item_id", "weight", "datetime"]
    lists = frame.sort_values("datetime", kind="stable").groupby("user_id")["item_id"].agg(list).to_dict()
    assert lists == {"u": ["a", "b", "c"], "v": ["c", "d"], "u~2": ["c", "a"]}
    timed = dataclasses.replace(REAL, times=np.array([10, 20, 30, 5, 6]))
    assert timed.to_rectools()["datetime"].iloc[1] == pd.Timestamp(20, unit="s")
    nanoseconds = dataclasses.replace(REAL, times=np.array([10, 20, 30, 5, 6]) * 10**17)
    assert nanoseconds.to_rectools()["datetime"].iloc[1] == pd.Timestamp("2000-01-01 00:00:01")


def test_recbole_files(tmp_path: Path) -> None:
    settings = ENRICHED.to_recbole(tmp_path / "recbole", "shop")
    assert settings["data_path"] == str(tmp_path / "recbole")
    assert settings["dataset"] == "shop"
    path = tmp_path / "recbole" / "shop" / "shop.inter"
    assert path.read_text().startswith("user_id:token\titem_id:token\ttimestamp:float")
    again = rsir.read(path)
    lists = {
        user: [again.item_labels[item - 1].as_py() for item in again[row]]
        for row, user in enumerate(again.user_labels.to_pylist())
    }
    assert lists == {"u": ["a", "b", "c"], "v": ["c", "d"], "u~2": ["c", "a"]}
    with pytest.raises(DataError, match="name: expected a name for a folder and a file"):
        ENRICHED.to_recbole(tmp_path, "../x")


@pytest.mark.peers
def test_rectools_takes_it() -> None:
    pytest.importorskip("rectools")
    from rectools.dataset import Dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.construct(ENRICHED.to_rectools())
    assert dataset.user_id_map.size == 3
    assert dataset.item_id_map.size == 4
    assert len(dataset.interactions.df) == 7


@pytest.mark.peers
def test_recbole_takes_it(tmp_path: Path) -> None:
    pytest.importorskip("recbole")
    from recbole.config import Config
    from recbole.data import create_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = Config(model="SASRec", config_dict={**ENRICHED.to_recbole(tmp_path), "train_neg_sample_args": None})
        dataset = create_dataset(config)
    assert dataset.item_num == 5
    assert dataset.inter_num == 7

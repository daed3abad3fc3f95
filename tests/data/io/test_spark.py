"""Spark's frames, where PySpark and a Java runtime are installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rsir

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime")
    settings = {"spark.ui.enabled": "false", "spark.driver.memory": "512m", "spark.sql.shuffle.partitions": "2"}
    session = sql.SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
    yield session
    session.stop()


def test_a_frame_of_spark_is_data(spark: Any, tmp_path: Path) -> None:
    """Itself, as an Arrow table, as a pandas frame, and as the folder that it writes: the same sequences."""
    rows = [(f"u{user}", f"i{(user + step) % 9}", 1000 * user + step) for user in range(30) for step in range(5)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    expected = rsir.from_frame(log)
    frame = spark.createDataFrame(log).repartition(3)
    for given in (frame, frame.toArrow(), frame.toPandas()):
        assert rsir.from_frame(given).fingerprint() == expected.fingerprint()
    frame.write.parquet(str(tmp_path / "events"))
    assert rsir.read(tmp_path / "events").fingerprint() == expected.fingerprint()
    run = rsir.run(data=frame, rounds=0, **{"training.max_evaluations": 1})
    assert run.data.fingerprint() == expected.fingerprint()

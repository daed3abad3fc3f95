"""Generation over files: the bytes of one process, whatever the workers, the files and what befell them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rsir.config import FidelityConfig, GenerationConfig, ModelConfig
from rsir.data import Sequences
from rsir.errors import ConfigError, DataError
from rsir.generation import generate
from rsir.generation.fidelity import build as build_policy
from rsir.integrations import ray as raydata
from rsir.models import build, checkpoint, pack_items

pytest.importorskip("fsspec")

GUIDE = Path(__file__).parents[2] / "docs" / "distributed.md"
ITEMS = 40
MODEL = ModelConfig(dim=8, heads=2, layers=1, feedforward=8, max_len=8)
SETTINGS = {"generation": GenerationConfig(m=3, k=4, start="prefix"), "fidelity": FidelityConfig(tau=15)}
COUNTS = ("decoded", "refused", "scanned", "scanned_refused", "too_short", "copies", "duplicates")


def some_data(rows: int = 60) -> Sequences:
    draw = np.random.default_rng(0)
    lists = [draw.integers(1, ITEMS + 1, draw.integers(0, 9)).tolist() for _ in range(rows)]
    return Sequences.from_lists(lists, ITEMS, item_labels=pa.array([f"i{k}" for k in range(ITEMS)]))


DATA = some_data()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    checkpoint.save(build(MODEL, ITEMS, seed=1), MODEL, folder)
    return str(folder)


@pytest.fixture(scope="module")
def expected(model: str) -> generate.Generated:
    own = checkpoint.load(model)
    policy = build_policy(SETTINGS["fidelity"], own.item_embeddings().detach(), 2)
    return generate.generate(own, DATA, SETTINGS["generation"], policy, seed=5, round_=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, logging_level="error", object_store_memory=80 * 1024**2)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def made(model: str, sources: str, out: str, item_table: Any = "float32") -> raydata._Worker:
    return raydata._Worker(model, sources, out, **SETTINGS, item_table=item_table, seed=5, round_=2, threads=1)


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_workers_write_what_one_process_generates(cluster: None, model: str, tmp_path: Path) -> None:
    """The code of the guide; then with a file missing, one damaged, and one that cannot be used."""
    shutil.copytree(model, tmp_path / "run" / "round-00")
    (code,) = re.findall(r"```py\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    for old, new in {
        "ray.init()": "",
        's3://bucket/sources")': f'file://{tmp_path}/sources", rows=13)',
        "s3://bucket": str(tmp_path),
        "workers=64": "workers=2",
    }.items():
        assert old in code
        code = code.replace(old, new)
    names: dict[str, Any] = {"data": DATA}
    exec(compile(code, GUIDE.name, "exec", dont_inherit=True), names)
    own = checkpoint.load(model)
    settings = {"generation": GenerationConfig(m=5), "fidelity": FidelityConfig(tau=10)}
    policy = build_policy(settings["fidelity"], own.item_embeddings().detach(), 1)
    expected = generate.generate(own, DATA, settings["generation"], policy, seed=0, round_=1)
    assert len(expected.trajectories) > 20
    assert names["trajectories"].to_bytes() == expected.trajectories.to_bytes()

    sources, out = tmp_path / "sources", tmp_path / "trajectories"
    before = files(out)
    assert len(before) == 10
    counts = [json.loads(content)["counts"] for name, content in before.items() if name.endswith(".json")]
    assert {name: sum(part[name] for part in counts) for name in COUNTS} == {
        name: getattr(expected.stats, name) for name in COUNTS
    }
    (out / "part-000001.parquet").unlink()
    damaged = bytearray(before["part-000003.parquet"])
    damaged[len(damaged) // 2] ^= 1
    (out / "part-000003.parquet").write_bytes(damaged)
    pq.write_table(pa.table({"source": [1], "items": [[ITEMS + 1]]}), sources / "bad.parquet")
    with pytest.raises(DataError, match=rf"bad\.parquet: .*{ITEMS + 1}"):
        raydata.generate(model, str(sources), str(out), **settings, workers=1)
    assert files(out) == before  # the others have been made


def test_the_files_may_be_anywhere_and_divided_in_any_way(model: str, expected: generate.Generated) -> None:
    """In storage without renames, in one file and in rows that are not in order."""
    for name, rows in (("one", 60), ("few", 7)):
        sources, out = f"memory://{name}/sources", f"memory://{name}/out"
        assert raydata.scatter(DATA, sources, rows=rows) == -(-60 // rows)
        worker = made(model, sources, out)
        for file in raydata._names(sources):
            assert worker({"name": file})["error"] == ""
        assert raydata.gather(out, DATA).to_bytes() == expected.trajectories.to_bytes()
    order = np.random.default_rng(1).permutation(60)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"source": order, "items": [DATA[row].tolist() for row in order]}), sink)
    raydata._put("memory://mixed/sources/a.parquet", sink.getvalue().to_pybytes())
    made(model, "memory://mixed/sources", "memory://mixed/out")({"name": "a.parquet"})
    assert raydata.gather("memory://mixed/out", DATA).to_bytes() == expected.trajectories.to_bytes()


def test_half_precision_is_that_of_one_process(tmp_path: Path) -> None:
    """Of items that differ by less than half precision tells."""
    own = build(MODEL, ITEMS, seed=1).eval()
    with torch.no_grad():
        own.items.weight[1:] = 1 + 1e-4 * torch.randn(ITEMS, MODEL.dim, generator=torch.Generator().manual_seed(0))
    checkpoint.save(own, MODEL, tmp_path)
    raydata.scatter(DATA, "memory://half/sources", rows=60)
    made_of = {}
    for kept in ("float32", "float16"):
        table = pack_items(own, dtype=kept)
        policy = build_policy(SETTINGS["fidelity"], own.item_embeddings().detach(), 2, table)
        one = generate.generate(own, DATA, SETTINGS["generation"], policy, seed=5, round_=2, table=table)
        worker = made(str(tmp_path), "memory://half/sources", "memory://half/out", kept)  # the other's is not kept
        assert json.loads(worker({"name": "part-000000.parquet"})["counts"])["kept"] == 0
        made_of[kept] = raydata.gather("memory://half/out", DATA).to_bytes()
        assert made_of[kept] == one.trajectories.to_bytes()
    assert made_of["float32"] != made_of["float16"]


def test_other_settings_or_sources_make_a_file_again(model: str) -> None:
    raydata.scatter(DATA, "memory://again/sources")
    name = {"name": "part-000000.parquet"}

    def kept(worker: raydata._Worker) -> int:
        return json.loads(worker(name)["counts"])["kept"]

    worker = made(model, "memory://again/sources", "memory://again/out")
    assert [kept(worker), kept(worker)] == [0, 1]
    worker.made_from["seed"] = 6
    assert kept(worker) == 0
    raydata.scatter(DATA.select(np.arange(59)), "memory://again/sources")
    assert kept(worker) == 0


def test_a_file_whose_source_is_gone_is_named(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources in files of 13 rows, then of 30: the later files of the first time have trajectories of the same rows."""
    pytest.importorskip("ray.data")
    raydata.scatter(DATA, "memory://stale/sources", rows=13)
    worker = made(model, "memory://stale/sources", "memory://stale/out")
    for name in raydata._names("memory://stale/sources"):
        worker({"name": name})
    whole = raydata.gather("memory://stale/out", DATA)
    system, _ = raydata._storage("memory://stale")
    system.rm("/stale/sources", recursive=True)
    raydata.scatter(DATA, "memory://stale/sources", rows=30)
    with pytest.raises(DataError, match=r"stale/out/part-000002\.parquet: expected trajectories of the files"):
        raydata.generate(model, "memory://stale/sources", "memory://stale/out")
    for name in raydata._names("memory://stale/sources"):
        worker({"name": name})
    with pytest.raises(DataError, match=r"part-000002\.parquet: has trajectories of sequence \d+, as .*part-00000[01]"):
        raydata.gather("memory://stale/out", DATA)
    for number in (2, 3, 4):
        system.rm(f"/stale/out/part-00000{number}.parquet")
    assert raydata.gather("memory://stale/out", DATA).to_bytes() == whole.to_bytes()
    with pytest.raises(DataError, match=r"has trajectories of sequence \d+, and the data have 10"):
        raydata.gather("memory://stale/out", DATA.select(np.arange(10)))


def test_refuses(model: str) -> None:
    with pytest.raises(ConfigError, match=r"item_table: expected one of .*float16.*, got 'int8'"):
        raydata.generate(model, "memory://none", "memory://none", item_table="int8")
    with pytest.raises(DataError, match="rows: expected at least 1, got 0"):
        raydata.scatter(DATA, "memory://none", rows=0)
    with pytest.raises(DataError, match=r"memory://nothing: expected files NAME\.parquet, found none"):
        raydata.gather("memory://nothing", DATA)
    worker = made(model, "memory://wrong", "memory://out")
    for content, message in (
        (b"no", "expected Parquet with the columns source and items"),
        (_table({"source": [1]}), "expected Parquet with the columns source and items"),
        (_table({"source": [1, None], "items": [[1], [2]]}), "expected no nulls"),
        (_table({"source": [1], "items": [[1, None]]}), "expected no nulls"),
    ):
        raydata._put("memory://wrong/a.parquet", content)
        assert message in worker({"name": "a.parquet"})["error"]


def _table(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())

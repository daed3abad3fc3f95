"""Hostile files: nothing they hold is executed, nothing is written outside of a run, and memory stays bounded."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rsir import files
from rsir.cli.options import read_file
from rsir.config import DataConfig, RecursionConfig
from rsir.data import Sequences, read
from rsir.data.io import limits
from rsir.data.sequences import offsets_of
from rsir.errors import CheckpointError, ConfigError, DataError, RunError
from rsir.models import checkpoint
from rsir.runs.directory import RunDirectory
from rsir.runtime.resume import Checkpointer
from tests.harness import tiny

PACKAGE = Path(__file__).parents[1] / "rsir"
ERRORS = (RunError, DataError, CheckpointError, ConfigError)


# what the package's own text says


def lines(pattern: str) -> list[str]:
    """Lines of the package's modules that match, without comments."""
    code = (line.partition("#")[0] for path in PACKAGE.rglob("*.py") for line in path.read_text().splitlines())
    return [line.strip() for line in code if re.search(pattern, line)]


def test_nothing_is_unpickled_or_evaluated() -> None:
    words = r"\b(c?pickle|dill|joblib|shelve|marshal)\b|allow_pickle"
    assert [line for line in lines(words) if "allow_pickle=False" not in line] == []
    assert [
        line for line in lines(r"\btorch\.load\(") if "weights_only=True" not in line and "safetensors" not in line
    ] == []
    assert [line for line in lines(r"\byaml\.\w*load") if "BaseLoader" not in line and "SafeLoader" not in line] == []
    assert (
        lines(r"(^|[=(\[,:]\s*)(eval|exec|compile|__import__)\(|os\.system|shell=True|np\.load\(.*allow_pickle=True")
        == []
    )


# code in files


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with tiny.quiet():
        assert tiny.start(folder, resume=False) == 0
    return folder


@pytest.fixture
def run_path(run_of: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_of, tmp_path / "run"))


def partial_state(path: Path) -> None:
    assert list(Checkpointer(path.parent, lambda *_, **__: None).load("training")) == []


LOADERS: dict[str, Callable[[Path], object]] = {
    "run/round-01/model.safetensors": lambda path: checkpoint.load(path.parent),
    "run/round-01/model.json": lambda path: checkpoint.load(path.parent),
    "run/round-01/trajectories.parquet": Sequences.load,
    "run/round-01/metrics.json": lambda path: RunDirectory.open(path.parents[1]).finished_rounds(),
    "run/manifest.json": lambda path: RunDirectory.open(path.parent),
    "run/config.json": lambda path: RunDirectory.open(path.parent),
    "run/round-03/partial/training-000001": partial_state,
    "settings.yaml": lambda path: read_file(str(path)),
    "settings.json": lambda path: read_file(str(path)),
    **{f"data{suffix}": read for suffix in (".txt", ".csv", ".inter", ".parquet", ".arrow", ".pth", ".csv.gz")},
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_in_place_of_a_file_is_refused_and_not_executed(
    name: str, form: str, run_path: Path, tmp_path: Path
) -> None:
    path, marker = tmp_path / name, tmp_path / "executed"
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb(marker), protocol=2))
    else:
        torch.save({"weights": Bomb(marker)}, path)
    try:
        LOADERS[name](path)
    except ERRORS:
        pass
    else:
        assert "partial" in name
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()  # the bomb is one


@pytest.mark.parametrize(
    "text",
    [
        "seed: !!python/object/apply:os.system ['touch executed']",
        "!!python/object/apply:os.system ['touch executed']",
        "seed: !!python/name:os.system",
        "generation: !!python/object/new:os.system [touch executed]",
        "data: {path: !!python/object/apply:os.getcwd []}",
    ],
)
def test_yaml_tags_construct_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsir.cli.options import configuration

    monkeypatch.chdir(tmp_path)
    Path("settings.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.yaml"):
        configuration(RecursionConfig(), "settings.yaml", {})
    assert sorted(os.listdir()) == ["settings.yaml"]


# more than there is


def grown(work: Callable[[], object]) -> int:
    """By how many bytes some work raises this process's highest memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def refused(load: Callable[[], object], message: str) -> None:
    with pytest.raises(ERRORS, match=message):
        load()


def test_aliases_in_yaml_do_not_multiply(tmp_path: Path) -> None:
    levels = "\n".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12))
    path = tmp_path / "settings.yaml"
    path.write_text(f"a0: &a0 lol\n{levels}\nrounds: *a11\n")
    assert grown(lambda: refused(lambda: read_file(str(path)), "unknown option")) < 2**27
    keys = f"seed: &a0 [1]\nrounds: &a1 [{', '.join(['*a0'] * 9)}]"
    path.write_text(f"{keys}\n")
    from rsir.cli.options import configuration

    refused(lambda: configuration(RecursionConfig(), str(path), {}), "expected int")


@pytest.mark.parametrize("columns", ["events", "sequences"])
def test_a_parquet_file_that_says_too_much_is_refused(columns: str, tmp_path: Path) -> None:
    """A few hundred kilobytes that are gigabytes of events."""
    path = tmp_path / "data.parquet"
    size = 60_000_000
    if columns == "events":
        column = pa.chunked_array([pa.array(np.ones(size // 20, np.int64))] * 20)
        pq.write_table(pa.table({"user_id": column, "item_id": column, "timestamp": column}), path)
        load: Callable[[], object] = lambda: read(path)  # noqa: E731
    else:
        whole = Sequences(items=np.ones(9, np.int32), offsets=offsets_of([9]), num_items=1).to_bytes("parquet")
        path.write_bytes(whole)
        metadata = {key: value for key, value in pq.read_metadata(path).metadata.items() if key.startswith(b"rsir")}
        numbers = pa.array(np.zeros(size, np.int64))
        table = pa.table({"source": numbers, "other": numbers, "third": numbers}).replace_schema_metadata(metadata)
        with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(metadata)
        del table, numbers
        load = lambda: Sequences.load(path)  # noqa: E731
    assert path.stat().st_size < 2_000_000
    assert grown(lambda: refused(load, r"data\.parquet: .*would take .* in memory")) < 2**28


@pytest.fixture
def lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may grow to 4 MiB."""
    monkeypatch.setattr(limits, "FLOOR", 2**22)


@pytest.mark.parametrize("name", ["data.txt.gz", "data.csv.gz", "data.inter.zst"])
def test_a_compressed_text_that_never_ends_is_refused(lower: None, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pa.output_stream(str(path), compression="detect") as file:
        file.write(b"user_id:token\titem_id:token\n" if ".inter" in name else b"user_id,item_id\n" * (".csv" in name))
        for _ in range(8):
            file.write(b"1 2 3 4 5 6 7 8\n" * 2**16)
    assert path.stat().st_size < 40_000
    refused(lambda: read(path), r"would take [45],\d+,\d+ bytes or more in memory")  # and no further


def test_a_zip_bomb_in_a_torch_file_is_refused(lower: None, tmp_path: Path) -> None:
    path, bomb = tmp_path / "data.pth", tmp_path / "bomb.pth"
    torch.save([[1, 2, 3]], path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            more = b"\0" * 2**24 if entry.filename.endswith("data.pkl") else b""
            target.writestr(entry.filename, source.read(entry) + more)
    assert bomb.stat().st_size < 40_000
    refused(lambda: read(bomb), r"would take .* in memory")


def test_a_torch_file_cannot_name_one_list_a_million_times(lower: None, tmp_path: Path) -> None:
    path = tmp_path / "data.pth"
    row = list(range(1, 5000))
    torch.save([row] * 5000, path)
    refused(lambda: read(path), r"would take 199,960,000 bytes or more in memory")


def test_an_arrow_file_that_points_outside_of_itself_is_refused(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2**30, 3], np.int32))
    users = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    path = tmp_path / "data.arrow"
    table = pa.table({"user_id": users, "item_id": ["a", "b", "c"]})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    refused(lambda: read(path), r"data\.arrow: cannot be read as arrow")


# names


def test_names_in_a_manifest_lead_nowhere_else(run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    manifest = json.loads((run_path / "manifest.json").read_text())
    entry = files.digest(tmp_path / "outside")
    for name in ("../../outside", "/etc/passwd", "..", "a/../../../outside"):
        changed = json.loads(json.dumps(manifest))
        del changed["checksum"]
        changed["rounds"]["round-01"][name] = entry
        changed["checksum"] = files.checksum(changed)
        (run_path / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(RunError, match=r"inside the run's folder|run/round-01/etc/passwd: is missing"):
            RunDirectory.open(run_path).finished_rounds()
    assert (tmp_path / "outside").read_text() == "mine"


def test_data_named_like_a_path_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsir.cli.run import _free_folder

    monkeypatch.chdir(tmp_path)
    for path in ("../../evil", "/etc/cron.d/evil", "..", "a/..;rm -rf x.csv", "."):
        folder = _free_folder(RecursionConfig(data=DataConfig(path=path)))
        assert folder.parent == Path("runs")
        assert (tmp_path / folder).resolve().parent == tmp_path / "runs"

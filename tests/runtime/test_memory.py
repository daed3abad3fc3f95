"""A limit on memory: what it refuses, what it gives back, and that nothing computed depends on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsir.cli import main as command
from rsir.config import FidelityConfig, GenerationConfig, ModelConfig, SimulationConfig
from rsir.data import Sequences, global_time, leave_one_out, simulate
from rsir.data.splits import EvaluationSet, Split
from rsir.errors import ConfigError, Interrupted
from rsir.generation import generate as generation
from rsir.generation.acquisition import novel_share
from rsir.generation.enrich import enrich
from rsir.generation.fidelity import build as build_policy
from rsir.generation.generate import Generated, generate
from rsir.models import build
from rsir.runtime import memory
from rsir.runtime.memory import BudgetExceeded
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpointer, Checkpoints
from rsir.runtime.runtime import Runtime, never
from tests.harness import tiny

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="a limit needs Linux")

SIMULATION = SimulationConfig(num_users=300, num_items=60, mean_length=8)
AMPLE = 2**36


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array of some bytes is large, and a block holds a few entries."""
    monkeypatch.setattr(memory, "_SMALL", 64)
    monkeypatch.setattr(memory, "_BLOCK", 100)


@pytest.fixture
def limit(small: None, tmp_path: Path) -> Iterator[memory.Budget]:
    with memory.memory_limit(AMPLE, tmp_path) as held:
        assert held is not None
        yield held


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 2**32), ("700 MiB", 700 * 2**20), ("1.5gib", 3 * 2**29), ("123", 123), (".5KiB", 512), ("2 TiB", 2**41)],
)
def test_sizes(text: str, size: int) -> None:
    assert memory.parse(text) == size


@pytest.mark.parametrize("text", ["", "lots", "4 GB", "-1GiB", "1e9", "GiB", "1..5MiB", "9" * 400 + "GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match=r"memory: expected a size such as 4GiB"):
        memory.parse(text)


def test_pages_are_given_back_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2**26
    with memory.memory_limit(AMPLE, tmp_path) as held:
        assert held is not None
        array = memory.empty(size, np.uint8)
        array[:] = np.arange(size, dtype=np.uint8)
        assert os.listdir(tmp_path) == []
        before = memory.resident()
        memory.release()
        assert memory.resident() > before - size / 4  # far from the limit nothing happens
        held.limit = before
        memory.release()
        assert memory.resident() < before - size / 2
        assert (array[:: 2**12] == 0).all()
        assert (array[255 :: 2**12] == 255).all()


def test_beyond_the_limit_it_goes_no_further(tmp_path: Path) -> None:
    with memory.memory_limit(AMPLE, tmp_path) as held:
        assert held is not None
        held.limit = memory.resident() // 2
        with pytest.raises(BudgetExceeded, match=r"the process takes .* over the limit of .* MiB"):
            memory.release()
    memory.release()
    assert memory.current() is None
    too_late = pytest.raises(ConfigError, match=r"memory: the process takes .* before it begins, got 1 MiB")
    with too_late, memory.memory_limit(2**20, tmp_path):
        pass
    assert memory.current() is None


def test_a_single_huge_allocation_is_refused_at_once(tmp_path: Path) -> None:
    with memory.memory_limit(memory.resident() + 2**28, tmp_path), pytest.raises(MemoryError):
        np.empty(2**33, np.uint8)
    assert np.empty(2**33, np.uint8).size == 2**33


def test_what_needs_how_much_is_named(tmp_path: Path) -> None:
    with memory.memory_limit(AMPLE, tmp_path) as held:
        assert held is not None
        assert 0 < held.left({"models": 2**20}) < AMPLE
        with pytest.raises(
            ConfigError, match=r"expected 7\d\.\d\d GiB or more \(.*, models 64\.00 GiB\), got 64\.00 GiB"
        ):
            held.left({"models": AMPLE})


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with memory.memory_limit(AMPLE, tmp_path), pytest.raises(ValueError, match=r"cannot be written: No space left"):
        memory.empty(2**21, np.uint8)
    assert os.listdir(tmp_path) == []


def tasks(part: EvaluationSet) -> list[bytes]:
    histories = part.histories
    return [array.tobytes() for array in (part.rows, histories.values, histories.offsets, part.targets)]


def everything(folder: Path) -> list[Any]:
    """What data comes to on its way to a training, in many steps."""
    folder.mkdir()
    data = simulate(SIMULATION).sequences
    found: list[Any] = [data.fingerprint(), data.to_bytes(), data.to_bytes("arrow")]
    for name in ("data.parquet", "data.arrow"):
        data.save(folder / name)
        assert (folder / name).read_bytes() == data.to_bytes(name.partition(".")[2])  # type: ignore[arg-type]
        data = Sequences.load(folder / name)
        found.append(data.fingerprint())
    for parts in (leave_one_out(data), global_time(data)):
        found += [parts.train.fingerprint(), *tasks(parts.validation), *tasks(parts.test)]
    some = data.select(np.arange(299, 100, -2))
    made = Sequences(
        items=some.items,
        offsets=some.offsets,
        num_items=60,
        round=np.ones(100, np.int16),
        source=np.arange(100) * 7 % 300,
    )
    joined = Sequences.concat(made, parts.train, made.select(np.arange(3)))
    return [*found, some.fingerprint(), joined.fingerprint(), novel_share(made, parts.train)]


def test_data_are_the_same_within_a_limit(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mapped"
    folder.mkdir()
    with memory.memory_limit(AMPLE, folder) as held:
        assert held is not None
        within = everything(tmp_path / "within")
        assert os.listdir(folder) == []
    monkeypatch.undo()
    assert everything(tmp_path / "without") == within


def test_an_arrow_file_is_used_where_it_lies(tmp_path: Path) -> None:
    data = simulate(SIMULATION).sequences
    data.save(tmp_path / "data.arrow")
    loaded = Sequences.load(tmp_path / "data.arrow")
    for name in ("items", "times", "source", "round"):
        base = getattr(loaded, name)
        while isinstance(base, np.ndarray):
            assert not base.flags.owndata
            base = base.base
    assert loaded.fingerprint() == data.fingerprint()


@pytest.fixture(scope="module")
def problem() -> tuple[Any, Split]:
    parts = leave_one_out(simulate(SIMULATION).sequences)
    return build(ModelConfig(dim=8, layers=1, feedforward=8, max_len=8), 60, seed=1).eval(), parts


def decode(
    problem: tuple[Any, Split], saved: Checkpoints = NO_CHECKPOINTS, stop: Callable[[], bool] = never
) -> Generated:
    model, parts = problem
    policy = build_policy(FidelityConfig(tau=25), model.item_embeddings().detach(), 1)
    config = GenerationConfig(m=3, k=2, slots=32)
    runtime = Runtime(threads=1, stop=stop)
    return generate(model, parts.train, config, policy, seed=1, round_=1, checkpointer=saved, runtime=runtime)


def facts(found: Generated) -> tuple[object, ...]:
    return found.trajectories.fingerprint(), found.stats


def in_shards(monkeypatch: pytest.MonkeyPatch, sources: int) -> None:
    monkeypatch.setattr(generation, "_sources_at_once", lambda *_: sources)


@pytest.mark.parametrize("sources", [1, 37, 299, 300, 301])
def test_shards_change_nothing(problem: tuple[Any, Split], monkeypatch: pytest.MonkeyPatch, sources: int) -> None:
    whole = decode(problem)
    assert len(whole.trajectories) > 100
    in_shards(monkeypatch, sources)
    assert facts(decode(problem)) == facts(whole)


def test_enrichment_in_shards_changes_nothing(
    problem: tuple[Any, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, parts = problem
    settings = {"generation": GenerationConfig(m=2), "fidelity": FidelityConfig(tau=25)}
    expected = enrich(parts.train, model, **settings).fingerprint()  # type: ignore[arg-type]
    in_shards(monkeypatch, 50)
    with memory.memory_limit(AMPLE, tmp_path):
        assert enrich(parts.train, model, **settings).fingerprint() == expected  # type: ignore[arg-type]


def test_the_size_of_a_shard_follows_the_limit(problem: tuple[Any, Split], tmp_path: Path) -> None:
    config = GenerationConfig(m=3)
    sizes = []
    for size in (2**29, 2**31):
        with memory.memory_limit(memory.resident() + size, tmp_path):
            sizes.append(generation._sources_at_once(problem[0], config))
    assert 1000 < sizes[0] < sizes[1] / 3
    assert generation._sources_at_once(problem[0], config) > 2**40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "round-01" / "partial"
    path.mkdir(parents=True)
    return path


class After:
    """Asks to stop at the n-th time it is asked."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_finished_shards_are_saved_and_not_decoded_again(
    problem: tuple[Any, Split], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decode(problem)
    log: list[str] = []

    def store() -> Checkpointer:
        return Checkpointer(folder, lambda event, **_: log.append(event))

    in_shards(monkeypatch, 60)
    with pytest.raises(Interrupted):
        decode(problem, store(), After(75))
    kinds = [path.name.partition("-")[0] for path in folder.iterdir()]
    shards = kinds.count("shard")
    assert 1 <= shards < 4
    assert kinds.count("trajectories") == 1
    in_shards(monkeypatch, 23)  # another limit
    rows: list[int] = []
    real = generation.engine_of
    monkeypatch.setattr(
        generation, "engine_of", lambda *given, **options: rows.extend(given[2].tolist()) or real(*given, **options)
    )
    assert facts(decode(problem, store())) == facts(whole)
    assert len(rows) == 300 - 60 * shards
    first = min(folder.glob("shard-*"))
    first.write_bytes(first.read_bytes()[:-1])
    rows.clear()
    assert facts(decode(problem, store())) == facts(whole)
    assert len(rows) == 300
    assert log == ["discarded"]


def test_a_run_is_the_same_within_a_limit(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny.quiet():
        assert tiny.start(tmp_path / "without", resume=False) == 0
        monkeypatch.setattr(generation, "_sources_at_once", lambda *_: 13)
        options = [*tiny.OPTIONS, "--memory", "64GiB", "--out", str(tmp_path / "within")]
        assert command.main(options) == 0
    assert tiny.contents(tmp_path / "within") == tiny.contents(tmp_path / "without")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ("much", "rsir: error: memory: expected a size such as 4GiB or 700MiB, got 'much'"),
        ("9MiB", "rsir: error: memory: the process takes"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str, text: str
) -> None:
    assert command.main([*tiny.OPTIONS, "--memory", size, "--out", str(tmp_path / "run")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_too_small_a_limit_names_what_the_run_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = (memory.resident() >> 20) + 150
    assert command.main([*tiny.OPTIONS, "--memory", f"{size}MiB", "--out", str(tmp_path / "run")]) == 2
    text = capsys.readouterr().err
    assert "libraries still to be loaded 128 MiB, the item table of 40 items" in text
    assert "numbers kept for each of 60 users" in text
    assert not (tmp_path / "run").exists()

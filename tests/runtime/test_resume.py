"""Unfinished work on disk: a training goes on from where it stopped, to the same bits, whatever befell its files."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsir.config import FidelityConfig, GenerationConfig, ModelConfig, TrainingConfig
from rsir.data import Sequences, leave_one_out
from rsir.data.splits import Split
from rsir.errors import GenerationError, Interrupted, TrainingError
from rsir.generation.fidelity import build
from rsir.generation.generate import Generated, generate
from rsir.runtime import resume
from rsir.runtime.progress import Progress, silent
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpointer, Checkpoints, NoCheckpoints, Snapshot
from rsir.runtime.runtime import Runtime, never
from rsir.training.fit import Trained, fit

MODEL = ModelConfig(dim=8, layers=1, feedforward=8, max_len=8, dropout=0.2)
SETTINGS = TrainingConfig(batch_size=32, negatives=20, evaluate_every=4, patience=2, max_evaluations=4)


class Record:
    """Collects what is logged."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})


class After:
    """Asks to stop at the n-th time it is asked."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save at every opportunity."""
    monkeypatch.setattr(resume, "EVERY", 0.0)
    monkeypatch.setattr(resume, "SHARE", 1.0)


@pytest.fixture(scope="module")
def parts() -> Split:
    generator = np.random.default_rng(0)
    rows = [(np.cumsum(generator.integers(1, 3, 7)) + generator.integers(40)) % 40 + 1 for _ in range(200)]
    return leave_one_out(Sequences.from_lists(rows, 40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "round-00" / "partial"
    path.mkdir(parents=True)
    return path


def train(
    parts: Split,
    saved: Checkpoints = NO_CHECKPOINTS,
    stop: Callable[[], bool] = never,
    *,
    config: TrainingConfig = SETTINGS,
    progress: Progress = silent,
) -> Trained:
    runtime = Runtime(stop=stop, progress=progress)
    return fit(MODEL, config, parts.train, parts.validation, seed=3, checkpointer=saved, runtime=runtime)


def same(a: Trained, b: Trained) -> bool:
    def facts(trained: Trained) -> tuple[object, ...]:
        entries = [(entry.step, entry.loss, entry.metrics) for entry in trained.history]
        return entries, trained.best_step, trained.steps, trained.tokens

    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return facts(a) == facts(b) and all(torch.equal(x, y) for x, y in weights)


@pytest.fixture(scope="module")
def whole(parts: Split) -> Trained:
    return train(parts)


@pytest.mark.parametrize("step", [1, 3, 4, 5, 7, 12])
def test_a_stopped_training_goes_on_to_the_same_bits(parts: Split, whole: Trained, folder: Path, step: int) -> None:
    """Within an epoch, at its end, at a validation."""
    with pytest.raises(Interrupted):
        train(parts, Checkpointer(folder, Record()), After(step))
    assert len(list(folder.iterdir())) == 1
    assert same(train(parts, Checkpointer(folder, Record())), whole)


def test_the_average_of_the_weights_is_saved_too(parts: Split, folder: Path) -> None:
    config = dataclasses.replace(SETTINGS, ema=0.9)
    for step in (2, 5):
        with pytest.raises(Interrupted):
            train(parts, Checkpointer(folder, Record()), After(step), config=config)
    assert same(train(parts, Checkpointer(folder, Record()), config=config), train(parts, config=config))


def test_stopping_after_every_step(parts: Split, whole: Trained, folder: Path) -> None:
    for _ in range(whole.steps):
        with pytest.raises(Interrupted):
            train(parts, Checkpointer(folder, Record()), After(1))
    assert same(train(parts, Checkpointer(folder, Record()), After(1)), whole)


def test_a_last_stretch_on_real_sequences_goes_on_to_the_same_bits(parts: Split, folder: Path) -> None:
    """Stopped after every step, the first ones of both stretches and those of their ends among them."""
    rows = [[item, item % 40 + 1, (item + 1) % 40 + 1] for item in range(1, 30)]
    made = Sequences.from_lists(rows, 40, source=range(29), round=[1] * 29)
    more = dataclasses.replace(parts, train=Sequences.concat(parts.train, made))
    config = dataclasses.replace(SETTINGS, real_last=2, real_rate=5e-3, ema=0.9)
    whole = train(more, config=config)
    main = len(train(more, config=dataclasses.replace(config, real_last=0)).history)
    assert len(whole.history) == main + 2
    for _ in range(whole.steps):
        with pytest.raises(Interrupted):
            train(more, Checkpointer(folder, Record()), After(1), config=config)
    assert same(train(more, Checkpointer(folder, Record()), After(1), config=config), whole)


def test_a_finished_training_takes_no_further_step(parts: Split, whole: Trained, folder: Path, always: None) -> None:
    train(parts, Checkpointer(folder, Record()))
    steps: list[int] = []
    again = train(parts, Checkpointer(folder, Record()), progress=lambda *call: steps.append(call[1]))
    assert steps == []
    assert same(again, whole)


def test_damaged_states_fall_back_to_the_one_before_and_then_to_the_start(
    parts: Split, whole: Trained, folder: Path, always: None
) -> None:
    with pytest.raises(Interrupted):
        train(parts, Checkpointer(folder, Record()), After(6))
    assert [path.name for path in sorted(folder.iterdir())] == ["training-000005", "training-000006"]
    content = {path: path.read_bytes() for path in folder.iterdir()}
    newest = folder / "training-000006"
    good = content[newest]
    for damage in (b"", good[:-1], good[:-1] + bytes([good[-1] ^ 1]), b"\xff" * 1000):
        for path in folder.iterdir():
            path.unlink()
        for path, original in content.items():
            path.write_bytes(original)
        newest.write_bytes(damage)
        log, first = Record(), []
        store = Checkpointer(folder, log)
        trained = train(parts, store, progress=lambda *call, first=first: first.append(call[1]))
        assert same(trained, whole)
        assert first[0] == 6  # the step after the state before
        assert [event["file"] for event in log.events] == ["round-00/partial/training-000006"]
        assert "damaged" in log.events[0]["cause"]
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    log = Record()
    assert same(train(parts, Checkpointer(folder, log)), whole)
    assert len(log.events) == 2


def test_a_state_of_another_version_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_VERSION", "rsir 0.0.1 partial 1")
    with pytest.raises(Interrupted):
        Checkpointer(folder, Record()).maybe_save("training", lambda: Snapshot({}, {}), stopping=True)
    monkeypatch.undo()
    log = Record()
    assert list(Checkpointer(folder, log).load("training")) == []
    assert "another version: rsir 0.0.1" in log.events[0]["cause"]


def decode(
    parts: Split,
    model: Any,
    saved: Checkpoints = NO_CHECKPOINTS,
    slots: int = 32,
    start: str = "first",
    stop: Callable[[], bool] = never,
) -> Generated:
    config = GenerationConfig(m=3, slots=slots, k=2, start=start)  # type: ignore[arg-type]
    policy = build(FidelityConfig(tau=10), model.item_embeddings().detach(), 1)
    runtime = Runtime(stop=stop)
    return generate(model, parts.train, config, policy, seed=1, round_=1, checkpointer=saved, runtime=runtime)


def facts(found: Generated) -> tuple[object, ...]:
    return found.trajectories.fingerprint(), found.stats


@pytest.mark.parametrize("start", ["first", "prefix"])
def test_a_stopped_generation_goes_on_to_the_same_trajectories(
    parts: Split, whole: Trained, folder: Path, start: str
) -> None:
    expected = decode(parts, whole.model, start=start)
    for steps in (1, 4, 2, 5, 6):
        with pytest.raises(Interrupted):
            decode(parts, whole.model, Checkpointer(folder, Record()), start=start, stop=After(steps))
    before = sum(len(saved.tensors["job"]) for saved in Checkpointer(folder, Record()).load("trajectories"))
    assert 0 < before < expected.stats.decoded
    fewest = min(folder.iterdir(), key=lambda path: path.stat().st_size)
    fewest.write_bytes(fewest.read_bytes()[:-1])  # what it held is made again
    log = Record()
    assert facts(decode(parts, whole.model, Checkpointer(folder, log), slots=50, start=start)) == facts(expected)
    assert [event["event"] for event in log.events] == ["discarded"]


def test_a_finished_generation_decodes_nothing_again(parts: Split, whole: Trained, folder: Path, always: None) -> None:
    expected = decode(parts, whole.model, Checkpointer(folder, Record()))
    count = len(list(folder.iterdir()))
    assert count > 3
    assert facts(decode(parts, whole.model, Checkpointer(folder, Record()))) == facts(expected)
    assert len(list(folder.iterdir())) == count


def test_generation_out_of_memory(parts: Split, whole: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(type(whole.model), "step", step)
    with pytest.raises(GenerationError, match=r"out of memory while generating \(no room\); .* lower than 32"):
        decode(parts, whole.model)


def test_what_is_saved_is_read_back(folder: Path, always: None) -> None:
    store = Checkpointer(folder, Record())
    tensors = {"a": torch.arange(6).view(2, 3).T, "b": torch.zeros(0, 4), "c": torch.tensor(1.5)}
    store.maybe_save("one", lambda: Snapshot(tensors, {"x": [1, None, 0.1 + 0.2]}))
    store.maybe_save("two", lambda: None)
    store.maybe_save("two", lambda: Snapshot({}, {}))
    assert [path.name for path in sorted(folder.iterdir())] == ["one-000001", "two-000002"]
    again = Checkpointer(folder, Record())
    (found,) = again.load("one")
    assert found.values == {"x": [1, None, 0.1 + 0.2]}
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    again.maybe_save("one", lambda: Snapshot({}, {"x": 2}))
    assert [saved.values["x"] for saved in again.load("one")] == [2, [1, None, 0.1 + 0.2]]


def test_saving_takes_a_small_share_of_the_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that takes 1 s puts the next one off by 49 s; one that takes no time, by EVERY."""
    clock, saves = [0.0], []
    monkeypatch.setattr(resume.time, "perf_counter", lambda: clock[0])
    store = Checkpointer(folder, Record())

    def save(seconds: float) -> None:
        clock[0] += seconds
        saves.append(clock[0])

    for _ in range(200):
        clock[0] += 1
        store.maybe_save("training", lambda: save(1.0))  # type: ignore[func-returns-value]
    gaps = np.diff(saves)
    assert saves[0] == resume.EVERY + 1
    assert set(gaps) == {50.0}
    saves.clear()
    for _ in range(200):
        clock[0] += 1
        store.maybe_save("training", lambda: save(0.0))  # type: ignore[func-returns-value]
    assert set(np.diff(saves)) == {resume.EVERY}


def test_without_a_place_to_save_work_stops_all_the_same(parts: Split, whole: Trained) -> None:
    with pytest.raises(Interrupted):
        train(parts, stop=After(2))
    with pytest.raises(Interrupted):
        decode(parts, whole.model, stop=After(2))


def test_a_place_and_no_place_for_checkpoints_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        return {name: inspect.signature(f) for name, f in vars(kind).items() if callable(f) and name[0] != "_"}

    assert methods(Checkpointer) == methods(NoCheckpoints) == methods(Checkpoints)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "Unable to allocate 9 GiB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nadvice"), "Tried to allocate 2 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "you tried"),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), "CUDA error: out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "cublasCreate"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_out_of_memory_names_the_step(
    parts: Split, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    real, calls = torch.Tensor.backward, []

    def backward(self: torch.Tensor) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise error
        real(self)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(TrainingError, match=rf"out of memory at step 3 \(.*{text}.*\); .*lower training.batch_size"):
        train(parts)


def test_other_errors_are_left_as_they_are(parts: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(self: torch.Tensor) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        train(parts, config=dataclasses.replace(SETTINGS, max_evaluations=1))

"""What several processes do together, against what one does; run by ``tests/runtime/test_processes.py`` in one process
that forks, as that of the tests has threads and cannot.

``python -m tests.harness ranks_checks`` prints a line of JSON: by name, what failed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rsir.cli import main as command
from rsir.config import DistillationConfig, FidelityConfig, GenerationConfig, ModelConfig, TrainingConfig
from rsir.data import Sequences, leave_one_out
from rsir.data.batches import Batches
from rsir.evaluation import evaluate
from rsir.generation import decoding, neighbours
from rsir.generation import disagreement as disagreements
from rsir.generation import generate as generation
from rsir.generation.disagreement import disagreement
from rsir.generation.fidelity import build as build_policy
from rsir.generation.generate import Generated, generate
from rsir.models import build, register
from rsir.models.losses import sampled_softmax
from rsir.models.times import decided
from rsir.runtime import resume as partials
from rsir.runtime.launch import join
from rsir.runtime.progress import silent
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpointer, Checkpoints
from rsir.runtime.runtime import Runtime, never
from rsir.runtime.world import ALONE, World
from rsir.training import adam
from rsir.training.fit import Trained, fit
from rsir.training.soft_targets import soft_targets
from tests.harness import (
    kill_ranks,
    ranks,
    tiny,
)

CHECKS: dict[str, Callable[[Path], None]] = {}
ITEMS = 40
MODEL = ModelConfig(dim=8, heads=2, layers=2, feedforward=8, max_len=8, dropout=0.3)
TRAINING = TrainingConfig(
    batch_size=37, negatives=12, evaluate_every=5, patience=9, max_evaluations=3, learning_rate=0.01, ema=0.9
)


def check(function: Callable[[Path], None]) -> Callable[[Path], None]:
    CHECKS[function.__name__] = function
    return function


def _rows() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [(np.cumsum(draw.integers(1, 3, draw.integers(3, 9))) + draw.integers(ITEMS)) % ITEMS + 1 for _ in range(75)]


def _times() -> np.ndarray:
    draw = np.random.default_rng(1)
    return np.concatenate([np.sort(draw.integers(0, 10**7, len(row))) for row in _rows()])


PARTS = leave_one_out(Sequences.from_lists(_rows(), ITEMS, times=_times()))  # which hstu uses


def in_ranks(count: int, scratch: Path, work: Callable[[World], Any]) -> list[Any]:
    """What each of several processes gets, as torch saves it."""
    folder = Path(tempfile.mkdtemp(dir=scratch))

    def one(rank: int) -> int:
        world = join()
        torch.save(work(world), folder / str(rank))
        world.close()
        return 0

    statuses = ranks.together(one, count, folder / "output")
    assert statuses == [0] * count, (folder / "output").read_text()
    return [torch.load(folder / str(rank), weights_only=False) for rank in range(count)]


@register("halving")
class Halving(nn.Module):
    """A backbone of a user, which knows nothing of parts of batches: each item further back counts half."""

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_items, self.max_len = num_items, config.max_len
        self.items = nn.Embedding(num_items + 1, config.dim, padding_idx=0)
        with torch.no_grad():
            self.items.weight.normal_(0, 0.1, generator=generator)

    def item_embeddings(self) -> torch.Tensor:
        return self.items.weight

    def encode(self, items: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        age = lengths[:, None] - 1 - torch.arange(items.shape[1])
        return (self.items(items) * torch.where(age >= 0, 0.5**age, 0.0)[..., None]).sum(1)

    def loss(self, batch: Any, negatives: torch.Tensor) -> torch.Tensor:
        gap = torch.arange(batch.items.shape[1])
        gap = gap[:, None] - gap
        same = (batch.segments[:, :, None] == batch.segments[:, None]) & (gap >= 0)
        x = torch.where(same, 0.5 ** gap.clamp(min=0), 0.0) @ self.items(batch.items)
        targets = batch.targets.flatten()
        weights = (batch.weights / batch.weights.sum()).flatten()
        rows = self.items(targets), self.items(negatives)
        return sampled_softmax(x.flatten(0, 1), rows[0], rows[1], targets, negatives, weights)


def _fit(
    name: str, world: World, saved: Checkpoints = NO_CHECKPOINTS, stop: Callable[[], bool] = never
) -> tuple[dict[str, torch.Tensor], list[float]]:
    config = decided(MODEL.for_backbone(name), PARTS.train)
    weights = np.where(np.arange(len(PARTS.train)) % 3 == 0, 0.5, 1.0)
    assert len(weights) == len(PARTS.train)
    runtime = Runtime(stop=stop, world=world)
    teacher = build(config, ITEMS, seed=5)
    soft = soft_targets(teacher, PARTS.train, DistillationConfig(share=0.3, k=4), runtime=runtime)
    trained: Trained = fit(
        config, TRAINING, PARTS.train, PARTS.validation, seed=3, soft=soft, checkpointer=saved, runtime=runtime
    )
    return dict(trained.model.state_dict()), [entry.loss for entry in trained.history]


def _training(name: str) -> Callable[[Path], None]:
    def run(scratch: Path) -> None:
        expected, losses = _fit(name, ALONE)
        config = decided(MODEL.for_backbone(name), PARTS.train)
        seeds = int(np.random.SeedSequence(3).generate_state(2, np.uint64)[0]) >> 1
        start = build(config, ITEMS, seed=seeds).state_dict()
        for count in (2, 3) if name in ("gru4rec", "cl4srec") else (2,):
            for weights, other in in_ranks(count, scratch, lambda world: _fit(name, world)):
                np.testing.assert_allclose(other, losses, rtol=1e-5)
                for key, value in expected.items():
                    parts = [weights[key], value, start[key]]
                    if name in ("esasrec", "bsarec") and key.endswith("in_projection.bias"):
                        # The softmax cancels a bias of the keys: its gradient is rounding, which Adam blows up.
                        parts = [torch.cat(part.chunk(3)[::2]) for part in parts]
                    moved, apart = (float((part - parts[1]).abs().max()) for part in (parts[2], parts[0]))
                    assert apart < 2e-3 * max(moved, 1e-3), f"{key}: {apart} apart after moving {moved}, {count} ranks"

    return run


for _name in ("sasrec", "hstu", "gru4rec", "esasrec", "bsarec", "cl4srec", "halving"):
    CHECKS[f"training_{_name}"] = _training(_name)


@contextmanager
def by_rows() -> Iterator[None]:
    """A catalogue, in this process and in those that it forks, whose table is stepped by the rows looked up alone."""
    global ITEMS, PARTS, TRAINING
    before = ITEMS, PARTS, TRAINING, adam._LARGE_CATALOGUE
    ITEMS, TRAINING, adam._LARGE_CATALOGUE = 400, replace(TRAINING, batch_size=8), 100
    PARTS = leave_one_out(Sequences.from_lists(_rows(), ITEMS))
    try:
        yield
    finally:
        ITEMS, PARTS, TRAINING, adam._LARGE_CATALOGUE = before


@check
def training_by_rows_of_a_large_table(scratch: Path) -> None:
    """As above, with the optimizer of large catalogues."""
    taken = []
    step = adam.TableAdam.step

    def counted(self: adam.TableAdam) -> None:
        taken.append(1)
        step(self)

    adam.TableAdam.step = counted  # type: ignore[method-assign, assignment]
    try:
        with by_rows():
            for name in ("sasrec", "cl4srec"):
                CHECKS[f"training_{name}"](scratch)
        assert len(taken) == 2 * TRAINING.max_evaluations * (TRAINING.evaluate_every or 0)
    finally:
        adam.TableAdam.step = step  # type: ignore[method-assign]


@check
def parts_of_a_batch_hold_every_row_once(scratch: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = Batches(PARTS.train, 30, 8, 5, seed=1, device=torch.device("cpu"), generator=generator)
    whole, _ = next(iter(batches))

    class Pretended(World):
        def __init__(self, rank: int, size: int) -> None:
            super().__init__()
            self.rank, self.size = rank, size

    for size in (2, 3, len(whole.items)):
        divided = [whole.divided(Pretended(rank, size)) for rank in range(size)]
        assert torch.equal(torch.cat([batch.items for batch, _ in divided]), whole.items)
        assert abs(sum(float(share) for _, share in divided) - 1) < 1e-6
    batch, share = whole.divided(Pretended(1, len(whole.items) + 1))
    assert batch is whole
    assert share == 1 / (len(whole.items) + 1)


def _evaluated(world: World) -> tuple[dict[str, float], list[int], np.ndarray, np.ndarray]:
    model = build(MODEL, ITEMS, seed=1).eval()
    popularity = np.arange(ITEMS + 1)
    found = evaluate(model, PARTS.test, popularity=popularity, batch_size=7, runtime=Runtime(world=world))
    quick = evaluate(model, PARTS.test, spread=False, batch_size=11, runtime=Runtime(world=world))
    assert np.array_equal(found.ranks, quick.ranks)
    soft = soft_targets(model, PARTS.train, DistillationConfig(share=0.5, k=3), runtime=Runtime(world=world))
    return found.metrics, found.ranks.tolist(), soft.ids, soft.cumulative


@check
def evaluation_and_soft_targets_do_not_depend_on_the_number_of_processes(scratch: Path) -> None:
    expected = _evaluated(ALONE)
    for count in (2, 3):
        for found in in_ranks(count, scratch, _evaluated):
            assert found[:2] == expected[:2]
            assert np.array_equal(found[2], expected[2])
            assert np.array_equal(found[3], expected[3])


@check
def disagreement_does_not_depend_on_the_number_of_processes(scratch: Path) -> None:
    def scores(world: World) -> np.ndarray:
        disagreements._POSITIONS = 50  # of some 300
        return disagreement(build(MODEL, ITEMS, seed=1), PARTS.train, passes=3, seed=5, runtime=Runtime(world=world))

    (expected,) = in_ranks(1, scratch, scores)
    assert expected.max() > 0
    for count in (2, 3):
        assert all(np.array_equal(found, expected) for found in in_ranks(count, scratch, scores))


@check
def the_neighbour_graph_does_not_depend_on_the_number_of_processes(scratch: Path) -> None:
    items = torch.randn(301, 8, generator=torch.Generator().manual_seed(0))

    def graphs(world: World) -> list[np.ndarray]:
        neighbours._TILE = 3
        made = [neighbours.neighbour_graph(items, 7, method=method, world=world) for method in ("flat", "ivf")]
        policy = build_policy(FidelityConfig("both", neighbours=4), items, 1, runtime=Runtime(world=world))
        return [*made, policy.neighbours.graph]

    (expected,) = in_ranks(1, scratch, graphs)
    assert all(graph[1:].min() > 0 for graph in expected)
    for found in in_ranks(3, scratch, graphs):
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


GENERATION = GenerationConfig(m=3, k=4, slots=64)


def _generated(world: World, folder: Path | None, progress: Any = silent, model: Any = None) -> Generated:
    model = model or build(MODEL, ITEMS, seed=1).eval()
    policy = build_policy(FidelityConfig(tau=15), model.item_embeddings().detach(), 1)
    saved = NO_CHECKPOINTS if folder is None else Checkpointer(folder, lambda *_, **__: None, world=world)
    runtime = Runtime(progress=progress, world=world)
    return generate(model, PARTS.train, GENERATION, policy, seed=2, round_=1, checkpointer=saved, runtime=runtime)


def _silent(*_: Any, **__: Any) -> None:
    return None


def _facts(found: Generated) -> tuple[bytes, dict[str, Any]]:
    counts = asdict(found.stats)
    return found.trajectories.to_bytes(), counts


@check
def generation_does_not_depend_on_the_number_of_processes(scratch: Path) -> None:
    expected = _facts(_generated(ALONE, None, _silent))
    assert expected[1]["decoded"] > 100
    assert expected[1]["refused"] > 10
    for count in (2, 3):
        folder = Path(tempfile.mkdtemp(dir=scratch))
        found = in_ranks(count, scratch, lambda world, folder=folder: _facts(_generated(world, folder, _silent)))
        assert found == [expected] * count
        assert in_ranks(count, scratch, lambda world: _facts(_generated(world, None, _silent))) == [expected] * count


@check
def a_missing_or_damaged_file_of_trajectories_is_made_again(scratch: Path) -> None:
    """Of what two processes saved, by three that are started later; a file that is there twice counts once."""
    expected = _facts(_generated(ALONE, None, _silent))
    folder = scratch / "saved"
    folder.mkdir()

    def work(world: World) -> Any:
        read, begun = [], []
        start = decoding.Engine._start
        of_file = partials.Snapshot.from_bytes

        def counted(content: bytes) -> partials.Snapshot:
            saved = of_file(content)
            read.append(len(saved.tensors["job"]))
            return saved

        def starting(self: Any, slots: Any, job: np.ndarray) -> None:
            begun.extend(job.tolist())
            start(self, slots, job)

        partials.Snapshot.from_bytes = counted  # type: ignore[method-assign, assignment]
        decoding.Engine._start = starting  # type: ignore[method-assign, assignment]
        with tiny.saving_always():
            found = _facts(_generated(world, folder, _silent))
        return found, len(begun), read

    first = in_ranks(2, scratch, work)
    assert [found for found, _, _ in first] == [expected] * 2
    assert all(not read for _, _, read in first), "nobody reads what has just been decoded"
    files = sorted(folder.iterdir())
    assert len(files) > 6
    files[0].unlink()
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"?")
    shutil.copy(files[1], folder / f"trajectories-{len(files) + 10:06d}")
    again = in_ranks(3, scratch, work)
    assert [found for found, _, _ in again] == [expected] * 3
    assert sum(len(read) > 0 for _, _, read in again) == 3, "each reads some of the files"
    twice = len(partials.Snapshot.from_bytes(files[1].read_bytes()).tensors["job"])
    held = sum(sum(read) for _, _, read in again) - twice
    assert held > 0
    assert sum(begun for _, begun, _ in again) == expected[1]["decoded"] - held, "only what no file holds is decoded"


@check
def shards_of_several_processes_hold_what_one_makes(scratch: Path) -> None:
    expected = _facts(_generated(ALONE, None, _silent))
    folder = scratch / "parts"
    folder.mkdir()

    def work(world: World) -> Any:
        generation._sources_at_once = lambda *_: 21
        return _facts(_generated(world, folder, _silent))

    assert in_ranks(2, scratch, work) == [expected] * 2
    assert sum(path.name.startswith("shard-") for path in folder.iterdir()) == 3, "the last of four is not saved"


@check
def a_slow_process_holds_the_others_by_what_it_has_taken_alone(scratch: Path) -> None:
    """The second process does not get on until the first has been handed all but what the second took."""
    folder, taken, handed_out = scratch / "slow", scratch / "taken", scratch / "handed out"
    folder.mkdir()

    def work(world: World) -> int:
        model = build(MODEL, ITEMS, seed=1).eval()
        step, awaited = model.step, taken if world.is_main else handed_out

        def waiting(state: Any, slots: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            if not world.is_main:
                taken.touch()
            until = time.monotonic() + 60
            while not awaited.exists() and time.monotonic() < until:
                time.sleep(0.01)
            assert awaited.exists(), f"rank {world.rank} waits for what the other does not do"
            return step(state, slots, items)

        def progress(phase: str, done: int, total: int | None, *_: Any) -> None:
            if world.is_main and done == total:
                handed_out.touch()

        model.step = waiting  # type: ignore[method-assign, assignment]
        return _generated(world, folder, progress, model).stats.decoded

    counts = in_ranks(2, scratch, work)
    assert counts == [3 * sum(len(set(row)) > 1 for row in PARTS.train)] * 2


@check
def a_stopped_training_of_two_goes_on_to_the_same_bits(scratch: Path) -> None:
    """With the first process's state alone: dropout of a backbone that draws by itself is keyed by step and rank."""

    class Dropping(Halving):
        def loss(self, batch: Any, negatives: torch.Tensor) -> torch.Tensor:
            kept = torch.rand(batch.items.shape, generator=batch.generator) + torch.rand(batch.items.shape) > 0.5
            return super().loss(batch, negatives) * kept.float().mean()

    register("dropping")(Dropping)
    for name, kind in (("dropping", nullcontext), ("cl4srec", nullcontext), ("sasrec", by_rows)):
        with kind():
            _stopped_goes_on(scratch, name)


def _stopped_goes_on(scratch: Path, name: str) -> None:
    folder = scratch / name
    folder.mkdir()

    def stopped(world: World) -> bool:
        asked = iter(range(7 if world.is_main else 10**6))
        try:
            _fit(name, world, Checkpointer(folder, _silent, world), lambda: next(asked, None) is None)
        except partials.Interrupted:
            return True
        return False

    assert in_ranks(2, scratch, stopped) == [True, True], "both stop when one is asked to"
    assert {path.name[:8] for path in folder.iterdir()} == {"training"}
    whole = in_ranks(2, scratch, lambda world: _fit(name, world))

    def resuming(world: World) -> Any:
        read = partials.Snapshot.from_bytes

        def other_order(content: bytes) -> partials.Snapshot:
            """As safetensors may: each process reads tensors in an order of its own."""
            saved = read(content)
            return partials.Snapshot(dict(sorted(saved.tensors.items(), reverse=world.is_main)), saved.values)

        partials.Snapshot.from_bytes = other_order  # type: ignore[method-assign, assignment]
        return _fit(name, world, Checkpointer(folder, _silent, world=world))

    resumed = in_ranks(2, scratch, resuming)
    for weights, losses in resumed:
        assert losses == whole[0][1]
        assert all(torch.equal(value, whole[0][0][key]) for key, value in weights.items())


def _run(
    scratch: Path, options: Callable[[int], list[str]], before: Callable[[int], None] = lambda rank: None
) -> tuple[list[int], str]:
    """Exit statuses of the command line in two processes, and what both print."""
    output = Path(tempfile.mkdtemp(dir=scratch)) / "output"

    def one(rank: int) -> int:
        before(rank)
        return command.main([*tiny.OPTIONS, *options(rank)])

    return ranks.together(one, 2, output), output.read_text()


@check
def a_killed_process_is_started_again_to_the_same_files(scratch: Path) -> None:
    kill_ranks.harness(1, seed=3, report=lambda line: None)


@check
def processes_started_differently_are_refused_by_one_message(scratch: Path) -> None:
    out = scratch / "different"
    statuses, output = _run(scratch, lambda rank: ["--out", str(out), "--seed", str(rank)])
    _refused(statuses, output, "rank 1 of 2", "seed is 1 here and 0 in rank 0")
    assert not out.exists()


@check
def a_folder_that_is_not_shared_is_named(scratch: Path) -> None:
    statuses, output = _run(scratch, lambda rank: ["--out", str(scratch / f"of {rank}")])
    _refused(statuses, output, "rank 1 of 2", "must be a folder that all of them share")


@check
def bad_options_are_refused_once_and_restarts_need_a_folder(scratch: Path) -> None:
    statuses, output = _run(scratch, lambda rank: ["--generation.m", "0"])
    _refused(statuses, output, "generation.m")

    def allow(rank: int) -> None:
        os.environ["TORCHELASTIC_MAX_RESTARTS"] = "1"

    statuses, output = _run(scratch, lambda rank: [], allow)
    _refused(statuses, output, "give --out DIR")


def _refused(statuses: list[int], output: str, *parts: str) -> None:
    """One process ends with the status of bad input and says why; the other ends, too, and says nothing."""
    assert 2 in statuses, output
    assert 0 not in statuses, output
    assert output.count("error") == 1, output
    assert "nterrupted" not in output, output
    assert all(part in output for part in parts), output


def main() -> int:
    failed = {}
    names = sys.argv[1:] or list(CHECKS)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                CHECKS[name](Path(folder))
                failed[name] = ""
            except BaseException:
                failed[name] = traceback.format_exc()
    print(json.dumps(failed))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Several processes do what one does; the checks are in ``ranks_checks.py``, which forks: this process has threads.

One run under the real torchrun kills one of its processes, and is started again.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore

from rsir.errors import WorldError
from rsir.runtime import processes
from rsir.runtime.launch import join
from rsir.runtime.processes import Processes
from rsir.runtime.world import ALONE

ROOT = Path(__file__).parents[2]
BACKBONES = ("sasrec", "hstu", "gru4rec", "esasrec", "bsarec", "cl4srec", "halving")
CHECKS = [
    *(f"training_{name}" for name in BACKBONES),
    "training_by_rows_of_a_large_table",
    "parts_of_a_batch_hold_every_row_once",
    "evaluation_and_soft_targets_do_not_depend_on_the_number_of_processes",
    "disagreement_does_not_depend_on_the_number_of_processes",
    "the_neighbour_graph_does_not_depend_on_the_number_of_processes",
    "generation_does_not_depend_on_the_number_of_processes",
    "a_missing_or_damaged_file_of_trajectories_is_made_again",
    "a_slow_process_holds_the_others_by_what_it_has_taken_alone",
    "a_stopped_training_of_two_goes_on_to_the_same_bits",
    "a_killed_process_is_started_again_to_the_same_files",
    "processes_started_differently_are_refused_by_one_message",
    "shards_of_several_processes_hold_what_one_makes",
    "a_folder_that_is_not_shared_is_named",
    "bad_options_are_refused_once_and_restarts_need_a_folder",
]


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    command = [sys.executable, "-m", "tests.harness", "ranks_checks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found) == sorted(CHECKS)
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_several_processes(failures: dict[str, str], name: str) -> None:
    assert failures[name] == "", failures[name]


def test_torchrun_starts_a_killed_process_again(tmp_path: Path) -> None:
    """Without --resume: the first attempt's second process dies before its fourth step, when three are saved."""
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
    ]
    command = [*run, "-m", "tests.harness.dies_once", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Best by validation") == 1
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["begin", "processes", "resume", "processes", "round"]
    assert [event["restarted"] for event in events if event["event"] == "processes"] == [False, True]
    assert (tmp_path / "run" / "round-00" / "DONE").exists()
    assert (tmp_path / "first step").read_text() == "3"


LEAVING = """
import atexit, os, sys
from pathlib import Path

@atexit.register
def names():  # the last of all: it is registered first
    print(*(task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")), sep=", ")

from rsir.runtime.processes import meet
world = meet(0, 0)
import torch.distributed.nn.functional  # as torch does by itself when some of it is first used
world.any(False)
{end}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the threads are read from /proc")
@pytest.mark.parametrize(("end", "status"), [("world.close()", 0), ("sys.exit(3)", 3), ("raise OSError", 1)])
def test_no_thread_of_gloo_is_left_when_the_interpreter_ends(end: str, status: int) -> None:
    """One that is, and lets go of a tensor then, aborts the process now and then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
    command = [sys.executable, "-c", LEAVING.format(end=end)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=os.environ | place
    )
    assert done.returncode == status, done.stderr
    assert "python" in done.stdout
    assert "gloo" not in done.stdout


@pytest.mark.parametrize("count", [0, 1, 5, 1000, 19_412])
@pytest.mark.parametrize(("most", "least"), [(1, 1), (300, 1), (10**6, 1), (10**6, 128), (7, 128)])
def test_parts_are_whole_and_get_smaller(count: int, most: int, least: int) -> None:
    for world in (ALONE, *(Processes(HashStore(), 0, size, False) for size in (2, 7))):
        parts = world.parts(count, most, least)
        assert [place for part in parts for place in range(part.start, part.stop)] == list(range(count))
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes, default=0) <= most
        if world.size > 1:
            assert sizes == sorted(sizes, reverse=True)
            assert max(sizes, default=0) <= max(least, count // (2 * world.size))
            assert min(sizes[:-1], default=most) >= min(least, most)
    assert len(ALONE.parts(count, 10**6)) == min(count, 1)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("stride", [0, 1, 2])
def test_any_layout_is_gathered(rows: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 2.5 gives arrays without elements a stride of 0."""
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    monkeypatch.setattr(dist, "all_gather", lambda received, own: received[0].copy_(own))
    values = torch.arange(8, dtype=torch.int64).as_strided((rows,), (stride,))
    pairs = torch.arange(16, dtype=torch.int32).as_strided((rows, 2), (4, stride))
    found = Processes(HashStore(), 0, 1, False).all_gather(values, pairs)
    assert torch.equal(found[0], values)
    assert torch.equal(found[1], pairs)


def test_a_process_by_itself_is_a_world_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    world = join()
    assert (world.rank, world.size, world.is_main, world.restarted, world.name) == (0, 1, True, False, "")
    assert list(world.claims(3)) == [0, 1, 2]
    claims = world.claims(3)
    assert next(claims) == 0
    claims.cancel()
    assert list(claims) == []
    assert ALONE.broadcast_object(lambda: [1]) == [1]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert join().restarted


@pytest.mark.parametrize("call", ["all_reduce", "all_gather", "broadcast", "any", "broadcast_object"])
def test_a_failure_of_nccl_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """As torch raises it, where calls wait for their work: nothing here has NCCL, so the failure is made."""

    def fails(*arguments: object) -> None:
        raise dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:94, remote process exited\nLast error:\nmore")

    for name in ("all_reduce", "all_gather", "broadcast"):
        monkeypatch.setattr(dist, name, fails)
    argument = {"any": True, "broadcast_object": int}.get(call, torch.ones(2))
    with pytest.raises(WorldError, match=r"lost another process of this run \(NCCL error in: .*exited\)$"):
        getattr(Processes(HashStore(), 0, 2, False), call)(argument)


def test_calls_of_nccl_wait_for_their_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else their failures surface at some later line, and not as a WorldError."""
    monkeypatch.delenv("TORCH_NCCL_BLOCKING_WAIT", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(processes, "rendezvous", lambda *where, **options: iter([(HashStore(), 1, 2)]))

    def started(backend: str, **options: object) -> None:
        seen.append(backend)
        assert os.environ["TORCH_NCCL_BLOCKING_WAIT"] == "1"

    monkeypatch.setattr(dist, "init_process_group", started)
    world = processes.meet(0, 3)
    assert (world.rank, world.size) == (1, 2)
    assert seen == [1, "cpu:gloo,cuda:nccl"]
    os.environ.pop("TORCH_NCCL_BLOCKING_WAIT")

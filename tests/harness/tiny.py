"""A run of three rounds small enough to be repeated hundreds of times, in forked processes or in this one."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from rsir.cli import main as recurse
from rsir.runtime import resume as partial

ROUNDS = 3
OPTIONS = [
    *("--rounds", str(ROUNDS - 1), "--stop_after", "9", "--guard", "false"),
    *("--simulation.num_users", "60", "--simulation.num_items", "40", "--simulation.mean_length", "6"),
    *("--model.dim", "8", "--model.layers", "1", "--model.feedforward", "8", "--model.max_len", "8"),
    *("--training.batch_size", "32", "--training.negatives", "16", "--training.evaluate_every", "3"),
    *("--training.max_evaluations", "3", "--training.learning_rate", "0.01", "--training.real_last", "1"),
    *("--generation.m", "2", "--generation.slots", "48", "--fidelity.tau", "15"),
]


def start(folder: Path, *, resume: bool) -> int:
    """The command line's exit status. Settings are repeated when resuming, as a job script would."""
    return recurse.main([*OPTIONS, "--out", str(folder), *(["--resume"] if resume else [])])


def begun(folder: Path) -> bool:
    return (folder / "manifest.json").exists()


@contextmanager
def saving_always() -> Iterator[None]:
    """Every step and every finished trajectory is saved at once."""
    before = partial.EVERY, partial.SHARE
    partial.EVERY, partial.SHARE = 0.0, 1.0
    try:
        yield
    finally:
        partial.EVERY, partial.SHARE = before


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the command line prints."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def contents(folder: Path) -> dict[str, str]:
    """What must be the same in two runs: every file by its SHA-256, the wall clock left out."""
    hashes = {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        if name == "manifest.json":
            manifest = json.loads(content)
            del manifest["checksum"]
            for files in manifest["rounds"].values():
                del files["timings.json"]
            content = json.dumps(manifest, sort_keys=True).encode()
        free = name in ("log.jsonl", "report.html") or path.name == "timings.json"
        hashes[name] = "" if free else hashlib.sha256(content).hexdigest()
    folders = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir()]
    return hashes | dict.fromkeys(folders, "folder")


def fork(work: Callable[[], int], output: Path) -> int:
    """Start a process that does some work, its output in a file; -> its id."""
    threads = torch.get_num_threads()
    assert threads == 1, f"{threads} threads: what they hold would be missing in the other process, which then hangs"
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int) -> int:
    """Exit status of a process; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def calls_and_contents(scratch: Path) -> tuple[dict[str, int], float, dict[str, str]]:
    """How often an uninterrupted run calls what changes files, its seconds, and what it wrote."""
    with saving_always(), quiet():
        assert start(scratch / "warm", resume=False) == 0  # compiles what is compiled at first use
    report = scratch / "report"

    def work() -> int:
        counts = {name: _counted(name) for name in ("write", "fsync", "replace", "unlink", "rmdir")}
        with saving_always():
            status = start(scratch / "whole", resume=False)
        report.write_text(json.dumps({name: next(count) for name, count in counts.items()}))
        return status

    began = time.perf_counter()
    status = wait(fork(work, scratch / "output"))
    seconds = time.perf_counter() - began
    assert status == 0, (scratch / "output").read_text()
    expected = contents(scratch / "whole")
    assert contents(scratch / "warm") == expected, "two runs without a fault differ"
    assert sum(name.endswith("DONE") for name in expected) == ROUNDS
    return json.loads(report.read_text()), seconds, expected


def _counted(name: str) -> Iterator[int]:
    """Count this process's calls of a function of os."""
    call, count = getattr(os, name), itertools.count()

    def counted(*arguments: Any, **options: Any) -> Any:
        next(count)
        return call(*arguments, **options)

    setattr(os, name, counted)
    return count

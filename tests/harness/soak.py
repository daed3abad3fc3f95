"""Many short rounds in one process: memory, descriptors, threads and files must not pile up.

``python -m tests.harness soak --rounds 50``. From round 5 on, where everything has been loaded and compiled, the
resident memory may grow by less than 1%, what is allocated by less than 40 KiB a round, and open descriptors, threads
and temporary files not at all.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsir.cli.options import configuration, split_arguments
from rsir.config import RecursionConfig
from rsir.recursion.loop import recurse
from tests.harness import tiny

SETTLED = 5
MOST_A_ROUND = 40  # KiB; the results of a round, which are kept, are a few of them


@dataclass(frozen=True)
class Usage:
    """What the process holds after a round."""

    memory: int
    allocated: int
    descriptors: int
    threads: int
    temporary: int


class _Mallinfo(ctypes.Structure):
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


def allocated() -> int:
    """Bytes that the C library has handed out: of arrays, tensors and large objects, whatever memory is resident.

    0 where the library does not tell (glibc from 2.33 on does).
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _Mallinfo
    found = library.mallinfo2()
    return int(found.uordblks + found.hblkhd)


def usage() -> Usage:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    temporary = sum(len(files) for _, _, files in os.walk(tempfile.gettempdir()))
    descriptors = len(os.listdir("/proc/self/fd"))
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), allocated(), descriptors, threading.active_count(), temporary)


def soak(rounds: int, scratch: Path) -> list[Usage]:
    """Usage after each round."""
    _, given = split_arguments(tiny.OPTIONS)
    # the models of all rounds, the default, would be one more to hold each round
    given |= {"rounds": str(rounds - 1), "stop_after": str(rounds), "retention": "pair"}
    taken: list[Usage] = []

    def report(result: Any) -> None:
        taken.append(usage())

    with tiny.saving_always():
        recurse(configuration(RecursionConfig(), None, given), out=scratch / "run", on_round=report)
    return taken


def check(taken: list[Usage], most: float, report: Callable[[str], None] = print) -> None:
    first, last = taken[SETTLED], taken[-1]
    growth = last.memory / first.memory - 1
    rounds = len(taken) - 1 - SETTLED
    more = (last.allocated - first.allocated) / rounds / 1024
    names = ("descriptors", "threads", "temporary")
    others = ", ".join(f"{name} {getattr(first, name)} and {getattr(last, name)}" for name in names)
    report(
        f"{len(taken)} rounds: memory {first.memory / 2**20:.1f} MiB after round {SETTLED} and "
        f"{last.memory / 2**20:.1f} MiB after the last ({growth:+.2%}), {more:+.1f} KiB allocated a round, {others}"
    )
    assert growth < most, f"memory grew by {growth:.2%}"
    assert more < MOST_A_ROUND, f"{more:.1f} KiB more are allocated after every round"
    assert replace(last, memory=0, allocated=0) == replace(first, memory=0, allocated=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tempfile.tempdir = str(scratch / "temporary")
        os.mkdir(tempfile.tempdir)
        check(soak(options.rounds, scratch), 0.01)
        left = [path for path in (scratch / "run").rglob("*") if path.name.startswith(".") or path.name == "partial"]
        assert not left, f"left over: {left}"
    return 0


if __name__ == "__main__":
    sys.exit(main())

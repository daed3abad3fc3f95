"""Several processes of one run, forked from this one, and what starts them again as torchrun does."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from tests.harness.tiny import fork, wait

PATIENCE = 120.0


def together(work: Callable[[int], int], ranks: int, output: Path, *, attempt: int = 0, restarts: int = 0) -> list[int]:
    """Let forked processes do some work, each given its rank; -> their exit statuses.

    When one ends in an error the others are sent SIGTERM, and SIGKILL where they stay. What they meet at is in a
    process of its own, as in torchrun's, so that it outlives each of them.
    """
    port = _free_port()

    def child(rank: int) -> int:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(attempt),
            "TORCHELASTIC_MAX_RESTARTS": str(restarts),
        }
        return work(rank)

    store = fork(lambda: _keep_store(port), output)
    try:
        return watch([fork(lambda rank=rank: child(rank), output) for rank in range(ranks)])
    finally:
        os.kill(store, signal.SIGKILL)
        wait(store)


def _keep_store(port: int) -> int:
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PATIENCE))
    time.sleep(3600)
    del store
    return 0


def watch(children: list[int]) -> list[int]:
    """Exit statuses of processes that end together."""
    statuses: dict[int, int] = {}
    deadline, told = time.monotonic() + PATIENCE, False
    while len(statuses) < len(children):
        for one in children:
            if one not in statuses and os.waitid(os.P_PID, one, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                statuses[one] = wait(one)
        left = [one for one in children if one not in statuses]
        if any(statuses.values()) and not told:
            told, deadline = True, time.monotonic() + 30
            _send(left, signal.SIGTERM)
        if time.monotonic() > deadline:
            _send(left, signal.SIGKILL)
        time.sleep(0.002)
    return [statuses[one] for one in children]


def _send(processes: list[int], number: int) -> None:
    for one in processes:
        os.kill(one, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

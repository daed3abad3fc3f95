"""A run by processes that Ray starts: ``rsir run --engine ray --workers 8 --address auto --out s3://bucket/run``.

Ray places the processes, says when one has ended, and nothing else: they meet over torch.distributed as under
torchrun (:mod:`rsir.runtime.launch`), divide the work of a run as those do, and write the same bytes. When one is lost,
all start again and resume what is in ``--out``. Needs ``rsir[ray]``.
"""

from __future__ import annotations

import io
import os
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any

from rsir.errors import ConfigError
from rsir.runtime.launch import STARTED_AS

__all__ = ["run"]

_LOST = 3
"""Exit status of a process that has lost another one."""
_PATIENCE = 300.0
"""Seconds for the cluster to start all processes."""
_GRACE = 20.0
"""Seconds for the others to notice that one has ended, and to end."""
_STORE = 100 * 2**20
"""Bytes of Ray's object store in a cluster of one's own: hardly anything goes through it."""


class Rank:
    """One process of a run, as an actor."""

    def meeting_point(self) -> tuple[str, int]:
        """Where the others can reach this one: its machine's address, and a port that is free there."""
        from ray.util import get_node_ip_address

        with socket.socket() as probe:
            probe.bind(("", 0))
            return get_node_ip_address(), int(probe.getsockname()[1])

    def run(self, arguments: list[str], folder: str, environment: dict[str, str]) -> tuple[int, str]:
        """Run the command line; its exit status, and what it printed."""
        os.environ.update(environment)
        if os.path.isdir(folder):
            os.chdir(folder)  # for relative paths, where the machine has them
        from rsir.cli.main import main

        printed = io.StringIO()
        with redirect_stdout(printed):
            status = main(["run", *arguments])
        return status, printed.getvalue()


def run(arguments: list[str], *, address: str | None, workers: int, restarts: int = 3, gpu: bool = False) -> int:
    """Run the command line in processes of a Ray cluster.

    Parameters
    ----------
    arguments : list of str
        Those of ``rsir run``, with ``--out``.
    address : str or None
        Of the cluster, "auto" for the one this machine belongs to; None starts one on this machine for the time.
    workers : int
        Processes, one CPU each; with `gpu` a GPU each.
    restarts : int, default 3
        How often all are started again when one is lost.

    Returns
    -------
    int
        Exit status, as :func:`rsir.cli.main.main` explains it.

    Raises
    ------
    ConfigError
        Ray is not installed, no cluster is reached, or it has no room for the processes.
    """
    if workers < 1:
        raise ConfigError(f"--workers: expected at least 1, got {workers}")
    try:
        import ray
    except ImportError as cause:
        raise ConfigError(f"--engine ray: is not installed ({cause}); pip install 'rsir[ray]'") from cause
    own = not ray.is_initialized()
    of_its_own = {
        "include_dashboard": False,
        "object_store_memory": _STORE,
        "num_cpus": max(workers, os.cpu_count() or 1),
    }
    if own:
        try:
            ray.init(address=address, logging_level="error", **(of_its_own if address is None else {}))
        except (ConnectionError, ValueError) as cause:
            raise ConfigError(
                f"--address {address}: no Ray cluster is reached ({' '.join(str(cause).split())[:200]})"
            ) from cause
    command = f"rsir run --engine ray --workers {workers}" + (f" --address {address}" if address else "")
    try:
        for attempt in range(restarts + 1):
            with redirect_stderr(sys.__stderr__):  # Ray prints there what the processes say, in colours
                statuses, printed = _attempt(ray, arguments, workers, attempt, restarts, gpu, command)
            status = next((one for one in statuses if one not in (0, _LOST, None)), None)
            if status is not None or all(one == 0 for one in statuses):
                print(printed, end="")
                return status or 0
            print(f"rsir: a process was lost; {restarts - attempt} starts are left", file=sys.stderr, flush=True)
        return _LOST
    finally:
        if own:
            ray.shutdown()


def _attempt(
    ray: Any, arguments: list[str], workers: int, attempt: int, restarts: int, gpu: bool, command: str
) -> tuple[list[int | None], str]:
    """Exit statuses by rank, None for a process that was lost; and what the first one printed."""
    actor = ray.remote(num_cpus=1, num_gpus=int(gpu), max_restarts=0)(Rank)
    ranks = [actor.remote() for _ in range(workers)]
    try:
        try:
            points = ray.get([rank.meeting_point.remote() for rank in ranks], timeout=_PATIENCE)
        except ray.exceptions.GetTimeoutError as cause:
            raise ConfigError(
                f"--workers {workers}: the cluster did not start as many processes within {_PATIENCE:g} s; it has "
                f"{ray.cluster_resources()}"
            ) from cause
        except ray.exceptions.RayActorError:
            return [None] * workers, ""
        host, port = points[0]
        shared = {
            "WORLD_SIZE": str(workers),
            "MASTER_ADDR": host,
            "MASTER_PORT": str(port),
            "LOCAL_RANK": "0",  # each sees the devices that Ray gave it
            "TORCHELASTIC_RESTART_COUNT": str(attempt),
            "TORCHELASTIC_MAX_RESTARTS": str(restarts),
            STARTED_AS: command,
        }
        folder = os.getcwd()
        waiting = {rank.run.remote(arguments, folder, {**shared, "RANK": str(n)}): n for n, rank in enumerate(ranks)}
        statuses: list[int | None] = [None] * workers
        printed, pending, grace = "", list(waiting), None
        while pending:
            ended, pending = ray.wait(pending, timeout=grace)
            if not ended:  # such as wait to meet one that is gone
                break
            number = waiting[ended[0]]
            with suppress(ray.exceptions.RayActorError):
                statuses[number], text = ray.get(ended[0])
                printed = text if number == 0 else printed
            if statuses[number] != 0:
                grace = _GRACE
        return statuses, printed
    finally:
        for rank in ranks:
            with suppress(Exception):
                ray.kill(rank)

"""Kills a machine of a Ray cluster, or one of its workers, in runs from S3 to S3; they end as if none had been.

``python -m tests.harness kill_nodes --nodes 10 --workers 20 --seed 0``. The cluster is Ray's own for tests: several
nodes on this machine, a CPU each, and a head that has none. The storage is moto's server of S3. Every run is ``rsir run
--engine ray --address ...`` with its data and its files at ``s3://``, and two processes on two nodes; a third node
takes the place of the one that is killed. Every step and trajectory is saved at once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rsir.config import SimulationConfig
from rsir.data.simulate import simulate
from rsir.objects.address import Address, place
from rsir.objects.copies import at_hand
from rsir.objects.storage import Storage
from tests.harness import tiny
from tests.objects import server

ROOT = Path(__file__).parents[2]
PROCESSES = 2
SAVES = """
from rsir.runtime import resume
resume.EVERY, resume.SHARE = 0.0, 1.0
"""
"""A plug-in of the runs: what they have is saved at once."""
EVENTS = f"s3://{server.BUCKET}/events/part-0.csv"
OPTIONS = [*tiny.OPTIONS, "--rounds", "1", "--data", EVENTS]


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A Ray cluster of so many nodes of one CPU, and a head without any."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


def start(address: str, out: str, plugin: Path, output: Path) -> subprocess.Popen[bytes]:
    """The command, which goes on while it is asked for."""
    command = [sys.executable, "-m", "rsir", "--plugins", str(plugin), "run", "--engine", "ray", "--address", address]
    command += ["--workers", str(PROCESSES), *OPTIONS, "--out", out]
    with output.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def contents(address: str) -> dict[str, str]:
    """The objects of a run, each by its SHA-256, the wall clock left out."""
    with at_hand(address, ValueError) as folder:
        return tiny.contents(folder)


def put_events() -> None:
    """Write the events of a small simulation to the storage."""
    simulated = simulate(SimulationConfig(num_users=60, num_items=40, mean_length=6)).sequences
    lines = ["user_id,item_id,timestamp"]
    for user, (begin, end) in enumerate(itertools.pairwise(simulated.offsets)):
        lines += [f"{user},{item},{age}" for age, item in enumerate(simulated.items[begin:end])]
    address = place(EVENTS)
    assert isinstance(address, Address)
    Storage(address).write("", "\n".join(lines).encode())


def worker(number: int) -> int | None:
    """Id of a process that runs a rank on this machine; None if there is none at the moment."""
    found = subprocess.run(["pgrep", "-f", r"^ray::Rank\.run"], capture_output=True, text=True, check=False)
    processes = [int(line) for line in found.stdout.split()]
    return processes[number % len(processes)] if processes else None


def harness(nodes: int, workers: int, seed: int, report: Callable[[str], None] = print) -> None:
    """Kill that many; AssertionError at the first difference.

    Parameters
    ----------
    nodes : int
        How many nodes to kill, one in a run.
    workers : int
        How many single processes to kill, one in a run.
    seed : int
        Of the moments and of which one is killed.
    report : callable, default print
        Told how far it is.
    """
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, server.serving(Path(name) / "s3") as s3:
        scratch = Path(name)
        os.environ.update(server.environment(s3) | {"OMP_NUM_THREADS": "1"})  # of the cluster's processes, too
        plugin, output = scratch / "saves.py", scratch / "output"
        plugin.write_text(SAVES)
        put_events()
        with cluster(PROCESSES) as ray_cluster:
            began = time.perf_counter()
            whole = f"s3://{server.BUCKET}/whole"
            assert start(ray_cluster.address, whole, plugin, output).wait(600) == 0, output.read_text()
            seconds = time.perf_counter() - began
            expected = contents(whole)
            report(f"a run of {PROCESSES} processes on as many nodes, from S3 to S3: {seconds:.1f} s")
            kinds = ["node"] * nodes + ["worker"] * workers
            draw.shuffle(kinds)
            killed = {"node": 0, "worker": 0}
            for number, kind in enumerate(kinds):
                out = f"s3://{server.BUCKET}/run-{number}"
                run = start(ray_cluster.address, out, plugin, output)
                _kill(ray_cluster, kind, run, draw.uniform(0.1, 0.9) * seconds, draw)
                status = run.wait(600)
                assert status == 0, f"seed {seed}, run {number}, a {kind} killed: {status} {output.read_text()}"
                noticed = "a process was lost" in output.read_text()
                killed[kind] += noticed
                found = contents(out)
                differing = sorted(one for one in found.keys() | expected if found.get(one) != expected.get(one))
                assert not differing, f"seed {seed}, run {number}, a {kind} killed: other files: {differing}"
                report(f"run {number}: a {kind} killed{'' if noticed else ', after its work'}: files identical")
    for kind, asked in (("node", nodes), ("worker", workers)):
        report(f"{killed[kind]} killed {kind}s of {asked} were missed and replaced; {asked} of {asked} files identical")


def _kill(ray_cluster: Any, kind: str, run: subprocess.Popen[bytes], delay: float, draw: random.Random) -> None:
    """Kill a node with its processes, and add another one; or one process of the run alone."""
    with suppress(subprocess.TimeoutExpired):
        run.wait(delay)
    if kind == "node":
        ray_cluster.remove_node(draw.choice(sorted(ray_cluster.worker_nodes, key=str)), allow_graceful=False)
        ray_cluster.add_node(num_cpus=1)
        return
    while run.poll() is None:
        found = worker(draw.randrange(PROCESSES))
        if found is not None:
            with suppress(ProcessLookupError):
                os.kill(found, signal.SIGKILL)
            return
        time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    harness(options.nodes, options.workers, options.seed, lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())

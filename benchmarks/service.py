"""``rsir serve`` under load: requests a second and how long they take, beside the library's own time for one history.

A service in a process of its own, asked over connections that are kept, each of which asks again as soon as it has its
answer. The client is of the standard library and runs on the same machine: it takes processor time, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rsir
from benchmarks.harness import describe_machine
from rsir.config import SimulationConfig, TrainingConfig
from rsir.runs.results import Run


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks service", description=__doc__)
    parser.add_argument("--run", type=Path, help="folder of a run [one of 4,000 simulated users, trained for a moment]")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8], metavar="N")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load, for each number of connections")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="400 users, half a second")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds = 0.5
    with tempfile.TemporaryDirectory() as folder:
        path = options.run or _made(Path(folder) / "run", 400 if options.quick else 4000)
        run = rsir.load(path)
        names = run.data.item_labels if run.data.item_labels is not None else None
        histories = [run.data[row][-20:].tolist() for row in range(min(200, len(run.data)))]
        histories = [[names[item - 1].as_py() if names is not None else item for item in row] for row in histories]
        print("## Serving over HTTP\n")
        for name, value in describe_machine().items():
            print(f"- {name}: {value}")
        print(f"- run: {len(run.data):,} users, {run.data.num_items:,} items, round {run.best}; k 10\n")
        print("| what | requests/s | median ms | p99 ms |\n|---|---|---|---|")
        taken = _library(run, histories, options.seconds)
        print(_row("run.recommend, one history, in the process", taken, sum(taken)))
        service = subprocess.Popen(
            [sys.executable, "-m", "rsir", "serve", str(path), "--port", "0", "--threads", str(options.threads)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert service.stdout is not None
            port = int(service.stdout.readline().rstrip("/\n").rpartition(":")[2])
            for connections in options.connections:
                taken, seconds = asyncio.run(_load(port, histories, connections, options.seconds))
                print(_row(f"POST /recommend, {connections} connection(s)", taken, seconds))
        finally:
            service.terminate()
            service.communicate()
    return 0


def _made(path: Path, users: int) -> Path:
    rsir.run(
        out=path,
        rounds=0,
        simulation=SimulationConfig(num_users=users, num_items=users * 3 // 5),
        training=TrainingConfig(max_evaluations=1),
    )
    return path


def _library(run: Run, histories: list[list[object]], seconds: float) -> list[float]:
    run.recommend(histories[:1])
    taken: list[float] = []
    while sum(taken) < seconds:
        began = time.perf_counter()
        run.recommend([histories[len(taken) % len(histories)]])
        taken.append(time.perf_counter() - began)
    return taken


async def _load(
    port: int, histories: list[list[object]], connections: int, seconds: float
) -> tuple[list[float], float]:
    """Seconds that each request took, and in all."""
    end = time.perf_counter() + seconds
    began = time.perf_counter()
    found = await asyncio.gather(*(_client(port, histories[number:], end) for number in range(connections)))
    return [one for taken in found for one in taken], time.perf_counter() - began


async def _client(port: int, histories: list[list[object]], end: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[float] = []
    while time.perf_counter() < end:
        body = json.dumps({"history": histories[len(taken) % len(histories)]}).encode()
        began = time.perf_counter()
        writer.write(b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        said = json.loads(await reader.readexactly(length))
        taken.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 200") or len(said["items"]) != 10:
            raise SystemExit(f"expected ten items, got {said}")
    writer.close()
    return taken


def _row(name: str, taken: list[float], seconds: float) -> str:
    ordered = sorted(taken)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"| {name} | {len(taken) / seconds:,.0f} | {statistics.median(taken) * 1e3:.2f} | {p99 * 1e3:.2f} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

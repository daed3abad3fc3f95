"""Seconds and peak memory of reading a log of events, format by format.

A log without structure: users in random order, items by Zipf's law, seconds as times, names such as user-1234567 and
item-123456 (or integers, where the case says so). It is written once by a process of its own; then every case is read
by a process of its own. Times are those of the read alone. Peaks are those of the whole process: imports, the data
frame where there is one, and everything between it and the finished sequences.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .harness import describe_machine

CASES = {
    "parquet": "one Parquet file",
    "parquet, integers": "one Parquet file, integer ids",
    "folder": "a folder of Parquet files, one a day, 30 days",
    "csv": "CSV",
    "inter": "RecBole .inter",
    "text": "text, one user a line",
    "arrow": "an Arrow table",
    "pandas": "a pandas frame",
    "polars": "a polars frame",
    "datasets": "a Hugging Face dataset, mapped from disk",
    "pth": ".pth lists of integers",
}
DAYS = 30


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks loading", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="5,000 events, two of the cases")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        case, folder = options.one
        print(json.dumps(measure(case, Path(folder), options.events, options.threads)))
        return 0
    if options.quick:
        options.events, options.cases = 5000, ["parquet", "folder"]
    machine = describe_machine()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases:
            _alone("write " + case, folder, options)
            results[case] = _alone(case, folder, options)
            print(json.dumps({"case": case, **results[case]}), file=sys.stderr, flush=True)
    print(f"## Reading {options.events:,} events, {options.threads} threads\n")
    print("\n".join(f"- {key}: {value}" for key, value in machine.items()))
    print("\n| what | seconds | events/s | peak MiB | of it before the read |\n|---|---|---|---|---|")
    for case, result in results.items():
        seconds = result["seconds"]
        print(
            f"| {CASES[case]} | {seconds:.1f} | {options.events / seconds:,.0f} | {result['peak']:,.0f} | "
            f"{result['before']:,.0f} |"
        )
    prints = {result["rows"] for case, result in results.items()}
    print(f"\nEvery case gave the same users, items and order: {'yes' if len(prints) == 1 else 'NO'}.")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "cases": results}, indent=2) + "\n")
    return 0 if len(prints) == 1 else 1


def _alone(case: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Write or measure a case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "loading", "--one", case, folder]
    command += ["--events", str(options.events), "--threads", str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(case: str, folder: Path, events: int, threads: int) -> dict[str, Any]:
    """Seconds of the read, peaks in MiB, and a checksum of the rows (items by number of their name)."""
    import pyarrow as pa

    if case.startswith("write "):
        write(case.removeprefix("write "), folder, events)
        return {}
    from rsir.data import from_frame, read

    pa.set_cpu_count(threads)
    frame = _frame(case, folder)
    before = _peak_mib()
    start = time.perf_counter()
    data = from_frame(frame) if frame is not None else read(_path(case, folder))
    seconds = time.perf_counter() - start
    peak = _peak_mib()
    rows = np.bitwise_xor.reduce(data.items.astype(np.uint64) * np.arange(1, len(data.items) + 1, dtype=np.uint64))
    return {"seconds": seconds, "before": before, "peak": peak, "rows": f"{len(data)} {data.num_items} {rows}"}


def _path(case: str, folder: Path) -> Path:
    suffix = {"parquet": ".parquet", "csv": ".csv", "inter": ".inter", "text": ".txt", "pth": ".pth"}
    name = case.split(",")[0]
    return folder / (case.replace(", ", "-") + suffix.get(name, ""))


def _frame(case: str, folder: Path) -> Any:
    """The frame that a case starts from; None where it starts from a file."""
    path = folder / "frame.parquet"
    if case == "arrow":
        import pyarrow.parquet as pq

        return pq.read_table(path)
    if case == "pandas":
        import pandas as pd

        return pd.read_parquet(path)
    if case == "polars":
        import polars as pl

        return pl.read_parquet(path)
    if case == "datasets":
        import datasets

        return datasets.load_from_disk(str(folder / case))
    return None


def log(events: int) -> dict[str, np.ndarray]:
    """Users (50 events each on average), items (a user in ten as many) and times of a log, in order of time."""
    random = np.random.default_rng(0)
    users, items = max(events // 50, 3), max(events // 100, 10)
    weight = 1.0 / np.arange(1, items + 1) ** 0.8
    return {
        "user_id": random.integers(0, users, events),
        "item_id": np.searchsorted(np.cumsum(weight / weight.sum()), random.random(events)).clip(max=items - 1),
        "timestamp": 1_600_000_000 + np.arange(events) * (86_400 * DAYS) // events,
    }


def write(case: str, folder: Path, events: int) -> None:
    """Write what a case reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = log(events)
    if case in ("text", "pth"):
        _write_lists(case, columns, _path(case, folder))
        return
    table = pa.table(columns)
    if case != "parquet, integers":  # of equal width, so that the order of names is that of the numbers
        for name, width in (("user_id", 7), ("item_id", 6)):
            column = table[name]
            place = table.column_names.index(name)
            table = table.set_column(place, name, _names(name.removesuffix("_id"), column.to_numpy(), width))
    if case in ("parquet", "parquet, integers"):
        pq.write_table(table, _path(case, folder))
    elif case == "folder":
        import pyarrow.dataset as ds

        day = pa.array((columns["timestamp"] - 1_600_000_000) // 86_400)
        partitioning = ds.partitioning(pa.schema([("day", pa.int64())]), flavor="hive")
        ds.write_dataset(
            table.append_column("day", day), _path(case, folder), format="parquet", partitioning=partitioning
        )
    elif case in ("csv", "inter"):
        from pyarrow import csv

        header, delimiter = b"user_id,item_id,timestamp\n", ","
        if case == "inter":
            header, delimiter = b"user_id:token\titem_id:token\ttimestamp:float\n", "\t"
        with _path(case, folder).open("wb") as file:
            file.write(header)
            options = csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none")
            csv.write_csv(table, file, options)
    elif case == "datasets":
        import datasets

        datasets.Dataset(table).save_to_disk(str(folder / case))
    else:
        pq.write_table(table, folder / "frame.parquet")


def _names(word: str, numbers: np.ndarray, width: int) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    distinct = pa.array([f"{word}-{number:0{width}}" for number in range(int(numbers.max()) + 1)])
    return pc.take(distinct, pa.array(numbers))


def _write_lists(case: str, columns: dict[str, np.ndarray], path: Path) -> None:
    """One row a user; ids from 1, as both formats want them."""
    order = np.argsort(columns["user_id"], kind="stable")
    users, items = columns["user_id"][order], columns["item_id"][order] + 1
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    rows = [part.tolist() for part in np.split(items, starts[1:])]
    if case == "text":
        with path.open("w") as file:
            file.writelines(
                f"{user + 1} {' '.join(map(str, row))}\n" for user, row in zip(users[starts], rows, strict=True)
            )
        return
    import torch

    torch.save(rows, path)


def _peak_mib() -> float:
    """Of this process so far; not that of the one that started it, which ru_maxrss may hold."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

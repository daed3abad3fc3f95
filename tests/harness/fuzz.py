"""Feeds mutated files, settings and arguments to everything that reads them: only documented errors may come back.

``python -m tests.harness fuzz --inputs 1000000 --seed 0``. A failure repeats with the seed and the number that were
printed last, given as ``--seed`` and ``--first``. A process of its own reads, so that its death is reported, too. Valid
files are cut, joined, flipped and sprinkled with what readers stumble over; numbers of a file's own checksums are
mended after the damage where a checksum would hide the rest of a reader.
"""

from __future__ import annotations

import argparse
import collections
import copy
import gzip
import hashlib
import io
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rsir import files as durable
from rsir.cli.options import OPTIONS, configuration, split_arguments
from rsir.config import DataConfig, RecursionConfig, from_dict, to_dict
from rsir.data import Sequences, read
from rsir.errors import BackboneError, CheckpointError, ConfigError, DataError, RunError
from rsir.models import checkpoint
from rsir.runs.directory import RunDirectory
from rsir.runtime import resume
from tests.harness import fuzz_bindings, tiny

ERRORS = (RunError, DataError, CheckpointError, ConfigError, BackboneError)
TOKENS = [
    b"\0",
    b"\xff",
    b"\n",
    b"\r\n",
    b"\t",
    b",",
    b'"',
    b"'",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"9" * 40,
    b"9" * 5_000,  # more digits than Python makes a number of
    b"x" * 140_000,  # more than a field of the csv module holds
    b"\xef\xbb\xbf",
]
TOKENS += [
    b"{",
    b"}",
    b"[",
    b"]",
    b": ",
    b"&a *a",
    b"!!python/name:os",
    b"null",
    b"true",
    b"user_id",
    b"item_id",
    b"../",
]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2,
    2**31,
    2**64,
    10**400,
    1.5,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    [],
    [1],
    {},
]
VALUES += ["off", "sasrec", "rank", "../..", "\0", "\ud800", [[1]], {"a": 1}, ["1", 2], "1e3", "none", "9" * 5000]


READINGS: list[dict[str, Any]] = [
    {"on_bad_row": "drop"},
    {"user": "0", "item": "1"},
    {"user": "1", "item": "0", "time": "2", "on_bad_row": "drop"},
    {"time_format": "%Y-%m-%d %H:%M:%S"},
    {"time_format": "%m/%d/%Y %H:%M", "on_bad_row": "drop"},
    {"encoding": "latin-1"},
    {"encoding": "utf-16"},
    {"header": "absent", "user": "0", "item": "1"},
    {"header": "present"},
    {"min_rating": 2.0},
    *({"format": name} for name in ("text", "csv", "jsonl", "inter")),
    {"format": "jsonl", "on_bad_row": "drop"},
]
"""Options that a log is read with, now and then."""


def other_logs() -> dict[str, bytes]:
    """Logs as public data sets have them, by the ends of their names."""
    events = [(user, item, 1 + (user + item) % 5, 1_300_000_000 + 60 * item) for user in (1, 2, 3) for item in range(4)]

    def lines(form: Callable[..., str]) -> bytes:
        return "".join(form(*event) + "\n" for event in events).encode()

    sessions = [
        {"session": user, "events": [{"aid": item, "ts": item, "type": "clicks"} for item in range(4)]}
        for user in (1, 2, 3)
    ]
    lists = pa.table({"session_id": [1, 2], "item_id-list": [["a", "b", "c"], ["b"]], "t-list": [[1, 2, 3], [4]]})
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(lists, sink)
    return {
        ".dat": lines(lambda u, i, r, t: f"{u}::{i}::{r}::{t}"),
        ".data": lines(lambda u, i, r, t: f"{u}\t{i}\t{r}\t{t}"),
        ".log": lines(lambda u, i, r, t: f"{u}|{i:08x}-a|2019-10-01 00:0{i}:00 UTC"),
        ".tsv": b"user\titem\tnote\ttime\n" + lines(lambda u, i, r, t: f'u{u}\t"{i}"\t"a\n b"\t12/1/2010 8:2{i}'),
        ".jsonl": lines(lambda u, i, r, t: json.dumps({"user": u, "asin": f"B{i}", "ts": t, "rating": r, "x": [1]})),
        ".json": "".join(json.dumps(session) + "\n" for session in sessions).encode(),
        ".ndjson": lines(lambda u, i, r, t: repr({"user_id": f"n{u}", "item_id": i, "x": None, "items": []})),
        ".seq.inter": b"user_id:token\titem_id:token_seq\ttime:float\n" + lines(lambda u, i, r, t: f"{u}\t1 {i}\t{t}"),
        ".csv.gz": gzip.compress(b"user,item\n" + lines(lambda u, i, r, t: f"{u},{i}")),
        ".lists.parquet": sink.getvalue().to_pybytes(),
    }


def a_value(draw: np.random.Generator) -> Any:
    """One of them, which may be changed."""
    return copy.deepcopy(VALUES[draw.integers(0, len(VALUES))])


def mutated(generator: np.random.Generator, content: bytes) -> bytes:
    """A few changes anywhere."""
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 5))):
        at = int(generator.integers(0, len(data) + 1))
        kind = generator.integers(0, 6)
        if kind == 0 and data:
            data[at % len(data)] = int(generator.integers(0, 256))
        elif kind == 1:
            data[at:at] = TOKENS[generator.integers(0, len(TOKENS))]
        elif kind == 2:
            del data[at : at + int(generator.integers(1, 40))]
        elif kind == 3:
            data[at:at] = data[: int(generator.integers(0, 200))]
        elif kind == 4:
            del data[at:]
        elif data:
            data[at % len(data)] ^= 1 << int(generator.integers(0, 8))
    return bytes(data)


class Fuzzer:
    """Valid inputs of every kind in a folder, and one target a kind of reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run = folder / "run"
        with tiny.quiet():
            assert tiny.start(run, resume=False) == 0
        self.run = {name: (run / name).read_bytes() for name in ("manifest.json", "config.json", "env.json")}
        self.model = {name: (run / "round-01" / name).read_bytes() for name in (checkpoint.WEIGHTS, checkpoint.CARD)}
        sequences = Sequences.load(run / "round-01" / "trajectories.parquet")
        self.sequences = {".parquet": sequences.to_bytes("parquet"), ".arrow": sequences.to_bytes("arrow")}
        self.state = resume.Snapshot({"a": torch.arange(5.0)}, {"step": 3}).to_bytes()
        text = "1 2 3 4\n2 3 5\n7 1 2 3\n"
        rows = "user_id,item_id,timestamp,rating\n" + "".join(f"u{k % 3},i {k % 5},{k},{k % 5}.0\n" for k in range(12))
        table = pa.table(
            {"user_id": [1, 1, 1, 2, 3], "item_id": ["a", "b", "b", "c", "é"], "timestamp": [1, 2, 3, 4, 5]}
        )
        sinks = {"parquet": pa.BufferOutputStream(), "arrow": pa.BufferOutputStream()}
        pa.parquet.write_table(table, sinks["parquet"])
        with pa.ipc.new_file(sinks["arrow"], table.schema) as writer:
            writer.write_table(table)
        lists = io.BytesIO()
        torch.save([[1, 2, 3], [2, 3, 4, 5], [1, 5]], lists)
        self.logs = {
            ".txt": text.encode(),
            ".csv": rows.encode(),
            ".inter": rows.replace(",", "\t")
            .replace("_id", "_id:token")
            .replace("timestamp", "timestamp:float")
            .replace("rating", "rating:float")
            .encode(),
            ".parquet": sinks["parquet"].getvalue().to_pybytes(),
            ".arrow": sinks["arrow"].getvalue().to_pybytes(),
            ".pth": lists.getvalue(),
            **other_logs(),
        }
        self.targets: dict[str, Callable[[np.random.Generator], object]] = {
            **{f"log {suffix}": lambda draw, suffix=suffix: self.log(draw, suffix) for suffix in self.logs},
            **{
                f"sequences {suffix}": lambda draw, suffix=suffix: self.saved(draw, suffix) for suffix in self.sequences
            },
            "settings values": self.values,
            "settings file": self.settings_file,
            "settings options": self.options,
            "manifest": self.manifest,
            "run folder": self.run_folder,
            "model": self.a_model,
            "state": self.a_state,
            "bindings": fuzz_bindings.one_call,
        }

    def put(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def log(self, draw: np.random.Generator, suffix: str) -> object:
        options = dict(READINGS[draw.integers(0, len(READINGS))]) if draw.random() < 0.5 else {}
        return read(self.put(f"log{suffix}", mutated(draw, self.logs[suffix])), DataConfig(**options))

    def saved(self, draw: np.random.Generator, suffix: str) -> object:
        return Sequences.load(self.put(f"sequences{suffix}", mutated(draw, self.sequences[suffix])))

    def values(self, draw: np.random.Generator) -> object:
        values = to_dict(RecursionConfig())
        for _ in range(int(draw.integers(1, 4))):
            section = (
                values if draw.random() < 0.3 else values[str(draw.choice(["data", "model", "training", "fidelity"]))]
            )
            if isinstance(section, dict):
                name = str(draw.choice([*section, "unknown"])) if section else "unknown"
                section[name] = a_value(draw)
        return from_dict(RecursionConfig, values)

    def settings_file(self, draw: np.random.Generator) -> object:
        suffix = str(draw.choice([".yaml", ".json"]))
        text = (
            "rounds: 3\ngeneration:\n  p: 0.5\nfidelity.tau: [5, 3]\n"
            if suffix == ".yaml"
            else '{"rounds": 3, "seed": "1"}'
        )
        return configuration(RecursionConfig(), str(self.put(f"settings{suffix}", mutated(draw, text.encode()))), {})

    def options(self, draw: np.random.Generator) -> object:
        name = str(draw.choice(list(OPTIONS)))
        value = str(draw.choice([str(value) for value in VALUES]))
        options, given = split_arguments([f"--{name}={value}"])
        return configuration(RecursionConfig(), options.config, given)

    def manifest(self, draw: np.random.Generator) -> object:
        values = json.loads(self.run["manifest.json"])
        del values["checksum"]
        place = values
        while draw.random() < 0.7 and isinstance(place, dict) and place:
            key = str(draw.choice(list(place)))
            if not isinstance(place[key], dict) or draw.random() < 0.2:
                place[key] = a_value(draw)
                break
            place = place[key]
        return self.opened(
            "manifest.json", json.dumps({**values, "checksum": durable.checksum(values)}).encode("utf-8", "replace")
        )

    def run_folder(self, draw: np.random.Generator) -> object:
        name = str(draw.choice(list(self.run)))
        return self.opened(name, mutated(draw, self.run[name]))

    def opened(self, name: str, content: bytes) -> object:
        run = self.folder / "run"
        (run / name).write_bytes(content)
        try:
            return RunDirectory.open(run).finished_rounds()
        finally:
            (run / name).write_bytes(self.run[name])

    def a_model(self, draw: np.random.Generator) -> object:
        files = dict(self.model)
        if draw.random() < 0.5:
            files[checkpoint.WEIGHTS] = mutated(draw, files[checkpoint.WEIGHTS])
        card = json.loads(files[checkpoint.CARD])
        del card["checksum"]
        card["sha256"] = hashlib.sha256(files[checkpoint.WEIGHTS]).hexdigest()
        if draw.random() < 0.5:
            section = card if draw.random() < 0.5 else card["model"]
            section[str(draw.choice(list(section)))] = a_value(draw)
        card["checksum"] = durable.checksum(card)
        files[checkpoint.CARD] = json.dumps(card).encode("utf-8", "replace")
        if draw.random() < 0.2:
            files[checkpoint.CARD] = mutated(draw, files[checkpoint.CARD])
        for name, content in files.items():
            self.put(name, content)
        return checkpoint.load(self.folder)

    def a_state(self, draw: np.random.Generator) -> object:
        folder = self.folder / "run" / "round-03" / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        content = mutated(draw, self.state)
        if draw.random() < 0.5:
            _, _, rest = content.partition(b"\n")
            content = hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest
        (folder / "training-000001").write_bytes(content)
        return list(resume.Checkpointer(folder, lambda *_, **__: None).load("training"))


def fuzz(inputs: int, seed: int, first: int = 0, reached: Any = None) -> collections.Counter[tuple[str, bool]]:
    """Inputs by target and whether they were accepted; ``reached.value`` is the number of the one that is read."""
    counts: collections.Counter[tuple[str, bool]] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fuzzer = Fuzzer(Path(folder))
        names = list(fuzzer.targets)
        for number in range(first, first + inputs):
            name = names[number % len(names)]
            if reached is not None:
                reached.value = number
            try:
                accepted = fuzzer.targets[name](np.random.default_rng([seed, number])) is not False
            except ERRORS:
                accepted = False
            except BaseException:
                print(f"--seed {seed}, input {number}: {name}", file=sys.stderr)
                raise
            counts[name, accepted] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    options = parser.parse_args()
    return watched(report, options.inputs, options.seed, options.first)


def report(inputs: int, seed: int, first: int, reached: Any) -> None:
    """Run, and print how many inputs of each kind were accepted."""
    began = time.perf_counter()
    counts = fuzz(inputs, seed, first, reached)
    for name in dict.fromkeys(name for name, _ in counts):
        print(f"{name:20} {counts[name, True]:9,} accepted {counts[name, False]:9,} refused")
    print(f"{counts.total():,} inputs, documented errors only ({time.perf_counter() - began:,.0f} s)")


def watched(work: Callable[..., None], inputs: int, seed: int, first: int) -> int:
    """The status of ``work`` in a process of its own; says at which input a signal ended it."""
    context = multiprocessing.get_context("spawn")
    reached = context.Value("q", first - 1, lock=False)
    process = context.Process(target=work, args=(inputs, seed, first, reached))
    process.start()
    process.join()
    status = process.exitcode or 0
    if status < 0:
        print(f"--seed {seed}, input {reached.value}: ended the process by signal {-status}", file=sys.stderr)
    return abs(status)


if __name__ == "__main__":
    from tests.harness import fuzz as itself  # by its own name, under which the started process finds the work

    sys.exit(itself.main())

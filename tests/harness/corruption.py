"""Damages the files of a run, a byte or an end at a time: each must be refused with a typed error, or mean the same.

``python -m tests.harness corruption --flips 10000 --seed 0``: a byte of a file, chosen at random, gets another value,
and the file is read as a user would; then every prefix of the manifest, the settings and the model's card is tried,
and one of each so many bytes of the larger files. Saved states of unfinished rounds are caches: a damaged one must be
left out.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from rsir.config import to_dict
from rsir.data import Sequences
from rsir.errors import BackboneError, CheckpointError, ConfigError, DataError, Interrupted, RunError
from rsir.models import checkpoint
from rsir.runs import layout
from rsir.runs.directory import RunDirectory
from rsir.runtime.resume import Checkpointer, Snapshot
from tests.harness import tiny

ERRORS = (RunError, DataError, CheckpointError, ConfigError, BackboneError)
"""What the readers below document."""


def model(path: Path) -> Any:
    loaded = checkpoint.load(path.parent)
    weights = {name: value.numpy().tobytes() for name, value in loaded.state_dict().items()}
    return weights, loaded.config, checkpoint.read_card(path.parent)


def sequences(path: Path) -> Any:
    return Sequences.load(path).fingerprint()


def settings(path: Path) -> Any:
    opened = RunDirectory.open(path.parent)
    return to_dict(opened.config), opened.data, opened.finished_rounds()


def recorded(path: Path) -> Any:
    """A file that the manifest vouches for."""
    opened = RunDirectory.open(path.parents[1])
    return opened.finished_rounds(), opened.read_json(f"{path.parent.name}/{path.name}")


def state(path: Path) -> Any:
    """A cache: refused is what the log says."""
    logged: list[dict[str, Any]] = []
    content = path.read_bytes()
    found = list(
        Checkpointer(path.parent, lambda event, **fields: logged.append(fields)).load(path.name.partition("-")[0])
    )
    path.write_bytes(content)
    if not found:
        assert "damaged" in logged[0]["cause"] or "version" in logged[0]["cause"], logged
        raise RunError("left out")
    return found[0].values, {name: value.numpy().tobytes() for name, value in found[0].tensors.items()}


READERS: dict[str, Callable[[Path], Any]] = {
    "manifest.json": settings,
    "config.json": settings,
    "round-01/model.safetensors": model,
    "round-01/model.json": model,
    "round-01/metrics.json": recorded,
    "round-01/trajectories.parquet": sequences,
    "round-01/trajectories.arrow": sequences,
    "round-03/partial/training-000001": state,
}


def prepare(folder: Path) -> None:
    """A run with one file of each kind."""
    with tiny.quiet():
        assert tiny.start(folder, resume=False) == 0
    loaded = Sequences.load(folder / "round-01" / "trajectories.parquet")
    loaded.save(folder / "round-01" / "trajectories.arrow")
    partial = folder / "round-03" / layout.PARTIAL
    partial.mkdir(parents=True)
    tensors = {"a": torch.arange(12.0), "b": torch.arange(5, dtype=torch.uint8)}
    with suppress(Interrupted):
        Checkpointer(partial, lambda *_, **__: None).maybe_save(
            "training", lambda: Snapshot(tensors, {"step": 3}), stopping=True
        )


def outcome(path: Path, read: Callable[[Path], Any], damaged: bytes, expected: Any) -> str:
    path.write_bytes(damaged)
    try:
        found = read(path)
    except ERRORS:
        return "refused"
    assert found == expected, "reads as something else"
    return "reads the same"


def harness(flips: int, seed: int, every: int = 1, report: Callable[[str], None] = print) -> None:
    """AssertionError, or whatever a reader raises that it does not document, at the first damage that does harm."""
    draw = random.Random(seed)
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        prepare(folder)
        originals = {name: (folder / name).read_bytes() for name in READERS}
        expected = {name: read(folder / name) for name, read in READERS.items()}

        def attempt(kind: str, name: str, damaged: bytes, what: str) -> None:
            try:
                result = outcome(folder / name, READERS[name], damaged, expected[name])
            except BaseException:
                print(f"{name}: {what}", file=sys.stderr)
                raise
            finally:
                (folder / name).write_bytes(originals[name])
            counts[name, kind, result] += 1

        for number in range(flips):
            name = list(READERS)[number % len(READERS)]
            place, change = draw.randrange(len(originals[name])), draw.randrange(1, 256)
            damaged = bytearray(originals[name])
            damaged[place] ^= change
            attempt("flips", name, bytes(damaged), f"byte {place} xor {change}")
        for name, original in originals.items():
            for length in range(0, len(original), every):
                attempt("cuts", name, original[:length], f"cut to {length} bytes")
    for (name, kind, result), count in sorted(counts.items()):
        report(f"{count:7,} {kind}  {name:34} {result}")
    total = counts.total()
    report(f"{total:,} of {total:,} damages refused with a typed error or harmless ({flips:,} flips)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="only every n-th truncation of each file")
    options = parser.parse_args()
    harness(options.flips, options.seed, options.every)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What an unfinished round has so far, kept in its folder, so that a resumed run goes on in the middle of it.

These files are caches. Each holds a checksum; one that is torn, damaged or of another version is left out with a line
in the log, and what it held is computed again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from rsir import __version__, files
from rsir.errors import Interrupted
from rsir.runtime.world import ALONE, World

__all__ = [
    "EVERY",
    "NO_CHECKPOINTS",
    "SHARE",
    "Checkpointer",
    "Checkpoints",
    "NoCheckpoints",
    "Snapshot",
    "tensors_to_bytes",
]

EVERY = 10.0
"""Seconds between two saves, at least: what a killed run has to compute again, about."""
SHARE = 0.02
"""Most of the time that saving may take; where a save takes long, the next one waits."""
_VERSION = f"rsir {__version__} partial 4"


@dataclass(frozen=True)
class Snapshot:
    """Tensors by name, and JSON values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """A line with the SHA-256 of the rest, a line of JSON, and safetensors."""
        values = json.dumps({"version": _VERSION, "values": dict(self.values)}).encode()
        content = values + b"\n" + tensors_to_bytes(self.tensors)
        return hashlib.sha256(content).hexdigest().encode() + b"\n" + content

    @classmethod
    def from_bytes(cls, content: bytes) -> Snapshot:
        """What :meth:`to_bytes` was called on; ValueError and the like where it is damaged or of another version."""
        digest, _, content = content.partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise ValueError("damaged: SHA-256 differs")
        values, _, tensors = content.partition(b"\n")
        header = json.loads(values)
        if header["version"] != _VERSION:
            raise ValueError(f"written by another version: {header['version']}")
        return cls(safetensors.torch.load(tensors), header["values"])


class Checkpoints(Protocol):
    """A place for unfinished work: a folder (:class:`Checkpointer`), or none (:class:`NoCheckpoints`)."""

    def maybe_save(
        self, kind: str, make: Callable[[], Snapshot | None], keep: int | None = None, *, stopping: bool = False
    ) -> None:
        """Save if it is time to.

        Parameters
        ----------
        kind : str
            Kind of the work, letters only.
        make : callable
            Gives what to save, or None if there is nothing new.
        keep : int, optional
            Only the newest ``keep`` files of this kind are kept; default all.
        stopping : bool, default False
            Save now and stop.

        Raises
        ------
        Interrupted
            ``stopping``; saved before.
        RunError
            The disk refuses.
        """

    def save(self, kind: str, make: Callable[[], Snapshot | None], keep: int | None = None) -> None:
        """As :meth:`maybe_save`, now and without stopping."""

    def remove(self, kind: str) -> None:
        """Remove what there is of a kind."""

    def newest(self, kind: str) -> Snapshot | None:
        """The newest intact one of a kind, read by the first process for all; None: there is none."""

    def load(self, kind: str) -> Iterator[Snapshot]:
        """Every intact one of a kind, newest first."""

    def names(self, kind: str) -> list[str]:
        """Names of those of a kind, oldest first, as the first process sees them."""

    def read(self, names: Iterable[str]) -> Iterator[Snapshot]:
        """Those of some names that are intact; the others are removed."""


class NoCheckpoints:
    """Nothing is saved and nothing is there; see :class:`Checkpoints`."""

    def maybe_save(
        self, kind: str, make: Callable[[], Snapshot | None], keep: int | None = None, *, stopping: bool = False
    ) -> None:
        if stopping:
            raise Interrupted("stopped as asked")

    def save(self, kind: str, make: Callable[[], Snapshot | None], keep: int | None = None) -> None:
        pass

    def remove(self, kind: str) -> None:
        pass

    def newest(self, kind: str) -> Snapshot | None:
        return None

    def load(self, kind: str) -> Iterator[Snapshot]:
        return iter(())

    def names(self, kind: str) -> list[str]:
        return []

    def read(self, names: Iterable[str]) -> Iterator[Snapshot]:
        return iter(())


NO_CHECKPOINTS = NoCheckpoints()


class Checkpointer:
    """The unfinished work of one round, in a folder; see :class:`Checkpoints`.

    Parameters
    ----------
    folder : Path
        An existing folder for the files.
    log : callable
        Takes an event and fields to go with it; told of files that cannot be used.
    world : World, optional
        Processes that share the folder and make this together.
    """

    def __init__(self, folder: Path, log: Callable[..., None], world: World = ALONE) -> None:
        self._folder, self._log, self._world = folder, log, world
        newest = world.broadcast_object(lambda: max((number for _, number, _ in self._files()), default=0))
        self._number = newest + 1 + world.rank  # of the next file; every process has numbers of its own
        self._due = time.perf_counter() + EVERY

    def maybe_save(
        self, kind: str, make: Callable[[], Snapshot | None], keep: int | None = None, *, stopping: bool = False
    ) -> None:
        if stopping or time.perf_counter() >= self._due:
            self.save(kind, make, keep)
        if stopping:
            raise Interrupted("stopped as asked")

    def save(self, kind: str, make: Callable[[], Snapshot | None], keep: int | None = None) -> None:
        began = time.perf_counter()
        saved = make()
        if saved is not None:
            self._write(kind, saved, keep)
        now = time.perf_counter()
        self._due = now + max(EVERY, (now - began) * (1 / SHARE - 1))

    def remove(self, kind: str) -> None:
        for name in [name for name, _, other in self._files() if other == kind]:
            self._drop(name)

    def newest(self, kind: str) -> Snapshot | None:
        return self._world.broadcast_object(
            lambda: next(self.load(kind), None),
            lambda saved: b"" if saved is None else saved.to_bytes(),
            lambda content: Snapshot.from_bytes(content) if content else None,
        )

    def load(self, kind: str) -> Iterator[Snapshot]:
        return self.read([name for name, _, other in reversed(self._files()) if other == kind])

    def names(self, kind: str) -> list[str]:
        return self._world.broadcast_object(lambda: [name for name, _, other in self._files() if other == kind])

    def read(self, names: Iterable[str]) -> Iterator[Snapshot]:
        for name in names:
            try:
                yield Snapshot.from_bytes(self._get(name))
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as cause:
                file = f"{self._folder.parent.name}/{self._folder.name}/{name}"
                self._log("discarded", file=file, cause=str(cause), then="what it held is computed again")
                self._drop(name)

    def _write(self, kind: str, saved: Snapshot, keep: int | None) -> None:
        self._put(f"{kind}-{self._number:06d}", saved.to_bytes())
        self._number += self._world.size
        if keep is not None:
            for name, _, _ in [entry for entry in self._files() if entry[2] == kind][:-keep]:
                self._drop(name)

    def _files(self) -> list[tuple[str, int, str]]:
        """(name, number, kind) of every file, oldest first."""
        found = [(name, re.fullmatch(r"([a-z]+)-(\d{6,})", name)) for name in self._listed()]
        return sorted(((name, int(match[2]), match[1]) for name, match in found if match), key=lambda entry: entry[1])

    # where the files are

    def _listed(self) -> Iterable[str]:
        return [path.name for path in self._folder.iterdir()]

    def _get(self, name: str) -> bytes:
        return files.read_bytes(self._folder / name)

    def _put(self, name: str, content: bytes) -> None:
        files.replace(self._folder / name, content)

    def _drop(self, name: str) -> None:
        with suppress(OSError):
            (self._folder / name).unlink()


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name in the safetensors format, which nothing has to be unpickled from.

    Those that share memory, as tied weights do, are written each for itself.
    """
    unshared: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        here = value.detach().cpu().contiguous()
        place = here.untyped_storage().data_ptr()
        unshared[name] = here.clone() if place in seen else here
        seen.add(place)
    return safetensors.torch.save(unshared)

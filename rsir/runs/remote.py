"""Runs in object storage: a copy of the run's folder on this machine, every file of which is an object as well.

The process that writes the run holds a claim on it (:mod:`rsir.objects.claim`). It writes each file into its copy and
then the object, in the order of a folder: a round's files, the manifest with their checksums, DONE. Objects are whole
or not there, so a run that was cut short is what a folder would be, and is resumed from its objects alone. What an
unfinished round has so far is objects without a copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsir import files
from rsir.config import RecursionConfig
from rsir.errors import RsirError, RunError
from rsir.objects.address import Address, address_of, place
from rsir.objects.claim import Claim
from rsir.objects.copies import empty_copy
from rsir.objects.storage import Storage
from rsir.runs.directory import RunDirectory
from rsir.runs.layout import CONFIG, DONE, ENVIRONMENT, LOG, MANIFEST, PARTIAL, ROUND, check_folder
from rsir.runtime.environment import environment
from rsir.runtime.profiling import FOLDER as PROFILE
from rsir.runtime.resume import Checkpointer, Checkpoints
from rsir.runtime.world import ALONE, World

if TYPE_CHECKING:
    from rsir.data.sequences import Sequences

__all__ = ["RemoteDirectory"]


class RemoteDirectory(RunDirectory):
    """A run at an address; ``path`` is the copy."""

    def __init__(self, path: Path, config: RecursionConfig, data: str, lock: Any) -> None:
        super().__init__(path, config, data, lock)
        self._storage = Storage(address_of(path))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: RecursionConfig,
        data: str,
        *,
        resume: bool = False,
        device: str = "cpu",
    ) -> RemoteDirectory:
        address = place(path)
        assert isinstance(address, Address)
        check_folder(address, resume=resume)
        storage = Storage(address)
        claim = Claim(storage)
        try:
            check_folder(address, resume=resume)  # once more: another process could have begun here until now
            copy, ours = empty_copy(address), environment(device)
            if resume:
                storage.fetch(copy, _finished_files)
                directory = cls._reopen(copy, config, data, claim, ours)
            else:
                directory = cls._begin(copy, config, data, claim, ours)
        except BaseException:
            with suppress(RsirError):
                if not resume and MANIFEST not in storage.entries():
                    for name in (CONFIG, ENVIRONMENT, LOG):
                        storage.remove(name)
            claim.release()
            raise
        assert isinstance(directory, cls)
        return directory

    def write_bytes(self, name: str, content: bytes) -> None:
        super().write_bytes(name, content)
        self._send(name)

    def write_sequences(self, name: str, data: Sequences) -> None:
        super().write_sequences(name, data)
        self._send(name)

    def log(self, event: str, **fields: Any) -> None:
        super().log(event, **fields)
        self._send(LOG)

    def checkpoints(self, round_: int, world: World = ALONE) -> Checkpoints:
        folder, claim = self.partial_path(round_).relative_to(self.path), self._lock
        check = claim.check if isinstance(claim, Claim) else lambda: None
        return _ObjectCheckpointer(self._storage, folder, check, self._told, world)

    def at_hand(self, round_: int) -> None:
        folder = self.round_path(round_)
        if self._lock is None and not (folder / DONE).exists():
            self._storage.fetch(self.path, lambda name: name.startswith(f"{folder.name}/") and _finished_files(name))

    def start_round(self, round_: int) -> str:
        name = super().start_round(round_)
        self._remove(lambda other: other.startswith(f"{name}/") and _finished_files(other))
        return name

    def finish_round(self, round_: int) -> None:
        super().finish_round(round_)
        self._remove(lambda name: name.startswith(f"{self.round_path(round_).name}/{PARTIAL}/"))

    def close(self) -> None:
        if self._lock is not None:
            for file in sorted((self.path / PROFILE).glob("*")):
                self._send(f"{PROFILE}/{file.name}")
        super().close()

    def _send(self, name: str) -> None:
        """Write a file's object; the manifest and what marks a round as finished only after asking the storage whether
        the run is still this process's."""
        claim = self._lock
        assert isinstance(claim, Claim)
        claim.check(fully=name == MANIFEST or name.endswith(f"/{DONE}"))
        self._storage.send(name, files.inside(self.path, name))

    def _remove(self, chosen: Callable[[str], bool]) -> None:
        for name in [name for name in self._storage.entries() if chosen(name)]:
            self._storage.remove(name)

    def _discard(self, finished: int) -> None:
        super()._discard(finished)

        def left_over(name: str) -> bool:
            match = ROUND.fullmatch(name.partition("/")[0])
            if match is None or int(match[1]) < finished:
                return match is not None and not _finished_files(name)
            return int(match[1]) > finished or _finished_files(name)

        self._remove(left_over)


class _ObjectCheckpointer(Checkpointer):
    """The unfinished work of one round as objects; `check` raises where the run is not this process's any more."""

    def __init__(
        self, storage: Storage, folder: Path, check: Callable[[], None], log: Callable[..., None], world: World
    ) -> None:
        self._storage, self._check = storage, check
        super().__init__(folder, log, world)

    def _listed(self) -> Iterable[str]:
        return [name.rpartition("/")[2] for name in self._storage.entries(self._folder.as_posix())]

    def _get(self, name: str) -> bytes:
        return self._storage.read(f"{self._folder.as_posix()}/{name}")

    def _put(self, name: str, content: bytes) -> None:
        self._check()
        self._storage.write(f"{self._folder.as_posix()}/{name}", content)

    def _drop(self, name: str) -> None:
        with suppress(RunError):
            self._storage.remove(f"{self._folder.as_posix()}/{name}")


def _finished_files(name: str) -> bool:
    return f"/{PARTIAL}/" not in name

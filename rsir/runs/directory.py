"""Run directories: what a run wrote survives any interruption, and damage to it is noticed.

What a run's folder holds is said in :mod:`rsir.runs.layout`. Every file but the log is written whole or not at all
(:mod:`rsir.files`). Formats are JSON, Arrow and safetensors; nothing here can execute.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rsir import files
from rsir.config import RecursionConfig, to_dict
from rsir.errors import RunError
from rsir.files import Lock
from rsir.objects.address import place
from rsir.runs import manifest
from rsir.runs.damage import damage_of
from rsir.runs.layout import (
    CONFIG,
    DONE,
    ENVIRONMENT,
    LOG,
    MANIFEST,
    PARTIAL,
    check_folder,
    finished_in,
    round_folders,
    round_name,
)
from rsir.runtime.environment import environment
from rsir.runtime.resume import Checkpointer, Checkpoints
from rsir.runtime.world import ALONE, World

if TYPE_CHECKING:
    from rsir.data.sequences import Sequences
    from rsir.objects.claim import Claim

__all__ = ["RunDirectory", "RunError", "config_of", "here"]


class RunDirectory:
    """A run's folder; made by :meth:`create` (to write) or :meth:`open` (to read).

    Attributes
    ----------
    path : Path
    config : RecursionConfig
    data : str
        Fingerprint of the data the run was made from.
    """

    def __init__(self, path: Path, config: RecursionConfig, data: str, lock: Lock | Claim | None) -> None:
        self.path, self.config, self.data, self._lock = path, config, data, lock
        self._rounds: manifest.Rounds = {}
        self._done: list[int] | None = None  # where a run is read, which another process may be writing

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: RecursionConfig,
        data: str,
        *,
        resume: bool = False,
        device: str = "cpu",
    ) -> RunDirectory:
        """Begin a run in a folder that is new or empty, or resume the one in it.

        Parameters
        ----------
        path : path
            Its parents are made too.
        config : RecursionConfig
        data : str
            Fingerprint of the data.
        resume : bool, default False
            The folder holds a run; what an interruption left unfinished there is removed, but for what the next
            round can go on from (:meth:`partial`). The run must have the
            same settings and data, but ``rounds`` may be larger, the data may lie elsewhere, and ``stop_after``,
            ``guard`` and ``generation.slots`` are free.
        device : str, default "cpu"
            What computes the run, for env.json.

        Raises
        ------
        RunError
            The folder holds another run, something else or (with `resume`) nothing; an option or the data differ;
            a finished round is damaged; another process is writing; the disk refuses. Nothing has been changed then.
        """
        path = files.local(path)
        check_folder(path, resume=resume)
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            files.make_folder(path)
            lock = Lock(path)
            try:
                check_folder(path, resume=resume)  # once more: another process could have begun here until now
                ours = environment(device)
                if resume:
                    return cls._reopen(path, config, data, lock, ours)
                return cls._begin(path, config, data, lock, ours)
            except BaseException:
                lock.release()
                raise
        except BaseException as cause:
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
            if isinstance(cause, OSError):
                raise files.refused(path, cause) from cause
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """A run to read from; of one at an address a copy, which lasts as long as the process.

        Raises
        ------
        RunError
            There is none, it is damaged, or another version of rsir wrote it.
        """
        path = here(path)
        check_folder(path, resume=True)
        done = finished_in(path)  # before the manifest: it records a round before the round is marked as finished
        config, data, rounds = manifest.read(path / MANIFEST, path / CONFIG)
        directory = cls(path, config, data, None)
        directory._rounds, directory._done = rounds, done
        return directory

    @classmethod
    def _begin(
        cls, path: Path, config: RecursionConfig, data: str, lock: Lock | Claim, ours: dict[str, Any]
    ) -> RunDirectory:
        directory = cls(path, config, data, lock)
        try:
            _remove_temporary(path)
            directory.write_json(CONFIG, to_dict(config))
            directory.write_json(ENVIRONMENT, ours)
            directory.log("begin", rounds=config.rounds)
            directory._write_manifest()  # last: with it there is a run
        except BaseException:
            for name in (MANIFEST, CONFIG, ENVIRONMENT, LOG):
                with suppress(OSError):
                    (path / name).unlink()
            raise
        return directory

    @classmethod
    def _reopen(
        cls, path: Path, config: RecursionConfig, data: str, lock: Lock | Claim, ours: dict[str, Any]
    ) -> RunDirectory:
        directory = cls.open(path)
        manifest.compare(path, directory.config, config, directory.data == data)
        finished = directory.finished_rounds()
        directory._lock = lock
        directory._discard(finished)
        if config != directory.config:
            directory.config = config
            directory._write_manifest()
        if directory.read_json(CONFIG) != to_dict(config):
            directory.write_json(CONFIG, to_dict(config))
        before, now = directory.read_json(ENVIRONMENT), ours
        changed = {key: [before.get(key), value] for key, value in now.items() if before.get(key) != value}
        directory.log("resume", rounds=config.rounds, finished=finished, environment_changed=changed)
        return directory

    def finished_rounds(self) -> int:
        """Number of finished rounds, every file of which has been found as it was written.

        Raises
        ------
        RunError
            Names the file that is missing or damaged, or the round that is missing, and how to fix it.
        """
        for message in damage_of(self.path, self.done_rounds(), self._rounds):
            raise RunError(message)
        return len(self.done_rounds())

    def done_rounds(self) -> list[int]:
        """Numbers of the rounds that are marked as finished, whole or not; for a reader, when it opened the run."""
        return finished_in(self.path) if self._lock is not None or self._done is None else self._done

    def damage(self) -> list[str]:
        """What is missing or damaged of the finished rounds, a message each; empty where every file is whole."""
        return list(damage_of(self.path, self.done_rounds(), self._rounds))

    def round_path(self, round_: int) -> Path:
        """Folder of a round."""
        return self.path / round_name(round_)

    def checkpoints(self, round_: int, world: World = ALONE) -> Checkpoints:
        """Where a round keeps what it has before it is finished."""
        folder = self.partial_path(round_) if self._lock is None else self.partial(round_)
        return Checkpointer(folder, self._told, world)

    def at_hand(self, round_: int) -> None:
        """Have the files of a finished round in :meth:`round_path`, where they always are in a folder."""

    def partial_path(self, round_: int) -> Path:
        """Where :meth:`partial` is."""
        return self.round_path(round_) / PARTIAL

    def partial(self, round_: int) -> Path:
        """Folder for what a round has before it is finished; made if need be, removed when the round is finished."""
        self._writable()
        folder = self.partial_path(round_)
        try:
            files.make_folder(folder)
        except OSError as cause:
            raise files.refused(folder, cause) from cause
        return folder

    def start_round(self, round_: int) -> str:
        """Make a round's folder, empty but for what is partial; returns its name inside the run."""
        self._writable()
        folder = self.round_path(round_)
        try:
            folder.mkdir(exist_ok=True)
            _clear(folder)
            files.sync(self.path)
        except OSError as cause:
            raise files.refused(folder, cause) from cause
        return folder.name

    def finish_round(self, round_: int) -> None:
        """Record what the round's folder holds and mark the round as finished."""
        self._writable()
        folder = self.round_path(round_)
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name != DONE)
            self._rounds[folder.name] = {name: files.digest(folder / name) for name in names}
        except OSError as cause:
            raise files.refused(folder, cause) from cause
        self._write_manifest()
        self.log("round", round=round_)
        self.write_bytes(f"{folder.name}/{DONE}", b"")
        try:
            files.remove(folder / PARTIAL)
        except OSError as cause:
            raise files.refused(folder, cause) from cause

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; `name` is relative to the run's folder.

        Raises
        ------
        RunError
            The disk refuses (the old content, if any, is still there), or the name leads out of the folder.
        """
        self._writable()
        files.replace(files.inside(self.path, name), content)

    def write_sequences(self, name: str, data: Sequences) -> None:
        """Write what `Sequences.load` reads back; otherwise as :meth:`write_bytes`."""
        from rsir.data import storage  # loads Arrow, which reading a run's settings does not need

        self._writable()
        storage.save(data, files.inside(self.path, name), RunError)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON: keys sorted, floats as short as they read back exactly, nan as null, newline at the end."""
        self.write_bytes(name, files.to_json(value))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; RunError if it is missing or damaged."""
        return files.read_json(files.inside(self.path, name))

    def log(self, event: str, **fields: Any) -> None:
        """Append a line to log.jsonl: the time (UTC), the event and what belongs to it."""
        self._writable()
        self._append(event, fields)

    def _told(self, event: str, **fields: Any) -> None:
        """:meth:`log` for what any process of a run may find, also one that does not hold the run's lock."""
        if self._lock is None:
            self._append(event, fields)
        else:
            self.log(event, **fields)

    def _append(self, event: str, fields: dict[str, Any]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps(files.plain({"time": now, "event": event, **fields}), allow_nan=False)
        files.append(self.path / LOG, line.encode() + b"\n")

    def close(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self) -> None:
        if self._lock is None:
            raise RunError(f"{self.path}: open for reading only; use RunDirectory.create(..., resume=True) to write")

    def _discard(self, finished: int) -> None:
        """Remove what an interruption left: unfinished rounds, all but what is partial, and temporary files."""
        keep = [self.round_path(number) for number in range(finished)]
        try:
            for number in round_folders(self.path):
                folder = self.round_path(number)
                if number < finished:
                    files.remove(folder / PARTIAL)
                elif number == finished and (folder / PARTIAL).is_dir():
                    _clear(folder)
                else:
                    files.remove(folder)
            unfinished = self.round_path(finished) / PARTIAL
            folders = [self.path, *keep, *([unfinished] if unfinished.exists() else [])]
            for folder in folders:
                _remove_temporary(folder)
        except OSError as cause:
            named = isinstance(cause.filename, str) and os.path.dirname(cause.filename)
            raise files.refused(Path(cause.filename) if named else self.path, cause) from cause
        self._rounds = {folder.name: self._rounds[folder.name] for folder in keep}

    def _write_manifest(self) -> None:
        self.write_bytes(MANIFEST, manifest.encode(self.config, self.data, self._rounds))


def here(path: str | os.PathLike[str]) -> Path:
    """A run's folder on this machine: a copy of one at an address."""
    where = place(path)
    if isinstance(where, Path):
        return where
    from rsir.objects.copies import fetched  # loads Arrow

    return fetched(where)


def config_of(path: str | os.PathLike[str]) -> RecursionConfig:
    """The settings of a run; of one at an address nothing else is fetched."""
    where = place(path)
    if isinstance(where, Path):
        return RunDirectory.open(where).config
    from rsir.objects.copies import fetched

    check_folder(where, resume=True)
    return RunDirectory.open(fetched(where, {MANIFEST, CONFIG}.__contains__)).config


def _clear(folder: Path) -> None:
    """Remove everything in a round's folder but what is partial."""
    files.clear(folder, lambda name: name != PARTIAL)


def _remove_temporary(folder: Path) -> None:
    """Remove the files that an interruption left half-written."""
    # the run's own folder may be a link
    files.clear(Path(os.path.realpath(folder)), lambda name: files.TEMPORARY.fullmatch(name) is not None)

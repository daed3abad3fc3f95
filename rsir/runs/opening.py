"""How a run is opened: its folder by the first of several processes to write, by the others to read; or memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsir import __version__
from rsir.config import RecursionConfig, flat
from rsir.data.sequences import Sequences
from rsir.errors import ConfigError, RunError, WorldError
from rsir.objects.address import Address, place
from rsir.runs.directory import RunDirectory
from rsir.runs.layout import DATA, LOG
from rsir.runs.store import FolderRun, Follower, MemoryRun, RunStore
from rsir.runtime.world import World

__all__ = ["open_run"]


def open_run(
    out: str | Path | Address | None,
    config: RecursionConfig,
    data: Sequences,
    resume: bool,
    world: World,
    device: str = "cpu",
) -> RunStore:
    """Where a run is kept: its folder, begun or resumed by the first process and open for reading in the others,
    or memory.

    Raises
    ------
    ConfigError
        Processes were given different settings, data or versions.
    RunError
        As of :meth:`RunDirectory.create`; several processes without a folder, or that do not see the same one.
    """
    if world.size > 1:
        if out is None:
            raise RunError(
                "several processes hand their work to each other in the run's folder: expected out, got None"
            )
        _agree(world, config, data)
        if not world.is_main:
            return Follower(_follow(place(out), world.broadcast_object(lambda: "")), world)
    elif out is None:
        return MemoryRun(config)
    directory = _kind(place(out)).create(out, config, data.fingerprint(), resume=resume, device=device)
    try:
        if world.size > 1:
            directory.log("processes", count=world.size, restarted=world.restarted)
            world.broadcast_object(lambda: _end_of_log(directory.path))
        if not (directory.path / DATA).exists():
            directory.write_sequences(DATA, data)
        return FolderRun(directory, world)
    except BaseException:
        directory.close()
        raise


def _agree(world: World, config: RecursionConfig, data: Sequences) -> None:
    """Refuse processes that were not started alike; the data may lie elsewhere."""
    own: dict[str, Any] = {"the version": __version__, **flat(config), "the data": data.fingerprint()}
    first = world.broadcast_object(lambda: own)
    differs = [name for name in own if name != "data.path" and own[name] != first.get(name)]
    if not world.any(bool(differs)):
        return
    if differs:
        name = differs[0]
        raise ConfigError(
            f"{name} is {own[name]} here and {first.get(name)} in rank 0; start all processes with the same options, "
            "data and version of rsir"
        )
    world.barrier()  # until those that differ have said so, and ended
    raise WorldError("another process was started with other settings or data")


def _kind(path: Path | Address) -> type[RunDirectory]:
    if isinstance(path, Path):
        return RunDirectory
    from rsir.runs.remote import RemoteDirectory  # loads Arrow

    return RemoteDirectory


def _follow(path: Path | Address, end_of_log: str) -> RunDirectory:
    """The folder that the first process writes; it is known by the end of its log, which holds the time."""
    try:
        if isinstance(path, Address):
            directory = _kind(path).open(path)
            if _end_of_log(directory.path) == end_of_log:
                return directory
        elif _end_of_log(path) == end_of_log:
            return RunDirectory.open(path)
        cause = "another run is there"
    except (OSError, RunError) as error:
        cause = str(error)
    raise RunError(
        f"{path}: the run that rank 0 writes is not seen here ({cause}); with several machines --out must be a folder "
        "that all of them share"
    )


def _end_of_log(path: Path) -> str:
    return (path / LOG).read_text(errors="replace")[-200:]

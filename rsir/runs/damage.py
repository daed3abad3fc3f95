"""What is missing or damaged of a run's finished rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rsir import files
from rsir.runs.manifest import Rounds

__all__ = ["damage_of"]


def damage_of(run: Path, done: Sequence[int], recorded: Rounds) -> Iterator[str]:
    """A message for each fault: what is wrong, and how to fix it.

    Parameters
    ----------
    run : Path
        The folder of the run.
    done : sequence of int
        Numbers of the rounds that are marked as finished, ascending.
    recorded : Rounds
        What the manifest says of the files of each finished round.
    """
    for number in done:
        yield from _damage_of_round(run / f"round-{number:02d}", recorded, _fix(number))
    if list(done) != list(range(len(done))):
        missing = next(number for number, other in enumerate(done) if number != other)
        yield f"{run / f'round-{missing:02d}'}: is not finished, yet later rounds are; {_fix(missing)}"


def _damage_of_round(folder: Path, recorded: Rounds, fix: str) -> Iterator[str]:
    if folder.name not in recorded:
        yield f"{folder}: is marked DONE but not recorded in manifest.json; {fix}"
    for name, written in recorded.get(folder.name, {}).items():
        path = files.inside(folder, name)
        try:
            found = files.digest(path)
        except FileNotFoundError:
            yield f"{path}: is missing; put it back, or {fix}"
            continue
        except OSError as cause:
            yield f"{path}: cannot be read: {cause.strerror}; fix that, or {fix}"
            continue
        if found != written:
            sizes = f"{found['size']:,} bytes where {written['size']:,} were written"
            what = "other content" if found["size"] == written["size"] else sizes
            yield f"{path}: is damaged ({what}); put the original back, or {fix}"


def _fix(number: int) -> str:
    folders = f"the folder round-{number:02d} and those of all later rounds"
    return f"remove {folders}, and --resume makes them again"

"""What a run's folder holds, and what the names in one say: whether there is a run, and which rounds are finished.

A run's folder::

    config.json     every setting, to be read by people; the run goes by the copy in manifest.json
    env.json        versions of what computed it
    data.parquet    the real sequences
    items.parquet   vectors and titles of the items, where there are any
    manifest.json   settings; fingerprint of the data; size and SHA-256 of every file of every finished round
    metrics.jsonl   a line for each finished round
    baselines.json  metrics of the item-kNN and of popularity
    update.json     where it goes on from another run: which, and what was added
    log.jsonl       what happened when
    report.html     the run to look at (rsir.report), written anew after every round
    round-00/       model, metrics, ...; a last file, DONE, marks the round as finished
    round-00/partial/   until then: what the round has so far (rsir.runtime.resume)
    .lock           there while a process writes
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rsir import files
from rsir.errors import RunError
from rsir.files import Lock
from rsir.objects.address import Address, place
from rsir.runs.links import refuse_links

__all__ = ["check_folder", "finished_in", "names_at", "round_folders", "round_name"]

CONFIG, ENVIRONMENT, MANIFEST, LOG, DONE = "config.json", "env.json", "manifest.json", "log.jsonl", "DONE"
DATA = "data.parquet"
"""The real sequences with their labels, so that the run is complete without the file they came from. The manifest holds
their fingerprint."""
METRICS = "metrics.jsonl"
"""A line for each finished round: :meth:`rsir.runs.rounds.RoundResult.metrics`."""
REFIT = "refit.json"
"""There in the place of a manifest where the folder holds a refit (:mod:`rsir.runs.refit`)."""
UPDATE = "update.json"
"""There where the run goes on from another (:mod:`rsir.recursion.update`)."""
BASELINES = "baselines.json"
"""Metrics of the item-kNN and of popularity (:mod:`rsir.runs.baselines`)."""
PARTIAL = "partial"
_FIRST = {CONFIG, ENVIRONMENT, LOG, Lock.NAME}  # what there may be before the manifest
ROUND = re.compile(r"round-(\d{2,})")


def check_folder(path: str | os.PathLike[str], *, resume: bool) -> None:
    """By names alone: raise RunError unless a run can be begun in a folder, or with `resume` be resumed."""
    path = place(path)
    names = names_at(path) if isinstance(path, Address) else names_in(path)
    if MANIFEST in names:
        if not resume:
            raise RunError(f"{path}: holds a run already; resume it with --resume, or choose another --out")
        return
    if REFIT in names:
        fix = "inspect, resume or report the run that it was made from" if resume else "choose another --out"
        raise RunError(f"{path}: holds a refit, which serves and has neither rounds nor metrics of its own; {fix}")
    ours = {name for name in names if name in _FIRST or files.TEMPORARY.fullmatch(name)}
    begun = Lock.NAME in names and names == ours  # interrupted before there was anything to resume
    if resume:
        state = "the one in it was interrupted before it began" if begun else "there is none"
        raise RunError(f"{path}: no run to resume, {state}; start it without --resume")
    if names and not begun:
        raise RunError(f"{path}: holds files that are not of a run ({_some(names)}); choose another --out")


def names_in(path: Path) -> set[str]:
    """What is in a folder, which need not be there; RunError for what is no folder, or has links of a run's names."""
    try:
        names = set(os.listdir(path)) if os.path.lexists(path) else set()
    except NotADirectoryError as cause:
        raise RunError(f"{path}: is a file, expected a folder; choose another --out") from cause
    except OSError as cause:
        raise RunError(f"{path}: cannot be read: {cause.strerror}; choose another --out") from cause
    refuse_links(path)
    return names


def names_at(address: Address) -> set[str]:
    """The first parts of the names of the objects below an address; RunError where an object has the address itself."""
    from rsir.objects.storage import Storage

    storage = Storage(address)
    if storage.kind() == "file":
        raise RunError(f"{address}: is an object, expected a folder; choose another --out")
    return {name.partition("/")[0] for name in storage.entries()}


def round_name(round_: int) -> str:
    return f"round-{round_:02d}"


def round_folders(run: Path) -> list[int]:
    """Numbers of the rounds that a run has a folder of."""
    numbers = [int(match[1]) for name in os.listdir(run) if (match := ROUND.fullmatch(name))]
    return sorted(number for number in set(numbers) if (run / round_name(number)).is_dir())


def finished_in(run: Path) -> list[int]:
    """Numbers of the rounds that are marked as finished."""
    return [number for number in round_folders(run) if (run / round_name(number) / DONE).exists()]


def _some(names: set[str], most: int = 3) -> str:
    return ", ".join(sorted(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

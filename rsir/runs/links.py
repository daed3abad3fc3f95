"""Links and special files in a run's folder, which somebody else may have made: none is followed or opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rsir.errors import RunError

__all__ = ["refuse_links"]

_OURS = re.compile(
    r"round-\d+|profile|(config|env|manifest|update)\.json|(log|metrics)\.jsonl|(data|items)\.parquet|report\.html|\.lock|\..*\.tmp"
)
"""Names in a run's folder that a run reads, writes or removes; trackers keep others there, with links among them."""


def refuse_links(run: Path) -> None:
    """RunError if anything of a run, or in the folder of a round, is neither a regular file nor a folder itself.

    The run's own folder may be a link: its user has named it.
    """
    for entry in _entries(run):
        if entry.is_symlink():
            raise RunError(
                f"{entry.path}: is a link, and a run's files are never reached through one; put the file or folder "
                "itself in its place, or remove it"
            )
        if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
            raise RunError(f"{entry.path}: is a pipe, a socket or a device, expected a regular file; remove it")


def _entries(run: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a run's folder under a run's names, and all below."""
    waiting = [os.fspath(run)]
    while waiting:
        folder = waiting.pop()
        with (
            suppress(OSError),
            os.scandir(folder) as entries,
        ):  # a run may be at work; what may not be read is refused where it is read
            for entry in entries:
                if folder == os.fspath(run) and not _OURS.fullmatch(entry.name):
                    continue
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)

"""Cuts the power after every write of a run: nothing that was reported as saved may be lost.

``python -m tests.harness power``. A small run goes into folders that are not there yet, and every call that changes
files is noted. A strict disk keeps of a file what it held at its last fsync, and of a folder the names it had at its
own last fsync, whatever came later. At each report of a finished round, at a stop in the midst of one, and at the end,
the files that such a disk would hold are put down elsewhere and read: every round reported is there, whole.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsir.cli.options import configuration, split_arguments
from rsir.config import RecursionConfig
from rsir.errors import Interrupted, RunError
from rsir.recursion.loop import recurse
from rsir.runs.directory import RunDirectory
from rsir.runtime.resume import Snapshot
from rsir.runtime.runtime import Runtime
from tests.harness import tiny


@dataclass
class Disk:
    """What a strict disk holds of the files below a folder.

    Attributes
    ----------
    root : Path
        An existing folder; of what is in it nothing is on the disk yet.
    contents : dict
        Bytes of files at their last fsync, by inode.
    names : dict
        Inodes by name in each folder at its last fsync, and whether they are folders, by the folder's inode.
    calls : int
        How many fsyncs there were.
    """

    root: Path
    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, tuple[int, bool]]] = field(default_factory=dict)
    calls: int = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block, every fsync is noted."""
        fsync, held = os.fsync, {}

        def noted(descriptor: int) -> None:
            fsync(descriptor)
            self.synced(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            inode = os.fstat(descriptor).st_ino
            held[inode] = held.get(inode) or os.dup(descriptor)  # else another file could get its inode

        os.fsync = noted
        try:
            yield
        finally:
            os.fsync = fsync
            for descriptor in held.values():
                os.close(descriptor)

    def synced(self, path: Path) -> None:
        """A file or folder was fsynced."""
        if self.root not in (path, *path.parents):
            return
        self.calls += 1
        if path.is_dir():
            entries = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(path)}
            self.names[path.stat().st_ino] = entries
        else:
            self.contents[path.stat().st_ino] = path.read_bytes()

    def restore(self, target: Path) -> None:
        """Put down what is on the disk. A name whose content was never fsynced is an empty file."""
        shutil.rmtree(target, ignore_errors=True)
        self._restore(self.root.stat().st_ino, target)

    def _restore(self, inode: int, target: Path) -> None:
        target.mkdir()
        for name, (entry, is_folder) in self.names.get(inode, {}).items():
            if is_folder:
                self._restore(entry, target / name)
            else:
                (target / name).write_bytes(self.contents.get(entry, b""))


def harness(scratch: Path, report: Callable[[str], None] = print) -> None:
    """Run, stop in the midst of a round, go on; AssertionError at the first loss."""
    (scratch / "disk").mkdir()
    disk, inside = Disk(scratch / "disk"), Path("some", "where", "run")
    _, given = split_arguments(tiny.OPTIONS)
    config = configuration(RecursionConfig(), None, given)
    points = 0

    def cut(rounds: int) -> Path:
        nonlocal points
        points += 1
        disk.restore(scratch / "after")
        run = scratch / "after" / inside
        try:
            found = RunDirectory.open(run).finished_rounds()
        except RunError as error:
            raise AssertionError(f"{rounds} rounds were reported, and after a power cut: {error}") from error
        assert found >= rounds, f"{rounds} rounds were reported, and {found} are there after a power cut"
        return run

    asked, reported = 0, 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 12

    def on_round(result: Any) -> None:
        nonlocal reported
        reported = max(reported, result.round + 1)
        cut(reported)

    with disk.watching(), tiny.saving_always():
        try:
            recurse(config, out=disk.root / inside, on_round=on_round, runtime=Runtime(stop=stop))
            raise AssertionError("the run was not stopped")
        except Interrupted:
            run = cut(reported)
            partial = run / f"round-{reported:02d}" / "partial"
            saved = [path for path in partial.glob("*") if not path.name.startswith(".")]
            assert saved, "a stop was said to have saved what was computed, and nothing is there after a power cut"
            for path in saved:
                Snapshot.from_bytes(path.read_bytes())
        recurse(config, out=disk.root / inside, on_round=on_round, resume=True)
        cut(tiny.ROUNDS)
    whole, after = tiny.contents(disk.root / inside), tiny.contents(scratch / "after" / inside)
    differing = sorted(name for name in whole if after.get(name) != whole[name] and Path(name).parent.name != "partial")
    assert not differing, f"files of a finished run that a power cut changes: {differing}"
    report(f"{points} power cuts after {disk.calls} fsyncs: every round reported is there, whole")


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        harness(Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Lets every write, fsync, rename and removal of a run fail in turn, and resumes: nothing may be lost or left over.

``python -m tests.harness faults``: a full disk (ENOSPC), an input/output error (EIO), and a write that the disk took
only half of, at each such call of a small run that saves at every step. The failing run must end with one line that
names the file (or not mind, where nothing depends on the call), and the resumed one as if nothing had happened.
"""

from __future__ import annotations

import argparse
import collections
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.tiny import begun, calls_and_contents, contents, fork, saving_always, start, wait

FAULTS = [("write", errno.ENOSPC), ("write", errno.EIO), ("write", 0), ("fsync", errno.EIO), ("fsync", errno.ENOSPC)]
FAULTS += [("replace", errno.EIO), ("replace", errno.ENOSPC), ("unlink", errno.EIO), ("rmdir", errno.EIO)]


def inject(name: str, number: int, code: int) -> None:
    """Let the n-th call of that name in this process fail; code 0: let it write half."""
    call, seen = getattr(os, name), 0

    def faulty(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen != number:
            return call(*arguments, **options)
        if code:
            raise OSError(code, os.strerror(code))
        return call(arguments[0], arguments[1][: max(1, len(arguments[1]) // 2)])

    setattr(os, name, faulty)


def fail_once(folder: Path, output: Path, name: str, number: int, code: int) -> str:
    """Run with one fault, then resume; -> what the run made of it."""

    def work() -> int:
        inject(name, number, code)
        with saving_always():
            return start(folder, resume=False)

    shutil.rmtree(folder, ignore_errors=True)
    output.unlink(missing_ok=True)
    status, text = wait(fork(work, output)), output.read_text()
    if status:
        assert status == 2, text
        assert code, text
        assert "Traceback" not in text
        assert re.search(
            rf"^rsir: error: .*{folder}.*: cannot be (written|removed): {os.strerror(code)}; ", text, re.M
        ), text
    output.unlink()
    again = wait(fork(lambda: start(folder, resume=begun(folder)), output))
    assert again == 0, output.read_text()
    return "ended with a typed error" if status else "went on"


def harness(every: int, offset: int = 0, report: Callable[[str], None] = print) -> None:
    """Every n-th fault from the given one on; AssertionError at the first loss."""
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder, output = Path(scratch) / "run", Path(scratch) / "output"
        calls, _, expected = calls_and_contents(Path(scratch))
        faults = [(name, number + 1, code) for name, code in FAULTS for number in range(calls[name])][offset::every]
        for name, number, code in faults:
            what = f"{errno.errorcode.get(code, 'half')} at {name} {number}"
            try:
                outcome = fail_once(folder, output, name, number, code)
                found = contents(folder)
                differing = sorted(file for file in found.keys() | expected if found.get(file) != expected.get(file))
                assert not differing, f"other files than without a fault: {differing}"
            except AssertionError as error:
                raise AssertionError(f"{what}: {error}") from error
            outcomes[f"{errno.errorcode.get(code, 'half'):6} at {name:7} {outcome}"] += 1
    for outcome, count in sorted(outcomes.items()):
        report(f"{count:5}  {outcome}")
    report(f"{len(faults)} of {len(faults)} faults survived: every resumed run identical, nothing left over")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every n-th fault")
    parser.add_argument("--offset", type=int, default=0, help="from this one on")
    options = parser.parse_args()
    harness(options.every, options.offset)
    return 0


if __name__ == "__main__":
    sys.exit(main())

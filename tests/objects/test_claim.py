"""One writer of a run at a time, without locks: who asks, waits, takes over and is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsir.errors import RunError
from rsir.objects import claim
from rsir.objects.address import Address
from rsir.objects.claim import Claim
from rsir.objects.storage import Storage

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"machine": "another one", "process": 1, "started": "1"}


@pytest.fixture(params=["memory", "s3"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A place for a run: one that says when objects were written, and one that does not."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    else:
        pytest.importorskip("fsspec")
    monkeypatch.setattr(claim, "LEASE", 3.0)
    monkeypatch.setattr(claim, "RENEWED", 0.2)
    place = Storage(Address(request.param, f"bucket/{request.node.name}"))
    yield place
    assert place.entries() == {}, "a claim was left behind"


def of_another_machine(monkeypatch: pytest.MonkeyPatch, run: Storage) -> Claim:
    with monkeypatch.context() as patch:
        patch.setattr(claim, "_here", lambda: ELSEWHERE)
        return Claim(run)


def test_a_second_writer_is_refused_until_the_first_has_ended(run: Storage) -> None:
    first = Claim(run)
    with pytest.raises(RunError, match="another process is writing this run; wait for it to end"):
        Claim(run)
    first.check(fully=True)
    first.release()
    Claim(run).release()


def test_a_writer_of_another_machine_is_known_by_its_renewals(run: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of_another_machine(monkeypatch, run)
    with pytest.raises(RunError, match="another process is writing this run"):
        Claim(run)
    first.check(fully=True)
    first.release()


def test_a_claim_that_is_not_renewed_lapses_and_its_holder_is_told(
    run: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = of_another_machine(monkeypatch, run)
    first._over.set()  # as in a process that is suspended
    first._thread.join()
    began = time.monotonic()
    second = Claim(run)
    assert time.monotonic() - began > 1  # not at once
    for _ in range(2):
        with pytest.raises(RunError, match="another process has taken over this run"):
            first.check(fully=True)
    with pytest.raises(RunError, match="another process has taken over this run"):
        first.check()
    second.check(fully=True)
    second.release()


def test_a_killed_writer_of_this_machine_is_taken_over_at_once(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "LEASE", 3600.0)
    code = (
        "from rsir.objects.address import place; from rsir.objects.claim import Claim\n"
        "from rsir.objects.storage import Storage\n"
        "Claim(Storage(place('s3://bucket/killed'))); print('held', flush=True); import time; time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        run = Storage(Address("s3", "bucket/killed"))
        with pytest.raises(RunError, match="another process is writing this run"):
            Claim(run)
        os.kill(holder.pid, signal.SIGKILL)
    Claim(run).release()
    assert run.entries() == {}


def test_of_many_who_ask_at_once_one_holds_it_at_a_time(run: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_runs_here", lambda holder: None)  # as if each had a machine of its own
    holders, most, refused = [0], [0], [0]

    def ask() -> None:
        try:
            mine = Claim(run)
        except RunError:
            refused[0] += 1
            return
        holders[0] += 1
        most[0] = max(most[0], holders[0])
        time.sleep(0.3)
        holders[0] -= 1
        mine.release()

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert refused[0] < 5


def test_what_is_no_claim_of_ours_lapses_too(run: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"no JSON", b"[]"):
        run.write(".lock/other", content)
        began = time.monotonic()
        mine = Claim(run)
        assert time.monotonic() - began > 1  # as long as it could be one
        assert list(run.entries(".lock")) == [mine._own]
        mine.release()

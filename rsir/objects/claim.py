"""One writer of a run in object storage: a claim, which its holder renews and which lapses when nobody does.

Storage has no locks. Who wants to write puts an object of its own below ``.lock/`` and then lists all that are there:
of two who do so at once at least one sees the other, as storage lists what has been written (S3, GCS and Azure do).
Only who finds itself alone holds the run. A claim that was not renewed for :data:`LEASE` seconds, by the clock of the
storage, is removed by the next who asks, and so is one whose holder was a process of this machine that has ended. A
holder whose claim is gone notices at its next renewal, and before it records anything, and writes no more.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rsir.errors import RsirError, RunError
from rsir.objects.storage import Entry, Storage

__all__ = ["FOLDER", "LEASE", "RENEWED", "Claim"]

FOLDER = ".lock"
RENEWED = 15.0
"""Seconds between two renewals."""
LEASE = 60.0
"""Seconds after which a claim that was not renewed counts for nothing."""
_CANDIDATE, _HELD = "asks", "holds"


class Claim:
    """The right to write a run; see :mod:`rsir.objects.claim`.

    Where another claim is there, this waits until that one is renewed, which its holder does every :data:`RENEWED`
    seconds, or has lapsed.

    Parameters
    ----------
    storage : Storage
        The run's.

    Raises
    ------
    RunError
        Another process holds it.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage, self._own = storage, f"{FOLDER}/{secrets.token_hex(8)}"
        self._renewed, self._lost, self._over = time.monotonic(), False, threading.Event()
        self._renewing = threading.Lock()
        self._take()
        self._thread = threading.Thread(target=self._keep, name="rsir claim", daemon=True)
        self._thread.start()

    def check(self, *, fully: bool = False) -> None:
        """Raise RunError where this is not the run's writer any more.

        Parameters
        ----------
        fully : bool, default False
            Ask the storage, whenever the last renewal was.
        """
        if fully or time.monotonic() - self._renewed > LEASE / 2:
            self._renew()
        if self._lost:
            raise RunError(
                f"{self._storage.address}: another process has taken over this run, as this one was not heard of for "
                f"{LEASE:g} seconds; let that one go on"
            )

    def release(self) -> None:
        """Let others write the run."""
        self._over.set()
        self._thread.join()
        with suppress(RsirError):
            self._storage.remove(self._own)

    def _take(self) -> None:
        seen: dict[str, tuple[Entry, float]] = {}
        deadline = time.monotonic() + 2 * LEASE + RENEWED
        while True:
            self._renewed = time.monotonic()
            self._put(_CANDIDATE)
            claims = self._storage.entries(FOLDER)
            now, own = time.monotonic(), claims.pop(self._own, None)
            alone, stays = own is not None, True
            for name, entry in claims.items():
                first, since = seen.setdefault(name, (entry, now))
                holder = self._content(name)
                runs = _runs_here(holder)
                if runs is False or _age(entry, own) > LEASE or (first == entry and now - since > LEASE):
                    self._storage.remove(name)
                    continue
                alone = False
                stays = stays and (name > self._own or holder.get("state") != _CANDIDATE)
                held = holder.get("state") == _HELD
                if (held and (first != entry or runs)) or now > deadline:
                    self._storage.remove(self._own)
                    raise RunError(
                        f"{self._storage.address}: another process is writing this run; wait for it to end, or choose "
                        "another --out"
                    )
            if alone:
                self._put(_HELD)
                return
            if not stays:  # of those who ask, the first by name waits for the others to withdraw
                self._storage.remove(self._own)
            time.sleep(random.uniform(0.1, 0.5))

    def _put(self, state: str) -> None:
        self._storage.write(self._own, json.dumps({"state": state, **_here()}).encode())

    def _content(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._storage.read(name))
        except ValueError:  # gone meanwhile, or not ours
            return {}
        return content if isinstance(content, dict) else {}

    def _keep(self) -> None:
        while not self._over.wait(RENEWED):
            with suppress(RsirError):  # the next time; check() raises where none succeeds
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            began = time.monotonic()
            claims = self._storage.entries(FOLDER)
            others = [name for name in claims if name != self._own]
            if self._own not in claims or any(self._content(name).get("state") == _HELD for name in others):
                self._lost = True
            if not self._lost:
                self._put(_HELD)
                self._renewed = began


def _runs_here(holder: dict[str, Any]) -> bool | None:
    """Whether the holder of a claim is a process of this machine that is running; None where it is of another one."""
    here, process = _here(), holder.get("process")
    if not here["machine"] or holder.get("machine") != here["machine"] or not isinstance(process, int):
        return None
    return _started(process) is not None and _started(process) == holder.get("started")


def _age(entry: Entry, own: Entry | None) -> float:
    """Seconds by which a claim was written before this process's own, where the storage tells."""
    return 0.0 if own is None or own.written is None or entry.written is None else own.written - entry.written


def _here() -> dict[str, Any]:
    """This process, and its machine since it was started; "" where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        machine = ""
    return {"machine": machine, "process": os.getpid(), "started": _started(os.getpid())}


def _started(process: int) -> str | None:
    """When a process was started, as the system counts; None where there is none, or it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]

"""Ctrl-C, SIGTERM and a terminal that goes away: the work in hand is saved before the process ends, or goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Any

from rsir.runtime.interrupts import heeding

__all__ = ["Stop"]

_ONCE = 1.0
"""Seconds within which further signals are the first one once more: timeout(1) and torchrun send two at once."""


class Stop:
    """Whether the user or the system asked the process to end; a context in which it notices.

    A signal only sets a flag, which is read where nothing can be lost by it: by whoever calls this, to save and end,
    and until this is first called by :func:`rsir.runtime.interrupts.check`, as there is nothing to save yet. A second
    signal ends the process at once, as it would without this. A hangup (the terminal is closed) is ignored.

    Parameters
    ----------
    says : bool, default True
        Whether to say on stderr what the signal has led to.

    Attributes
    ----------
    number : int
        The signal that came; SIGINT if none did.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, says: bool = True) -> None:
        self._says = says
        self.number = int(signal.SIGINT)
        self._came: float | None = None  # when
        self._asked = False
        self._before: dict[int, Any] = {}
        self._within = ExitStack()

    def __call__(self) -> bool:
        self._asked = True
        return self._came is not None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # no other one may
            heeded = [number for number in self._SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
            self._before = {number: signal.signal(number, self._handle) for number in heeded}
            if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
                self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._within.enter_context(heeding(lambda: self._came is not None and not self._asked))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._within.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._came is None:
            self.number, self._came = number, now
            if self._says:
                text = "Saving what has been computed; once more ends at once, without it."
                text = text if self._asked else "Ending; once more ends at once."
                with suppress(OSError):  # stderr may be gone
                    os.write(2, f"\n{text}\n".encode())  # print could be interrupted in its own midst
        elif now - self._came > _ONCE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

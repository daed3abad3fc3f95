"""Ctrl-C and SIGTERM: let the work in hand be saved before the process ends."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Stop"]


class Stop:
    """Whether the user or the system asked the process to end; a context in which it notices.

    From the first time it is asked (called), the first signal only makes the answer true, for whoever asks to save and
    end; a second one, and any signal before there is anything to save, raises KeyboardInterrupt.

    Parameters
    ----------
    says : bool, default True
        Whether to say on stderr what the signal has led to.

    Attributes
    ----------
    number : int
        Of the signal that came last; SIGINT if none did.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, says: bool = True) -> None:
        self._says = says
        self.number = int(signal.SIGINT)
        self._came = self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        self._asked = True
        return self._came

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # no other one may
            heeded = [number for number in self._SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
            self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if self._came or not self._asked:
            raise KeyboardInterrupt
        self._came = True
        if not self._says:
            return
        text = b"\nSaving what has been computed; once more ends at once, without it.\n"
        os.write(2, text)  # print could be interrupted in its own midst

"""Progress bars on a terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm

__all__ = ["Bars"]

_KNOWN_END = "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}, {rate_noinv_fmt}{postfix}]"
_OPEN_END = "{desc}: {n_fmt} [{elapsed}, {rate_noinv_fmt}{postfix}]"


class Bars:
    """A :class:`rsir.runtime.progress.Progress` that shows the phase under way as a bar on stderr, with its rate."""

    def __init__(self) -> None:
        self._phase = ""
        self._bar: tqdm | None = None

    def __call__(self, phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
        if self._bar is None or phase != self._phase:
            self.close()
            self._phase = phase
            self._bar = tqdm(
                desc=phase,
                total=total,
                unit=f" {unit}",
                leave=False,
                dynamic_ncols=True,
                # no time left: training ends when it no longer gains, long before its total
                bar_format=_OPEN_END if total is None else _KNOWN_END,
                file=getattr(sys.stderr, "raw", sys.stderr),  # bars go back to the start of the line
            )
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

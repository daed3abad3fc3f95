"""Traces of a running recursion: some training steps and some decoding steps of each round, by torch's profiler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from rsir.runtime.progress import Progress

__all__ = ["FOLDER", "Tracer"]

FOLDER = "profile"
"""Folder of the traces within a run's."""

_PARTS = {"train": (5, 20), "generate": (1, 20)}
"""Steps to let pass and steps to trace, by phase. A step takes up to 0.5 MB, so that a trace stays below 10 MB or so:
viewers grow slow at a hundred."""


class Tracer:
    """A :class:`rsir.runtime.progress.Progress` that traces a part of every phase and hands the news on.

    Traces are in the Chrome format, which chrome://tracing and ui.perfetto.dev show, one file a phase:
    ``round-01-train.json``.

    Parameters
    ----------
    folder : path
        Made with the first trace; traces of the same names are replaced.
    progress : Progress
        What is called beside.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self._phase, self._steps, self._done = "", 0, -1
        self._profile: profile | None = None

    def __call__(self, phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
        self.progress(phase, done, total, unit, note)
        if phase != self._phase:
            self.close()
            self._phase, self._steps, self._done = phase, 0, -1
        if done == self._done:  # news of the same step
            return
        self._done = done
        self._steps += 1
        skipped, traced = _PARTS.get(phase.rpartition(" ")[2], (0, 0))
        if self._steps == skipped and traced:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.start()
        elif self._steps == skipped + traced:
            self.close()

    def close(self) -> None:
        """End the trace under way, if any, and write it."""
        if self._profile is None:
            return
        ended, self._profile = self._profile, None
        ended.stop()
        self.folder.mkdir(exist_ok=True)
        _, number, name = self._phase.split(" ")
        path = self.folder / f"round-{int(number):02d}-{name}.json"
        partial = path.with_name(f"{path.stem}.partial.json")
        ended.export_chrome_trace(str(partial))
        partial.replace(path)

"""Timing contenders against each other and against the machine.

Contenders take turns within one process, and the machine's multiply-add rate is measured between them, so that a
busy neighbour or a falling clock rate hits all of them alike; figures are medians over the turns.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

SETTLE_SECONDS = 0.01  # lets the spinning threads of the last contender's OpenMP pool go to sleep


@dataclass(frozen=True)
class Contender:
    name: str
    run: Callable[[], object]
    work: float = 1.0
    """What a run does, in the unit of :func:`compare`; contenders are compared by their time for a unit of it."""


@dataclass
class Figure:
    """One contender on one case. Times in milliseconds; low and high are the quartiles."""

    case: str
    contender: str
    threads: int
    median_ms: float
    low_ms: float
    high_ms: float
    times_slower: float
    """Median over the turns of this contender's time over the first contender's in the same turn, for equal work."""
    rate: float | None = None
    unit: str = ""
    gflops: float | None = None
    peak_fraction: float | None = None
    gbytes: float | None = None
    read_fraction: float | None = None
    extra_mib: float | None = None


@dataclass
class Report:
    title: str
    machine: dict[str, object] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        columns = [
            ("case", lambda f: f.case),
            ("contender", lambda f: f.contender),
            ("threads", lambda f: str(f.threads)),
            ("median ms (quartiles)", lambda f: f"{f.median_ms:.2f} ({f.low_ms:.2f} to {f.high_ms:.2f})"),
            ("x first", lambda f: f"{f.times_slower:.2f}"),
            ("a second", lambda f: "" if f.rate is None else f"{f.rate:,.0f} {f.unit}"),
            ("GFLOP/s", lambda f: _number(f.gflops, ".0f")),
            ("of peak", lambda f: _number(f.peak_fraction, ".2f")),
            ("GB/s", lambda f: _number(f.gbytes, ".2f")),
            ("of read rate", lambda f: _number(f.read_fraction, ".2f")),
            ("extra MiB", lambda f: _number(f.extra_mib, ".1f")),
        ]
        columns = [column for column in columns if any(column[1](figure) for figure in self.figures)]
        lines = [f"## {self.title}", ""]
        lines += [f"- {key}: {value}" for key, value in self.machine.items()]
        lines += ["", "| " + " | ".join(name for name, _ in columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(show(figure) for _, show in columns) + " |" for figure in self.figures]
        return "\n".join([*lines, "", *self.notes])

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def describe_machine() -> dict[str, object]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = f"{names[0]}, {len(names)} cores visible" if names else model
    machine: dict[str, object] = {"cpu": model, "python": platform.python_version(), "system": platform.system()}
    if hasattr(os, "getloadavg"):
        machine["load before"] = f"{os.getloadavg()[0]:.2f} processes over the last minute"
    return machine


def compare(
    case: str,
    contenders: Sequence[Contender],
    *,
    threads: int,
    rounds: int,
    cpu_time: bool,
    peak: Callable[[], float] | None = None,
    unit: str = "",
    read_rate: float | None = None,
    operations: float | None = None,
    traffic: float | None = None,
) -> list[Figure]:
    """Time the contenders in turns.

    ``operations`` and ``traffic`` are the floating point operations and the bytes a run must at least do and read;
    ``peak`` measures the machine's operations a second, ``read_rate`` is in bytes a second. With a ``unit``, figures
    show how many of them a second each contender does. With ``cpu_time`` a time is
    the processor time used over the number of threads, for machines that others use as well.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    peaks: list[float] = []
    clock, share = (time.process_time, threads) if cpu_time else (time.perf_counter, 1)
    for turn in range(rounds + 1):
        for contender in contenders:
            rate = peak() if peak else 0.0
            time.sleep(SETTLE_SECONDS)
            start = clock()
            contender.run()
            elapsed = (clock() - start) / share
            if turn > 0:  # the first turn warms up
                peaks.append(rate)
                times[contender.name].append(elapsed)
    first = [seconds / contenders[0].work for seconds in times[contenders[0].name]]
    figures = []
    for contender in contenders:
        own = sorted(times[contender.name])
        seconds = median(own)
        figure = Figure(
            case=case,
            contender=contender.name,
            threads=threads,
            median_ms=seconds * 1e3,
            low_ms=own[len(own) // 4] * 1e3,
            high_ms=own[(3 * len(own)) // 4] * 1e3,
            times_slower=median(a / contender.work / b for a, b in zip(times[contender.name], first, strict=True)),
        )
        if unit:
            figure.rate, figure.unit = contender.work / seconds, unit
        if operations is not None:
            figure.gflops = operations / seconds / 1e9
            figure.peak_fraction = operations / seconds / median(peaks)
        if traffic is not None:
            figure.gbytes = traffic / seconds / 1e9
            figure.read_fraction = None if read_rate is None else traffic / seconds / read_rate
        figures.append(figure)
    return figures


def extra_memory(run: Callable[[], object]) -> float | None:
    """MiB by which a run, its result included, raises the process's peak; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    ctypes.CDLL(None).malloc_trim(0)  # memory that earlier runs left in the heap would hide this run's
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError:
        return None
    before = _status_kib("VmRSS")
    run()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)

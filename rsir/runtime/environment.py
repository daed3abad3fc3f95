"""What a result depends on beside data and settings: versions and the processor."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from importlib import metadata
from typing import Any

from rsir import __version__

__all__ = ["environment"]


def environment() -> dict[str, Any]:
    """Versions and processor; nothing that names the machine or its user."""
    torch = sys.modules.get("torch")  # imported by whatever computes the run
    return {
        "rsir": __version__,
        **{name: _version(name) for name in ("torch", "numpy")},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "instruction_set": "unknown" if torch is None else str(torch.backends.cpu.get_cpu_capability()),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"

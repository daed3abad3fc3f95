"""What a result depends on beside data and settings: versions, the processor and the device."""

from __future__ import annotations

import platform
import re
import sys
from contextlib import suppress
from importlib import metadata
from typing import Any

from rsir import __version__
from rsir.errors import ConfigError

__all__ = ["check_device", "environment"]


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions, processor and device; nothing that names the machine or its user."""
    torch = sys.modules.get("torch")  # imported by whatever computes the run
    return {
        "rsir": __version__,
        **{name: _version(name) for name in ("torch", "numpy")},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "instruction_set": "unknown" if torch is None else str(torch.backends.cpu.get_cpu_capability()),
        "device": device,
        **(_gpu(torch, device) if torch is not None and device.startswith("cuda") else {}),
    }


def _gpu(torch: Any, device: str) -> dict[str, Any]:
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda or f"HIP {torch.version.hip}",
        "triton": _version("triton"),
    }


def check_device(device: str, option: str) -> None:
    """ConfigError if `device` is no CPU or CUDA device that torch finds; `option` is how it was asked for."""
    kind = device.partition(":")[0]
    if not re.fullmatch(r"(cpu|cuda)(:\d+)?", device):
        raise ConfigError(f"{option}: expected cpu or cuda")
    if kind == "cpu":
        return
    import torch

    if torch.cuda.is_available():
        return
    build = "is a CPU build" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
    raise ConfigError(
        f"{option}: torch finds no CUDA device (torch {torch.__version__} {build}); omit {option}, or fix the "
        "driver or the installation of torch"
    )


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

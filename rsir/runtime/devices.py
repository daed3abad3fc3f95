"""Whether a device is there, asked before anything is computed on it."""

from __future__ import annotations

from rsir.errors import ConfigError

__all__ = ["check_device"]


def check_device(device: str, option: str) -> None:
    """ConfigError if `device` is a CUDA device and torch finds none; `option` is how it was asked for."""
    if not device.startswith("cuda"):
        return
    import torch

    if torch.cuda.is_available():
        return
    build = "is a CPU build" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
    raise ConfigError(
        f"{option}: torch finds no CUDA device (torch {torch.__version__} {build}); leave {option} away, or mend the "
        "driver or the installation of torch"
    )

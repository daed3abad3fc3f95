"""The one table that says which module computes the ops."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from .types import BackendUnavailable

__all__ = ["BACKENDS", "load", "resolve", "resolve_training"]

BACKENDS = {
    "reference": "rsir.ops.reference",
    "cpp": "rsir.ops.cpp",
    "triton": "rsir.ops.triton",
}
"""Every backend by name. Each module implements the ops on inputs that :mod:`rsir.ops` has checked."""

_DEFAULT = {"cpu": "cpp", "cuda": "triton"}


def resolve(backend: str, items: Tensor) -> str:
    """Name of the backend to use for an item table; "auto" chooses by device (cpu: cpp, cuda: triton)."""
    if backend == "auto":
        device = items.device.type
        if device not in _DEFAULT:
            raise BackendUnavailable(
                f"no default backend for device {device!r}: move the items to cpu or cuda, "
                f"or ask for backend='reference'"
            )
        return _DEFAULT[device]
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected 'auto' or one of {sorted(BACKENDS)}, got {backend!r}")
    return backend


def resolve_training(backend: str, values: Tensor) -> str:
    """Name of the backend of an op used in training; "auto" is cpp for float32 on a CPU, else the reference.

    There are no GPU kernels of these yet: torch's autograd of the reference is what trains on CUDA.
    """
    if backend == "auto":
        return "cpp" if values.device.type == "cpu" and values.dtype == torch.float32 else "reference"
    name = resolve(backend, values)
    if name == "triton":
        raise BackendUnavailable(
            "backend 'triton' has no kernels for training yet: use backend='reference', which runs on any device"
        )
    if name == "cpp" and (values.device.type != "cpu" or values.dtype != torch.float32):
        raise ValueError(
            f"backend 'cpp' trains in float32 on cpu, got {values.dtype} on {values.device}; convert with "
            ".float().cpu() or use backend='reference'"
        )
    return name


def load(name: str) -> ModuleType:
    """Import a backend's module, or raise :class:`BackendUnavailable` with the cause and the other choices."""
    try:
        return importlib.import_module(BACKENDS[name])
    except ImportError as cause:
        others = sorted(set(BACKENDS) - {name})
        raise BackendUnavailable(f"backend {name!r} cannot be used here: {cause}. Others: {others}") from cause

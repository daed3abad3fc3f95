"""Kernels run in Triton's interpreter here, on CPU tensors."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported

import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Fill torch.empty with NaN, or with a number out of every range, so that an output nobody wrote shows."""
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)

        def poisoned(*args, _plain=plain, **kwargs):
            tensor = _plain(*args, **kwargs)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else 2**30)

        monkeypatch.setattr(torch, name, poisoned)

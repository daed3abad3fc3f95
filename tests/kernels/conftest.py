"""Kernels run on the GPU if there is one, else in Triton's interpreter on CPU tensors."""

import pytest
import torch


@pytest.fixture(autouse=True)
def default_device():
    """Make tensors where the kernels run."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        yield


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Fill torch.empty with NaN, or with a number out of every range, so that an output nobody wrote shows.

    As a group of up to 32 items it is still negative in 32 bits, and so a place far before any tensor.
    """
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)

        def poisoned(*args, _plain=plain, **kwargs):
            tensor = _plain(*args, **kwargs)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else -16_000_001)

        monkeypatch.setattr(torch, name, poisoned)

"""What running out of memory looks like, on the CPU and on a GPU."""

from __future__ import annotations

import torch

__all__ = ["first_line", "out_of_memory"]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, NumPy's, CUDA's, or that of torch's CPU allocator."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, which torch follows with advice and traces."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__

"""Computations of fixed shapes as CUDA graphs: the host launches many kernels at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from rsir.runtime.memory import first_line, out_of_memory

__all__ = ["Repeated", "can_capture"]

_PLAIN_RUNS = 3  # kernels are compiled and libraries start in them, which cannot be captured


def can_capture(device: torch.device) -> bool:
    """Whether torch captures CUDA graphs there: on CUDA devices, ROCm's left out."""
    return device.type == "cuda" and torch.backends.cuda.is_built() and torch.version.cuda is not None


class Repeated:
    """A computation of fixed shapes, on tensors that stay where they are: a CUDA graph once it has run a few times.

    Where there is no CUDA device, or it cannot capture the computation, it is launched kernel by kernel. No CUDA device
    has run this yet.

    Parameters
    ----------
    compute : callable
        Gives a tensor, from the captured run on always the same one.
    device : torch.device
    name : str
        What the computation is, for a warning.
    generator : torch.Generator, optional
        What it draws from, beside torch's own.
    """

    def __init__(
        self,
        compute: Callable[[], Tensor],
        device: torch.device,
        name: str,
        generator: torch.Generator | None = None,
    ) -> None:
        self.compute, self.name, self.generator, self.runs = compute, name, generator, 0
        self.device, self.capturable = device, can_capture(device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> Tensor:
        self.runs += 1
        if self.graph is None and self.capturable and self.runs > _PLAIN_RUNS:
            self._capture()
        if self.graph is None:
            return self.compute()
        self.graph.replay()
        return self.answer

    def _capture(self) -> None:
        try:
            graph = torch.cuda.CUDAGraph()
            if self.generator is not None:
                graph.register_generator_state(self.generator)
            # By default the stream is one of the device that was current at the process's first capture: work elsewhere
            # would run at once, and its graph be empty. Another thread may allocate pinned memory meanwhile.
            stream = torch.cuda.Stream(self.device)
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.answer = self.compute()
        except RuntimeError as cause:
            if out_of_memory(cause):
                raise
            self.capturable = False
            warnings.warn(f"{self.name} goes on without a CUDA graph: {first_line(cause)}", stacklevel=2)
            return
        self.graph = graph

"""Several processes over torch.distributed, behind :class:`rsir.distributed.World`; the only module that imports it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from .distributed import Claims, World, WorldError, local_rank, to_json

__all__ = ["Processes", "meet"]

_PATIENCE = timedelta(hours=4)
"""How long a process waits for the others. One that ends is noticed at once; this is for one that hangs, and must be
longer than what a process may take for what it does alone, such as reading its data."""
_SHARES = 16
"""Parts of a task for each process: where one is slow, the others wait for the end of its part at most."""

T = TypeVar("T")


class Processes(World):
    """This process among several.

    Parameters
    ----------
    store : torch.distributed.Store
        Of this attempt alone.
    rank, size : int
    restarted : bool
    """

    def __init__(self, store: Store, rank: int, size: int, restarted: bool) -> None:
        super().__init__(restarted)
        self.rank, self.size, self._store, self._divided = rank, size, store, 0

    def share(
        self,
        make: Callable[[], T],
        encode: Callable[[T], bytes] = to_json,
        decode: Callable[[bytes], T] = json.loads,
    ) -> T:
        if self.leads:
            value = make()
            content = encode(value)
            self._call(dist.broadcast, torch.tensor([len(content)]), 0)
            if content:
                self._call(dist.broadcast, torch.frombuffer(bytearray(content), dtype=torch.uint8), 0)
            return value
        length = torch.zeros(1, dtype=torch.int64)
        self._call(dist.broadcast, length, 0)
        received = torch.empty(int(length), dtype=torch.uint8)
        if len(received):
            self._call(dist.broadcast, received, 0)
        return decode(received.numpy().tobytes())

    def add(self, *tensors: Tensor) -> None:
        self._together(dist.all_reduce, tensors)

    def gather(self, tensor: Tensor) -> Tensor:
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(tensor)
        self._call(dist.all_reduce, counts)
        own = tensor.new_zeros((int(counts.max()), *tensor.shape[1:]))
        own[: len(tensor)] = tensor
        parts = [torch.empty_like(own) for _ in range(self.size)]
        self._call(dist.all_gather, parts, own)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])

    def follow(self, *tensors: Tensor) -> None:
        self._together(lambda flat: dist.broadcast(flat, 0), tensors)

    def _together(self, call: Callable[[Tensor], Any], tensors: tuple[Tensor, ...]) -> None:
        """One call for all tensors of a type and device: each call takes a while, however small the tensor."""
        kinds: dict[Any, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
        for kind in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in kind])
            self._call(call, flat)
            for tensor, part in zip(kind, flat.split([tensor.numel() for tensor in kind]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        raised = torch.tensor([int(flag)])
        self._call(dist.all_reduce, raised)
        return bool(raised > 0)

    def wait(self) -> None:
        self.any(False)

    def claims(self, count: int) -> Claims:
        self._divided += 1
        key = f"claims {self._divided}"
        return Claims(count, lambda by: int(self._call(self._store.add, key, by)) - by)

    def part_size(self, count: int, most: int) -> int:
        return max(1, min(most, -(-count // (_SHARES * self.size))))

    def first_to(self, what: str) -> bool:
        try:
            return int(self._store.add(what, 1)) == 1
        except RuntimeError:  # the process that kept the store has ended
            return True

    def leave(self) -> None:
        self.wait()
        with suppress(RuntimeError):
            dist.destroy_process_group()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except RuntimeError as cause:
            raise WorldError(f"lost another process of this run ({str(cause).splitlines()[0]})") from cause


def meet(attempt: int) -> Processes:
    """Wait for the other processes that torchrun has started; `attempt` counts how often it has started them again.

    Raises
    ------
    WorldError
        They do not come.
    """
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    if on_gpu:
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=10)))
        store = PrefixStore(f"rsir {attempt}", store)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as cause:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise WorldError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} ({socket.gethostname()}): cannot meet the other "
            f"processes at {place}: {str(cause).splitlines()[0]}"
        ) from cause
    return Processes(store, rank, size, attempt > 0)

"""Several processes over torch.distributed, behind :class:`rsir.runtime.world.World`; nothing else imports it."""

from __future__ import annotations

import atexit
import importlib
import itertools
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

from rsir.errors import WorldError
from rsir.runtime.world import Claims, World, to_json

__all__ = ["Processes", "meet"]

_PATIENCE = timedelta(hours=4)
"""How long a process waits for the others. One that ends is noticed at once; this is for one that hangs, and must be
longer than what a process may take for what it does alone, such as reading its data."""
_LEAST = 64
"""The smallest parts of a task are this part of a process's share: so long the others wait for the last one, about."""

_SHORT = 1024
"""Bytes that are shared in one call."""

T = TypeVar("T")


class Processes(World):
    """This process among several.

    Parameters
    ----------
    store : torch.distributed.Store
        Store of this attempt alone.
    rank, size : int
    restarted : bool
    """

    def __init__(self, store: Store, rank: int, size: int, restarted: bool) -> None:
        super().__init__(restarted)
        self.rank, self.size, self._store, self._divided = rank, size, store, 0

    def broadcast_object(
        self,
        make: Callable[[], T],
        encode: Callable[[T], bytes] = to_json,
        decode: Callable[[bytes], T] = json.loads,
    ) -> T:
        first = bytearray(_SHORT)  # the length, and all of what is short: each call takes a while
        content = b""
        if self.is_main:
            value = make()
            content = encode(value)
            first[:8] = len(content).to_bytes(8, "little")
            first[8:] = content[: _SHORT - 8].ljust(_SHORT - 8, b"\0")
        received = torch.frombuffer(first, dtype=torch.uint8)
        self._call(dist.broadcast, received, 0)
        length = int.from_bytes(first[:8], "little")
        if length > _SHORT - 8:
            received = torch.frombuffer(bytearray(content or length), dtype=torch.uint8)
            self._call(dist.broadcast, received, 0)
        else:
            received = received[8 : 8 + length]
        return value if self.is_main else decode(received.numpy().tobytes())

    def all_reduce(self, *tensors: Tensor) -> None:
        self._together(dist.all_reduce, tensors)

    def all_gather(self, *tensors: Tensor) -> list[Tensor]:
        # as bytes, one after the other: each call takes a while
        sizes = torch.zeros(self.size, len(tensors), dtype=torch.int64)
        sizes[self.rank] = torch.tensor([tensor.nbytes for tensor in tensors])
        self._call(dist.all_reduce, sizes)
        own = torch.zeros(int(sizes.sum(1).max()), dtype=torch.uint8, device=tensors[0].device)
        torch.cat([_bytes(tensor) for tensor in tensors], out=own[: int(sizes[self.rank].sum())])
        received = [torch.empty_like(own) for _ in range(self.size)]
        self._call(dist.all_gather, received, own)
        of_ranks = [part[: int(size.sum())].split(size.tolist()) for part, size in zip(received, sizes, strict=True)]
        return [
            torch.cat(parts).view(tensor.dtype).view(-1, *tensor.shape[1:])
            for tensor, parts in zip(tensors, zip(*of_ranks, strict=True), strict=True)
        ]

    def broadcast(self, *tensors: Tensor) -> None:
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

    def barrier(self) -> None:
        self.any(False)

    def claims(self, count: int) -> Claims:
        self._divided += 1
        key = f"claims {self._divided}"
        return Claims(count, lambda by: int(self._call(self._store.add, key, by)) - by)

    def parts(self, count: int, most: int, least: int = 1) -> list[slice]:
        """Half of what is left, divided by the processes, each time: few parts, and small ones in the end."""
        ends, least = [0], max(least, -(-count // (_LEAST * self.size)))
        while ends[-1] < count:
            half = (count - ends[-1]) // (2 * self.size)
            ends.append(min(ends[-1] + min(max(half, least), most), count))
        return [slice(first, end) for first, end in itertools.pairwise(ends)]

    def first_to(self, what: str) -> bool:
        try:
            return int(self._store.add(what, 1)) == 1
        except RuntimeError:  # the process that kept the store has ended
            return True

    def close(self) -> None:
        self.barrier()
        _leave()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except RuntimeError as cause:
            raise WorldError(f"lost another process of this run ({str(cause).splitlines()[0]})") from cause


def _bytes(tensor: Tensor) -> Tensor:
    # torch views as bytes what has a stride of 1 alone; that of an empty array of NumPy 2.5 is 0
    return tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _leave() -> None:
    """End the threads of gloo: one that still holds a tensor while the interpreter ends aborts the process."""
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


def meet(attempt: int, local_rank: int) -> Processes:
    """Wait for the other processes that torchrun has started.

    Parameters
    ----------
    attempt : int
        How often torchrun has started them again.
    local_rank : int
        Number of this process among those of its machine.

    Raises
    ------
    WorldError
        They do not come.
    """
    # Imported after the group is there, by other parts of torch, it keeps the group and so its threads for ever, as
    # values of default arguments.
    importlib.import_module("torch.distributed.nn.functional")
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    if on_gpu:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
        # Else a call returns before its work is done, and what fails there ends the process or surfaces at some later
        # line, and not as a WorldError.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
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
    atexit.register(_leave)  # for runs that end with an error, too
    return Processes(store, rank, size, attempt > 0)

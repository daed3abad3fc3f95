"""The threads that compiled ops keep between calls."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rsir import ops


def ranks(seed: int, threads: int) -> torch.Tensor:
    """Of many rows over a catalogue: enough work for every thread that is asked for."""
    generator = torch.Generator().manual_seed(seed)
    queries, items = torch.randn(512, 16, generator=generator), torch.randn(3001, 16, generator=generator)
    table = ops.pack(items, backend="cpp")
    targets = torch.randint(1, 3001, (512,), generator=generator)
    return ops.place_within(queries, table, targets, 3000, threads=threads)


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_threads_do_not_change_answers(threads: int) -> None:
    assert ranks(0, threads).equal(ranks(0, 1))


def test_calls_from_several_threads_at_once() -> None:
    expected = [ranks(seed, 1) for seed in range(8)]
    with ThreadPoolExecutor(4) as callers:
        for _ in range(5):
            for got, want in zip(callers.map(lambda seed: ranks(seed, 3), range(8)), expected, strict=True):
                assert got.equal(want)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    expected = ranks(0, 1)
    assert ranks(0, 3).equal(expected)
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for its parent's threads would wait for ever
        status = 1
        try:
            status = 0 if ranks(0, 3).equal(expected) and ranks(0, 2).equal(expected) else 1
        finally:
            os._exit(status)  # whatever happens: the other tests are the parent's
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

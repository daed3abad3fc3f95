"""Measure tile sizes on a GPU and keep the best on disk, one file a device, where every later process finds them.

``rsir kernels tune --items 100000 --dim 64`` does so on this machine's GPU. Without it, or with the file
deleted, sizes follow from the shape (:func:`rsir.kernels.plan.make_plan`).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import triton
from torch import Tensor

from .fused import rank_and_best
from .plan import PRECISIONS, TUNED, Plan, _measured, device_file, fastest_key, make_plan, platform, shape_class
from .types import ItemTable, Lists

__all__ = ["candidates", "compare", "tune"]


def candidates(plan: Plan, precision: str) -> list[Plan]:
    """The plan itself first, then others to try in its place."""
    heights = (plan.block_m, 2 * plan.block_m) if precision == "ieee" else (plan.block_m,)
    others = [
        replace(plan, block_m=height, num_warps=warps, num_stages=stages)
        for height in heights
        for warps in (4, 8)
        for stages in (2, 3, 4)
    ]
    return [plan, *(other for other in others if other != plan)]


def tune(
    run: Callable[[Plan], list[Tensor]],
    device: torch.device,
    precision: str,
    dim: int,
    rows: int,
    milliseconds: Callable[[Callable[[], object]], float] = triton.testing.do_bench,
) -> dict[Plan, float]:
    """Time all candidates and keep the fastest on disk for its class of shapes; every time, the best first.

    Parameters
    ----------
    run : callable
        Does the work under a plan and returns what it computed. A plan that takes more of the device than there is,
        or whose answer differs from that of the first in any bit, is left out.
    device, precision, dim, rows
        What the plan is for.
    milliseconds : callable
        Times a call.
    """
    first, *others = candidates(make_plan(platform(), precision, dim, rows), precision)
    expected = run(first)
    times = {first: milliseconds(functools.partial(run, first))}
    for plan in others:
        try:
            same = all(torch.equal(a, b) for a, b in zip(run(plan), expected, strict=True))
        except triton.runtime.errors.OutOfResources:
            continue
        if same:
            times[plan] = milliseconds(functools.partial(run, plan))
    times = dict(sorted(times.items(), key=lambda item: item[1]))
    best = asdict(next(iter(times)))
    _keep(device, shape_class(precision, dim, rows), {name: best[name] for name in TUNED})
    return times


def compare(
    run: Callable[[str], list[Tensor]],
    device: torch.device,
    precisions: Sequence[str],
    dim: int,
    milliseconds: Callable[[Callable[[], object]], float] = triton.testing.do_bench,
) -> dict[str, float]:
    """Time precisions and keep the fastest on disk, for tables that are packed without naming one; the best first.

    Parameters
    ----------
    run : callable
        Does the work in a precision. One whose answer differs from that of ieee in any bit is left out.
    device, dim, milliseconds
        As for :func:`tune`.
    precisions : sequence of str
        With ieee among them.
    """
    expected = run("ieee")
    same = [p for p in precisions if all(torch.equal(a, b) for a, b in zip(run(p), expected, strict=True))]
    times = {precision: milliseconds(functools.partial(run, precision)) for precision in same}
    times = dict(sorted(times.items(), key=lambda item: item[1]))
    _keep(device, fastest_key(dim), {"precision": next(iter(times))})
    return times


def _keep(device: torch.device, key: str, values: dict[str, Any]) -> None:
    file = device_file(device)
    _measured.cache_clear()  # what others wrote since stays
    known = _measured(device) | {key: values}
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    scratch.replace(file)  # whole or not at all
    _measured.cache_clear()


def main(arguments: list[str] | None = None) -> None:
    """Measure ranks and top-20 in one pass over random items, in every precision asked for."""
    parser = argparse.ArgumentParser(
        prog="rsir kernels tune", description="Measure tile sizes on this GPU and keep the best on disk for later runs."
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 4096], help="batch sizes: up to 16 and above")
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["ieee"],
        choices=PRECISIONS,
        help="of ieee and others the fastest becomes the default",
    )
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("tune: needs a GPU that torch can see, and torch.cuda.is_available() is False")
    device = torch.device("cuda", torch.cuda.current_device())
    weights = torch.randn(options.items + 1, options.dim, device=device)
    for precision in options.precisions:
        table = ItemTable.pack(weights, precision)
        for rows in options.rows:
            queries, targets = _batch(rows, options.dim, device)
            run = functools.partial(_pass, queries, table, targets)
            print(f"{shape_class(precision, options.dim, rows)}:")
            for plan, time in tune(run, device, precision, options.dim, rows).items():
                print(f"  {time:8.3f} ms  " + "  ".join(f"{name} {getattr(plan, name)}" for name in TUNED))
    if "ieee" in options.precisions and len(options.precisions) > 1:
        tables = {precision: ItemTable.pack(weights, precision) for precision in options.precisions}
        queries, targets = _batch(max(options.rows), options.dim, device)
        times = compare(lambda p: _pass(queries, tables[p], targets), device, options.precisions, options.dim)
        print("fastest first: " + ", ".join(f"{precision} {time:.3f} ms" for precision, time in times.items()))
    print(f"kept in {device_file(device)}")


def _batch(rows: int, dim: int, device: torch.device) -> tuple[Tensor, Lists]:
    targets = Lists(torch.ones(rows, dtype=torch.int32, device=device), torch.arange(rows + 1, device=device))
    return torch.randn(rows, dim, device=device), targets


def _pass(queries: Tensor, table: ItemTable, targets: Lists, plan: Plan | None = None) -> list[Tensor]:
    ranks, best = rank_and_best(queries, table, targets, None, 20, None, plan=plan)
    return [ranks, best.ids, best.logits]

"""Which tile sizes a launch uses: a function of mode and shape, so that tests can compile the same, unless
:mod:`rsir.kernels.tune` has measured better ones on the device."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton

__all__ = [
    "PRECISIONS",
    "TUNED",
    "Plan",
    "aligned_rows",
    "chunks",
    "device_file",
    "fastest_key",
    "fastest_precision",
    "group_size",
    "launching",
    "make_plan",
    "measured_plan",
    "platform",
    "rows_per_chunk",
    "scratch_of",
    "shape_class",
]

PRECISIONS = ("ieee", "tf32", "float16", "bfloat16")
"""How the pass over the catalogue multiplies. ieee is float32; the others decide what they can and leave the rest to it
(:mod:`rsir.kernels.margin`)."""

TUNED = {"block_m": (16, 32, 64, 128, 256), "num_warps": (1, 2, 4, 8, 16), "num_stages": (1, 2, 3, 4, 5, 6, 7, 8)}
"""What is measured, and what it may be; the rest of a plan follows from the shape. Pieces of k and tiles of lone rows
stay: they may decide the bits."""

_OLDEST = (3, 5)
if tuple(int(part) for part in triton.__version__.split(".")[:2]) < _OLDEST:
    raise ImportError(
        f"expected Triton 3.5.1 or newer, got {triton.__version__}, under which some kernels do not compile: CUDA "
        "builds of torch bring a newer one from 2.9 on"
    )

# triton.jit reads this when a kernel is defined, so later changes have no effect.
_INTERPRETED = triton.knobs.runtime.interpret


@dataclass(frozen=True)
class Plan:
    """Constants of one family of launches.

    The float32 tiles on CUDA run on the FMA units: 4 x 8 accumulators a thread, and k in steps of 16, the shortest that
    every Triton since 3.5 takes. With 8 x 8 accumulators (4 warps), or with a second stage, some shape spills under
    some of them. All else runs on matrix units, where with 4 warps some shape spills under some Triton.
    """

    block_m: int
    block_n: int
    block_k: int
    target_block_n: int
    """Columns of the tiles that score the targets."""
    num_warps: int
    num_stages: int
    strided: bool
    """Deal a group's items to columns BLOCK_N / GROUP apart (see scan_kernel)."""
    row_block_m: int
    """How often a lone query row stands in the tile that rescores it."""
    row_block_n: int
    row_block_k: int
    precision: str
    """input_precision of tl.dot."""
    matrix_instr_nonkdim: int | None = None
    """On AMD: 16 in every float32 kernel, so that all of them use one instruction and so have one rounding."""

    max_registers: int | None = None
    """On CUDA: the most registers a thread. Left to itself ptxas aims at 168 for some shapes and spills a few."""

    def tiles(self, dim: int) -> dict[str, object]:
        """Keyword arguments of the launches whose tiles are of several queries."""
        return {
            "D": dim,
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "BLOCK_K": self.block_k,
            "PRECISION": self.precision,
            **self._options(self.num_warps, self.num_stages, self.max_registers),
        }

    def lone_rows(self, dim: int) -> dict[str, object]:
        """Keyword arguments of the launches whose programs score one query each."""
        return {
            "D": dim,
            "BLOCK_M": self.row_block_m,
            "BLOCK_N": self.row_block_n,
            "BLOCK_K": self.row_block_k,
            **self._options(4, 2, None),
        }

    def _options(self, num_warps: int, num_stages: int, max_registers: int | None) -> dict[str, int | bool]:
        options: dict[str, int | bool] = {
            "num_warps": num_warps,
            "num_stages": num_stages,
            "enable_fp_fusion": True,
        }
        if self.matrix_instr_nonkdim is not None:
            options["matrix_instr_nonkdim"] = self.matrix_instr_nonkdim
        if max_registers is not None:
            options["maxnreg"] = max_registers
        return options


def platform() -> str:
    """ "interpreter", "cuda" or "hip": where a launch in this process would run."""
    if _INTERPRETED:
        return "interpreter"
    return "hip" if torch.version.hip else "cuda"


@contextlib.contextmanager
def launching() -> Iterator[None]:
    """In the interpreter numpy warns of NaN and infinities, which the kernels expect; on a GPU this does nothing."""
    if platform() != "interpreter":
        yield
        return
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def make_plan(platform: str, precision: str, dim: int, rows: int) -> Plan:
    """Plan of a batch of ``rows`` queries of width ``dim``.

    Tiles follow the batch only where bits do not depend on the tile, that is in float32; elsewhere they are fixed.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")
    if platform == "interpreter":
        block_k = _block_k(dim, 64)
        return Plan(32, 128, block_k, 128, 4, 1, precision != "ieee", 32, 128, block_k, "ieee")
    rounded = precision in ("float16", "bfloat16")
    if platform == "hip":
        if precision.startswith("tf32"):
            raise ValueError(f"precision {precision!r} is for NVIDIA GPUs; use 'ieee', 'float16' or 'bfloat16' here")
        # 64 KB of LDS: the float32 scan takes 32 KB, and up to 56 KB where it writes maxima.
        block_k = _block_k(dim, 64)
        block_m = 16 if rows <= 16 and not rounded else 64
        return Plan(
            block_m, 128, block_k, 32, 4 if block_m == 16 else 8, 2, False, 16, 64, _block_k(dim, 64), "ieee", 16
        )
    if rounded:
        return Plan(64, 128, _block_k(dim, 64), 64, 8, 2, True, 1, 128, 16, "ieee")
    if precision != "ieee":
        return Plan(64, 128, _block_k(dim, 32), 64, 8, 2, True, 1, 128, 16, precision, max_registers=255)
    if rows <= 16:
        return Plan(16, 128, _block_k(dim, 32), 128, 4, 2, False, 1, 128, 16, "ieee")
    return Plan(64, 128, 16, 128, 8, 1, False, 1, 128, 16, "ieee", max_registers=255)


def measured_plan(platform: str, device: torch.device, precision: str, dim: int, rows: int, half: bool = False) -> Plan:
    """The plan measured on this device for this class of shapes, else that of :func:`make_plan`."""
    plan = make_plan(platform, precision, dim, rows)
    if half:  # measured are items of float32
        return plan
    return replace(plan, **_measured(device).get(shape_class(precision, dim, rows), {}))


def fastest_precision(items: torch.Tensor) -> str:
    """The precision that was measured as the fastest for tables like this one (N + 1, d) on its device, else ieee."""
    if items.dtype != torch.float32:  # measured are items of float32
        return "ieee"
    return _measured(items.device).get(fastest_key(items.shape[1]), {}).get("precision", "ieee")


def fastest_key(dim: int) -> str:
    """Under which the fastest precision is kept, as ``{"precision": ...}``."""
    return f"fastest d={dim}"


def shape_class(precision: str, dim: int, rows: int) -> str:
    """Batches that share a plan. Only float32 scores the same whatever the tile, so only there the batch may decide."""
    return f"{precision} d={dim}" + ("" if precision != "ieee" else " rows<=16" if rows <= 16 else " rows>16")


def device_file(device: torch.device) -> Path:
    """Where the measurements of a device's model are kept: ``$XDG_CACHE_HOME/rsir``, by default ``~/.cache/rsir``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rsir"
    return folder / ("kernels-" + "".join(c if c.isalnum() else "-" for c in name) + ".json")


@functools.cache
def _measured(device: torch.device) -> dict[str, dict[str, Any]]:
    file: Path | str = "the file of measured tile sizes"
    try:
        file = device_file(device)
        known: dict[str, dict[str, Any]] = json.loads(file.read_text())
        for key, values in known.items():
            expected = {"precision": PRECISIONS} if key.startswith("fastest ") else TUNED
            if set(values) != set(expected) or not all(values[name] in allowed for name, allowed in expected.items()):
                raise ValueError(f"expected {expected}, got {values}")
    except FileNotFoundError:
        return {}
    except (OSError, RuntimeError, ValueError, AttributeError, TypeError) as cause:
        warnings.warn(f"{file}: these tile sizes are not used: {cause}. Measure again or delete it", stacklevel=2)
        return {}
    return known


def group_size(num_items: int, dim: int, picks: int) -> int:
    """Items per group: small groups make more maxima to write and read, large ones more candidates to look into.

    About 12 bytes an entry are moved for the maxima and 4 d bytes for each candidate, which is least at the square
    root below. At most 32, at least 4.
    """
    best = (12 * num_items / (4 * dim * (picks + 8))) ** 0.5
    size = 4
    while size < 32 and size * 1.5 < best:
        size *= 2
    return size


def scratch_of(device: torch.device) -> int:
    """Bytes of group maxima, bits and candidates together; rows beyond it are processed in further chunks.

    1/64 of a GPU's memory, which never changes an answer.
    """
    return 2**26 if device.type == "cpu" else int(torch.cuda.get_device_properties(device).total_memory) // 64


def rows_per_chunk(num_items: int, group: int, picks: int, others: int, scratch_bytes: int) -> int:
    """Rows whose group maxima (float32), candidates' keys (int64) and other bytes fit the cap; at least 1.

    A multiple of 16, if it can be: every chunk then begins at an aligned address, and no kernel is compiled for others.
    """
    bytes_per_row = 4 * triton.cdiv(num_items, group) + 8 * picks * group + others
    return aligned_rows(scratch_bytes // bytes_per_row)


def aligned_rows(rows: int) -> int:
    """``rows`` rounded down to a multiple of 16 if there is one, and at least 1."""
    return rows // 16 * 16 or max(1, rows)


def chunks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """First row, and the one after the last, of each chunk of ``size`` rows."""
    for first in range(0, rows, size):
        yield first, min(first + size, rows)


def _block_k(dim: int, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(dim)))

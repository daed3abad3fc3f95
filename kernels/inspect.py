"""Compile every kernel ahead of time, with no GPU, and report what it would use there.

``rsir kernels inspect`` prints a table. The launches are recorded from the launcher itself while it runs on
small CPU tensors, so constants, pointer alignment and options are those of real calls.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import attention, decode, fused, gumbel, margin, pool, recheck, scan, select, softmax, types
from .plan import PRECISIONS, platform

__all__ = ["ARCHITECTURES", "Launch", "Report", "compile_launch", "record_launches"]

ARCHITECTURES = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}

_POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Launch:
    """One call of a kernel, as the just-in-time compiler would specialise it."""

    name: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    divisible: tuple[int, ...]
    """Places of arguments that are multiples of 16: aligned pointers let loads be 16 bytes wide."""
    options: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What one kernel uses on one architecture."""

    architecture: str
    precision: str
    kernel: str
    registers: int
    """Per thread; on AMD vector registers, accumulation registers included."""
    shared: int
    """Bytes of shared memory (LDS) a program."""
    spills: int
    """NVIDIA: loads and stores of local memory in the machine code (a stack frame of some bytes may stand unused).
    AMD: spilled vector and scalar registers and bytes of scratch."""
    matrix: str
    """Matrix instruction in the code, "" if none."""
    dot: str
    """How dots are formed: the fused multiply-adds, or the matrix instruction and how it reads k; "" if unknown."""
    shuffles: int
    """Instructions in the code that exchange values between lanes."""


class _Recorder:
    """Stands in for a kernel, notes the launch and runs nothing."""

    def __init__(self, kernel: Any, launches: dict[str, Launch]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.note

    def note(self, *values: Any, **named: Any) -> None:
        names = self.kernel.arg_names
        arguments = dict(zip(names, values, strict=False)) | {k: v for k, v in named.items() if k in names}
        options = {k: v for k, v in named.items() if k not in names}
        signature, constants, divisible = {}, {}, []
        for place, parameter in enumerate(self.kernel.params):
            value = arguments[parameter.name]
            if isinstance(value, Tensor):
                signature[parameter.name], number = _POINTERS[value.dtype], value.data_ptr()
            elif parameter.is_constexpr or value is None or (value == 1 and not parameter.do_not_specialize):
                signature[parameter.name], constants[parameter.name] = "constexpr", value
                continue
            else:
                signature[parameter.name], number = "i32", value
            if number % 16 == 0 and not parameter.do_not_specialize:
                divisible.append(place)
        name = self.kernel.__name__.removesuffix("_kernel")
        if name == "scan":
            kinds = ("COUNT", "MAXIMA", "PERMUTED")
            name += "".join(f" {kind.lower()}" for kind in kinds if constants[kind])
        launch = Launch(name, self.kernel, signature, constants, tuple(divisible), options)
        self.launches.setdefault(repr(launch), launch)


def record_launches(
    platform: str,
    precision: str,
    *,
    dim: int = 64,
    rows: int = 256,
    num_items: int = 4096,
    k: int = 20,
    kept: torch.dtype = torch.float32,
) -> list[Launch]:
    """Every different launch that all ops make on ``platform`` ("cuda" or "hip") at this shape, of items so kept."""
    launches: dict[str, Launch] = {}
    queries, items = torch.zeros(rows, dim), torch.zeros(num_items + 1, dim, dtype=kept)
    lists = types.Lists(torch.ones(2 * rows, dtype=torch.int32), torch.arange(0, 2 * rows + 1, 2))
    counters = torch.zeros(rows, 3, dtype=torch.int64)
    # Nothing runs, so outputs would stay uninitialised: zeros keep the host's own steps in range.
    with _recording(platform, launches), mock.patch("torch.empty", torch.zeros):
        table = types.ItemTable.pack(items, precision)
        fused.rank_within(queries, table, lists, 10, phases=3)
        fused.rank_within(queries, table, lists, None)
        fused.rank_and_best(queries, table, lists, None, k, lists)
        fused.rank_and_best(queries, table, lists, 10, k, lists, phases=3)
        best = fused.best_items(queries, table, k, lists)
        pool.pool_best(queries, table, lists, k, lists)
        pool.logits_of(queries, table, lists)
        gumbel.draw(best, 1.0, 0, counters)
        for tau, few in ((10, k), (None, 1)):
            slots = decode.Slots(
                rows,
                64,
                lists.ids,
                len(lists.ids),
                50,
                table,
                tau=tau,
                k=few,
                temperature=1.0,
                seed=0,
                share=0.5,
                drop=True,
            )
            slots.start(torch.zeros(rows, decode.FRESH, dtype=torch.int64))
            slots.append()
            slots.decide(queries)
        ids, one_each = torch.ones(rows, dtype=torch.int64), torch.ones(rows)
        if precision in ("ieee", "bfloat16"):
            arguments = queries, queries, queries, ids, ids, one_each, one_each, one_each
            softmax.sampled_softmax(*arguments, bfloat16=precision == "bfloat16")
        if precision == "ieee":
            heads = torch.zeros(rows, 3, 2, dim // 2)
            cache = torch.zeros(2, rows, 2, 64, dim // 2)
            attention.attend_cached(*heads.unbind(1), torch.zeros(rows, dtype=torch.int64), *cache)
    return list(launches.values())


@contextlib.contextmanager
def _recording(platform: str, launches: dict[str, Launch]) -> Iterator[None]:
    """Note every launch in ``launches``, as on ``platform``, and run none."""
    with contextlib.ExitStack() as stack:
        for module in (attention, decode, gumbel, margin, pool, recheck, scan, select, softmax, types):
            stand_ins: dict[str, Any] = {
                name: _Recorder(kernel, launches) for name, kernel in vars(module).items() if name.endswith("_kernel")
            }
            if hasattr(module, "platform"):
                stand_ins["platform"] = lambda: platform
            if stand_ins:
                stack.enter_context(mock.patch.multiple(module, **stand_ins))
        yield


def compile_launch(launch: Launch, architecture: str, precision: str) -> Report:
    """Compile to machine code and read what it uses."""
    target = ARCHITECTURES[architecture]
    attributes = {(place,): [["tt.divisibility", 16]] for place in launch.divisible}
    source = ASTSource(launch.kernel, launch.signature, launch.constants, attributes)
    compiled = triton.compile(source, target=target, options=launch.options)
    figures = _amd_figures(compiled) if target.backend == "hip" else _nvidia_figures(compiled)
    return Report(architecture, precision, launch.name, **figures)


def _nvidia_figures(compiled: Any) -> dict[str, Any]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, assembly = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    found = re.search(r"REG:(\d+)", usage)
    if found is None or "EXIT" not in assembly:
        raise RuntimeError(f"cuobjdump: expected registers and machine code, got {usage!r} and {assembly[:200]!r}")
    code = compiled.asm["ptx"]
    matrix = re.search(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync", code)
    # Separate products or sums would mean that some dot is not a chain of fused multiply-adds.
    chained = "fma.rn.f32" in code and not re.search(r"\b(mul|add)(\.rn)?(\.ftz)?\.f32\b|fma\.rn\.ftz", code)
    return {
        "registers": int(found[1]),
        "shared": compiled.metadata.shared,
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", assembly)),
        "matrix": matrix[0] if matrix else "",
        "dot": matrix[0] if matrix else "fma chain" if chained else "",
        "shuffles": code.count("shfl.sync"),
    }


def _amd_figures(compiled: Any) -> dict[str, Any]:
    code = compiled.asm["amdgcn"]
    figure = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", code, re.MULTILINE)}
    matrix = re.search(r"v_mfma_\w+", code)
    return {
        "registers": figure["vgpr_count"],
        "shared": compiled.metadata.shared,
        "spills": figure["vgpr_spill_count"] + figure["sgpr_spill_count"] + figure["private_segment_fixed_size"],
        "matrix": matrix[0] if matrix else "",
        "dot": " ".join([matrix[0], *sorted(set(re.findall(r"kWidth = \d+", compiled.asm["ttgir"])))])
        if matrix
        else "",
        "shuffles": len(re.findall(r"ds_bpermute|ds_swizzle|_dpp|v_permlane", code)),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print a Markdown table of every kernel on the architectures and precisions asked for."""
    parser = argparse.ArgumentParser(
        prog="rsir kernels inspect",
        description="Compile every kernel, without a GPU, and print what it would use there.",
    )
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), choices=list(ARCHITECTURES))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--items", type=int, default=4096)
    options = parser.parse_args(arguments)
    if platform() == "interpreter":
        raise SystemExit("kernels are interpreted in this process: unset TRITON_INTERPRET to compile them")
    print("| " + " | ".join(field.name for field in fields(Report)) + " |")
    print("|" + "---|" * len(fields(Report)))
    for architecture in options.architectures:
        backend = ARCHITECTURES[architecture].backend
        for precision in options.precisions:
            if backend == "hip" and precision.startswith("tf32"):
                continue
            for launch in record_launches(
                backend, precision, dim=options.dim, rows=options.rows, num_items=options.items
            ):
                report = compile_launch(launch, architecture, precision)
                print("| " + " | ".join(str(value) for value in astuple(report)) + " |", flush=True)

"""Every kernel compiles for each architecture without a GPU, and uses what it may.

Launches are those that the launcher makes. A subprocess does it, because kernels are interpreted in this one.
"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", minversion="3.5")

# One subprocess for all: exact float32 in full, of the other precisions the kernels that differ.
SCRIPT = """
import dataclasses, json, torch
from rsir.kernels.inspect import ARCHITECTURES, compile_launch, record_launches
reports = []
for architecture, target in ARCHITECTURES.items():
    rest = ["bfloat16"] + (["tf32"] if target.backend == "cuda" else [])
    for precision in ["ieee", *rest]:
        for launch in record_launches(target.backend, precision, num_items=20_000):
            if precision == "ieee" or launch.name.startswith(("scan", "collect", "recheck", "complete", "softmax")):
                reports.append(dataclasses.asdict(compile_launch(launch, architecture, precision)))
    if architecture in ("sm_90", "gfx942"):  # of float16, and of items kept in half precision
        for launch in record_launches(target.backend, "float16", num_items=20_000):
            if launch.name.startswith("scan"):
                reports.append(dataclasses.asdict(compile_launch(launch, architecture, "float16")))
        for launch in record_launches(target.backend, "ieee", num_items=20_000, kept=torch.float16):
            if launch.name in ("best_target", "scan count maxima", "repair", "rescore", "pool", "listed", "choices"):
                reports.append(dataclasses.asdict(compile_launch(launch, architecture, "ieee, half")))
sizes = [(256, 20_000), (333, 20_000), (257, 20_011), (4096, 19_999)]
new = {
    precision: [
        len({repr(launch) for launch in record_launches("cuda", precision, rows=rows, num_items=items)} - known)
        for known in [{repr(launch) for launch in record_launches("cuda", precision, num_items=20_000)}]
        for rows, items in sizes
    ]
    for precision in ("ieee", "bfloat16")
}
print(json.dumps({"reports": reports, "new": new}))
"""

# Registers: all that a thread may have; on AMD, where two waves share a unit. sm_80 has 164 KB of shared memory, gfx942
# 64 KB of LDS.
LIMITS = {"sm_80": (255, 96 << 10), "sm_90": (255, 96 << 10), "sm_100": (255, 96 << 10), "gfx942": (256, 64 << 10)}
MATRIX = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma"}
SCAN = {
    "best_target",
    "scan count",
    "scan maxima",
    "scan count maxima",
    "scan count permuted",
    "scan count maxima permuted",
}
RECHECKING = {"collect", "recheck", "complete"}  # of what a rounded pass leaves open
OTHERS = {"exclude", "repair", "pick", "rescore", "pool", "listed", "noise", "draw", "softmax_rows", "softmax_columns"}
DECODING = {"start", "append", "list", "choices", "settle", "attend"}


@pytest.fixture(scope="module")
def compiled():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reports(compiled):
    return compiled["reports"]


def test_other_numbers_of_rows_and_items_compile_nothing_anew(compiled):
    """A launch of another size has the signature, constants, alignment and options of one that was made before."""
    assert compiled["new"] == {"ieee": [0] * 4, "bfloat16": [0] * 4}


@pytest.mark.parametrize("architecture", LIMITS)
def test_resources(reports, architecture):
    registers, shared = LIMITS[architecture]
    own = [report for report in reports if report["architecture"] == architecture]
    assert {report["kernel"] for report in own} == SCAN | RECHECKING | OTHERS | DECODING
    for report in own:
        assert report["spills"] == 0, report
        assert report["registers"] <= registers, report
        assert report["shared"] <= shared, report


def test_every_precision_is_compiled(reports):
    scans = {(report["architecture"], report["precision"]) for report in reports if report["kernel"] == "scan maxima"}
    assert {(name, "bfloat16") for name in LIMITS} | {("sm_90", "float16"), ("gfx942", "float16")} <= scans
    assert {(name, "tf32") for name in LIMITS if name != "gfx942"} <= scans


@pytest.mark.parametrize("architecture", LIMITS)
def test_matrix_instructions(reports, architecture):
    for report in reports:
        if report["architecture"] != architecture or report["kernel"] not in SCAN:
            continue
        # Exact float32 has matrix instructions on AMD alone.
        exact = report["precision"].startswith("ieee")
        expected = MATRIX[architecture] if architecture == "gfx942" or not exact else ""
        assert report["matrix"].startswith(expected), report
        assert bool(report["matrix"]) == bool(expected), report


@pytest.mark.parametrize("architecture", LIMITS)
def test_one_arithmetic_in_all_float32_kernels(reports, architecture):
    # The scan in float32, the targets and what is scored again must round alike: by fused multiply-adds only, or by one
    # matrix instruction.
    dots = {"repair", "rescore", "pool", "listed", "choices", "recheck", "complete"}
    kinds = {
        r["dot"]
        for r in reports
        if r["architecture"] == architecture
        and (r["kernel"] in dots or (r["kernel"] in SCAN and r["precision"].startswith("ieee")))
    }
    assert len(kinds) == 1, kinds

"""GPU scoring: rank count and masked top-20 with rank count, in every precision, beside the roofline.

Against the best of several chunk sizes of torch.mm + topk + count in float32. Answers are checked in double precision
first; a wrong one ends the run without a figure. The floor beside a contender is the larger of multiply-adds over the
device's nominal rate and bytes that must move over the measured bandwidth; no kernel can be faster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from rsir import ops
from rsir.errors import BackendUnavailable

from .harness import Contender, Figure, Report, compare, describe_machine
from .workloads import Workload, random_workload

K, TAU = 20, 10
ROWS = {12_000: 16_384, 100_000: 8_192, 1_000_000: 2_048}  # queries by catalogue size

# Nominal dense rates in TFLOP/s, from the vendors' data sheets: float32 (vector units on NVIDIA, matrix units on
# AMD), TF32, half precision. The first name that the device's name contains counts.
NOMINAL = {
    "B200": (75.0, 1_100.0, 2_250.0),
    "H200": (67.0, 494.7, 989.4),
    "H100 PCIe": (51.0, 378.0, 756.0),
    "H100": (67.0, 494.7, 989.4),
    "A100": (19.5, 156.0, 312.0),
    "L40S": (91.6, 183.0, 362.0),
    "MI300X": (163.4, None, 1_307.4),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=list(ROWS), help="catalogue sizes")
    parser.add_argument("--rows", type=int, help="queries a run (default: by catalogue size)")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15, help="turns that are timed")
    parser.add_argument("--precisions", nargs="+", help="of the scan (default: all of this device)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(
            "benchmarks gpu: needs a GPU that torch can see, and torch.cuda.is_available() is False. Install a CUDA or "
            "ROCm build of torch on a machine with a GPU; `python -m benchmarks ops` measures the CPU",
            file=sys.stderr,
        )
        return 1
    try:
        ops.pack(torch.ones(2, 1, device="cuda"), backend="triton")
    except (BackendUnavailable, ValueError) as cause:
        print(f"benchmarks gpu: {cause}", file=sys.stderr)
        return 1

    name = torch.cuda.get_device_name()
    nominal = next((rates for key, rates in NOMINAL.items() if key in name), (None, None, None))
    bandwidth = measure_bandwidth()
    report = Report(f"GPU ops, d = {options.dim}, {name}", describe_machine())
    report.machine["bandwidth"] = f"{bandwidth / 1e9:.0f} GB/s, measured by copying"
    report.machine["nominal TFLOP/s (float32, TF32, half)"] = nominal
    report.machine["torch"] = torch.__version__
    for num_items in options.items:
        rows = options.rows or ROWS.get(num_items, 4_096)
        work = on_device(random_workload(rows, num_items, options.dim))
        report.figures += catalogue(work, nominal, bandwidth, options.rounds, options.precisions or precisions())
    report.notes.append(
        "Times include launches and the host's share, up to a synchronised device. All precisions gave the answers of "
        "float32 to the bit. `of peak` is of the nominal rate of the units that the precision uses."
    )
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


def catalogue(
    work: Workload, nominal: tuple[float | None, ...], bandwidth: float, rounds: int, scans: list[str]
) -> list[Figure]:
    """All figures of one catalogue."""
    rows, dim = work.queries.shape
    num_items = work.items.shape[0] - 1
    tables = {p: ops.pack(work.items, backend="triton", instruction_set=p) for p in scans}
    check(work, tables)
    operations = 2.0 * rows * num_items * dim
    read = 4.0 * (rows + num_items) * dim  # each input once
    draw = ops.Draw(K, counters=torch.zeros(rows, 3, dtype=torch.int64, device="cuda"))

    def both(precision: str) -> Callable[[], object]:
        return lambda: synchronised(
            ops.rank_and_sample(work.queries, tables[precision], work.targets, draw=draw, excluded=work.excluded)
        )

    def count(precision: str, tau: int | None) -> Callable[[], object]:
        return lambda: synchronised(ops.rank_within(work.queries, tables[precision], work.targets, tau))

    chunk = best_chunk(work)
    cases: dict[str, dict[str, tuple[str, Callable[[], object]]]] = {
        "masked top-20 and rank": {p: (p, both(p)) for p in tables},
        "rank": {p: (p, count(p, None)) for p in tables},
        f"rank, tau = {TAU}": {p: (p, count(p, TAU)) for p in tables},
    }
    cases["masked top-20 and rank"][f"torch, chunks of {chunk}"] = (
        "ieee",
        lambda: synchronised(plain(work, chunk)),
    )
    figures = []
    for case, contenders in cases.items():
        timed = compare(
            f"{case}, N = {num_items:,}, B = {rows:,}",
            [Contender(name, run) for name, (_, run) in contenders.items()],
            threads=1,
            rounds=rounds,
            cpu_time=False,
            peak=lambda: float("nan"),
            read_rate=bandwidth,
            operations=operations,
            traffic=read,
        )
        for figure, (precision, run) in zip(timed, contenders.values(), strict=True):
            rate = nominal_rate(precision, nominal)
            figure.peak_fraction = None if rate is None else (figure.gflops or 0.0) * 1e9 / rate
            floor = max(read / bandwidth, 0.0 if rate is None else operations / rate)
            figure.contender += f" (floor {floor * 1e3:.3f} ms)"
            figure.extra_mib = device_memory(run)
        figures += timed
    return figures


def precisions() -> list[str]:
    """The precisions of this device; exact float32 first."""
    if torch.version.hip:
        return ["ieee", "float16", "bfloat16"]
    return ["ieee", "tf32", "float16", "bfloat16"]


def nominal_rate(precision: str, nominal: tuple[float | None, ...]) -> float | None:
    """Nominal operations a second of a precision, None where the device is not in the table."""
    rate = nominal[{"ieee": 0, "tf32": 1}.get(precision, 2)]
    return None if rate is None else rate * 1e12


def check(work: Workload, tables: dict[str, ops.ItemTable]) -> None:
    """Compare a few rows of float32 with double precision, and all rows of the others with float32, to the bit."""
    rows = min(64, len(work.queries))
    queries = work.queries[:rows]
    targets, excluded = (
        ops.Ragged(part.ids[: int(part.offsets[rows])], part.offsets[: rows + 1])
        for part in (work.targets, work.excluded)
    )
    exact = queries.double() @ work.items.double().T
    exact[:, 0] = -torch.inf
    owner = torch.repeat_interleave(targets.offsets.diff())
    best = torch.full((rows,), -torch.inf, dtype=torch.float64, device="cuda")
    best = best.scatter_reduce(0, owner, exact[owner, targets.ids.long()], "amax")
    ranks = 1 + (exact > best[:, None]).sum(dim=1)
    exact[torch.repeat_interleave(excluded.offsets.diff()), excluded.ids.long()] = -torch.inf
    values = exact.topk(K, dim=1).values.float()
    first = next(iter(tables.values()))
    top = ops.topk(queries, first, K, excluded=excluded)
    error = float((top.logits - values).abs().max())
    if not error <= 1e-4:
        raise SystemExit(f"the best logits are off by {error}, no figures")
    off = float((ops.rank_within(queries, first, targets) - ranks).abs().double().mean()) / work.items.shape[0]
    if not off <= 2e-6:
        raise SystemExit(f"ranks are off by {off:.2e} of the catalogue on average, no figures")
    want = answers(work, first)
    for precision, items in tables.items():
        for name, one, other in zip(("ids", "logits", "ranks"), answers(work, items), want, strict=True):
            if not torch.equal(one, other):
                wrong = float((one != other).double().mean())
                raise SystemExit(f"{precision}: {wrong:.2%} of the {name} are not those of float32, no figures")


def answers(work: Workload, table: ops.ItemTable) -> list[torch.Tensor]:
    """Best items, their logits, and ranks of every row."""
    top = ops.topk(work.queries, table, K, excluded=work.excluded)
    return [*top, ops.rank_within(work.queries, table, work.targets)]


def plain(work: Workload, chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranks and masked top-20 by torch.mm over chunks of rows."""
    ranks, ids = [], []
    bounds = work.targets.offsets.tolist(), work.excluded.offsets.tolist()
    for first in range(0, len(work.queries), chunk):
        last = min(first + chunk, len(work.queries))
        logits = work.queries[first:last] @ work.items.T
        logits[:, 0] = -torch.inf
        (own, target), (row, banned) = (
            (
                torch.repeat_interleave(
                    part.offsets[first : last + 1].diff(), output_size=limits[last] - limits[first]
                ),
                part.ids[limits[first] : limits[last]].long(),
            )
            for part, limits in zip((work.targets, work.excluded), bounds, strict=True)
        )
        best = torch.full((last - first,), -torch.inf, device=logits.device)
        best = best.scatter_reduce(0, own, logits[own, target], "amax")
        ranks.append(1 + (logits > best[:, None]).sum(dim=1))
        logits[row, banned] = -torch.inf
        ids.append(logits.topk(K, dim=1).indices)
    return torch.cat(ranks), torch.cat(ids)


def best_chunk(work: Workload) -> int:
    """Rows a chunk at which :func:`plain` is fastest, of those whose logits fit 4 GiB."""
    times = {}
    for chunk in (256, 1024, 4096, 16384):
        if chunk > 256 and 4.0 * chunk * work.items.shape[0] > 2**32:
            continue
        times[chunk] = min(milliseconds(partial(plain, work, chunk)) for _ in range(3))
    return min(times, key=times.__getitem__)


def milliseconds(run: Callable[[], object]) -> float:
    """Device time of one call."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def measure_bandwidth() -> float:
    """Bytes a second that copying 1 GiB reads and writes."""
    source = torch.zeros(2**28, device="cuda")
    target = torch.empty_like(source)
    best = min(milliseconds(lambda: target.copy_(source)) for _ in range(10))
    return 2 * source.nbytes / best * 1e3


def device_memory(run: Callable[[], object]) -> float:
    """MiB of device memory that a run takes beyond what was held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def synchronised(result: object) -> object:
    torch.cuda.synchronize()
    return result


def on_device(work: Workload) -> Workload:
    """The workload on the GPU."""
    lists = (ops.Ragged(part.ids.cuda(), part.offsets.cuda()) for part in (work.targets, work.excluded))
    return Workload(work.queries.cuda(), work.items.cuda(), *lists)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

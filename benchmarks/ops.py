"""CPU scoring: rank count, masked top-20 with rank count, with added scores, early exit and threads.

Against plain torch written with care (benchmarks/baselines.py; the fastest of its ways by trial), and against faiss'
IndexFlatIP search for 20, which neither masks nor counts. Answers are checked in double precision and against torch's
first; a wrong one ends the run without a figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from rsir import _core, ops

from . import baselines
from .harness import Contender, Report, compare, describe_machine, extra_memory
from .workloads import Workload, random_workload, read_log, simulate_log, trained_workload

K = 20
ADDED = 200  # items a row, as the item-kNN lists
ROWS = {
    12_000: 4096,
    100_000: 1024,
    1_000_000: 256,
}  # queries by catalogue size: a run of torch takes a few seconds at most
MEMORY_ROWS = 4096  # queries of the run whose memory a note tells


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ops", description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=list(ROWS), help="catalogue sizes")
    parser.add_argument("--rows", type=int, help="queries a run (default: by catalogue size)")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9, help="turns that are timed")
    parser.add_argument("--instruction-set", choices=_core.instruction_sets(), default=_core.instruction_sets()[0])
    parser.add_argument(
        "--log", type=Path, help="interaction log to train the early-exit model on (default: simulated)"
    )
    parser.add_argument("--quick", action="store_true", help="one small catalogue, three turns")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="time by processor seconds, for a machine that others use, too",
    )
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.items, options.rows, options.rounds = [12_000], options.rows or 512, 3

    report = Report(f"CPU ops, d = {options.dim}, {options.instruction_set}", describe_machine())
    read_rates = {}
    for threads in options.threads:
        alone = max(_core.measure_fma(options.instruction_set, threads, 0.2) for _ in range(3))
        read_rates[threads] = _core.measure_read(threads, 1 << 27)
        report.machine[f"{threads} threads alone"] = (
            f"{alone / 1e9:.0f} GFLOP/s of multiply-adds, {read_rates[threads] / 1e9:.1f} GB/s read"
        )
    for num_items in options.items:
        rows = options.rows or ROWS.get(num_items, 1024)
        _catalogue(report, random_workload(rows, num_items, options.dim), options, read_rates)
    log = read_log(options.log) if options.log else simulate_log()
    _early_exit(report, trained_workload(log, options.rows or 4096, options.dim), options)
    report.notes.append(
        "Peak is the multiply-add rate measured between the contenders, at the clock the load leaves; the rate above "
        "was measured alone. Times slower than the first contender are medians over turns."
    )
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


def _catalogue(report: Report, work: Workload, options: argparse.Namespace, read_rates: dict[int, float]) -> None:
    import faiss  # slow to import, and not needed for --help

    rows, dim = work.queries.shape
    num_items = len(work.items) - 1
    table = ops.pack(work.items, backend="cpp", instruction_set=options.instruction_set)
    draw = ops.Draw(K, counters=torch.stack([torch.arange(rows)] * 3, 1))
    added = _added(rows, num_items)
    _check(work, table, draw, added)
    index = faiss.IndexFlatIP(dim)
    index.add(work.items[1:].numpy())
    names = {
        "count": f"rank count, N = {num_items:,}, B = {rows:,}",
        "top": f"masked top-{K}, N = {num_items:,}, B = {rows:,}",
        "added": f"masked top-{K}, scores of {ADDED} items a row added, N = {num_items:,}, B = {rows:,}",
        "both": f"masked top-{K} + rank count, N = {num_items:,}, B = {rows:,}",
    }
    cost = {
        "operations": 2.0 * rows * num_items * dim,
        "traffic": 4.0 * num_items * dim,  # one pass over the items
    }
    first_of_threads: dict[int, float] = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)

        def count(threads: int = threads) -> object:
            return ops.rank_within(work.queries, table, work.targets, threads=threads)

        def both(threads: int = threads) -> object:
            return ops.rank_and_sample(
                work.queries,
                table,
                work.targets,
                draw=draw,
                excluded=work.excluded,
                threads=threads,
            )

        def top(scores: ops.SparseScores | None = None, threads: int = threads) -> object:
            return ops.topk(work.queries, table, K, excluded=work.excluded, added=scores, threads=threads)

        contenders = {
            "count": [Contender("rsir", count), _plain(work, count=True)],
            "top": [Contender("rsir", top), _plain(work, select=True)],
            "added": [
                Contender("rsir", lambda: top(added)),
                Contender("rsir, nothing added", top),
                _plain(work, select=True, added=added),
            ],
            "both": [
                Contender("rsir", both),
                _plain(work, count=True, select=True),
                Contender("faiss (top only)", lambda: index.search(work.queries.numpy(), K)),
            ],
        }
        for case, group in contenders.items():
            figures = compare(
                names[case],
                group,
                threads=threads,
                rounds=options.rounds,
                cpu_time=options.cpu_time,
                peak=lambda threads=threads: _core.measure_fma(options.instruction_set, threads, 0.02),  # type: ignore[misc]
                read_rate=read_rates[threads],
                **cost,
            )
            for contender, figure in zip(group, figures, strict=True):
                figure.extra_mib = extra_memory(contender.run)
            report.figures += figures
            if case == "both":
                first_of_threads[threads] = figures[0].median_ms
    report.notes += _memory(work, table, max(options.threads))
    low, high = min(first_of_threads), max(first_of_threads)
    if low != high:
        ratio = first_of_threads[low] / first_of_threads[high]
        report.notes.append(f"- {names['both']}: {high} threads are {ratio:.2f}x as fast as {low}.")


def _memory(work: Workload, table: ops.ItemTable, threads: int) -> list[str]:
    """A note on what the fused pass allocates for a large batch: the workload's rows over and over."""
    rows = len(work.queries)
    many = torch.arange(MEMORY_ROWS) % rows
    targets, excluded = (
        ops.Ragged(part.ids.reshape(rows, -1)[many].flatten(), torch.arange(MEMORY_ROWS + 1) * int(part.offsets[1]))
        for part in (work.targets, work.excluded)
    )
    queries, draw = work.queries[many], ops.Draw(K, counters=torch.zeros(MEMORY_ROWS, 3, dtype=torch.int64))

    def run() -> object:
        return ops.rank_and_sample(queries, table, targets, draw=draw, excluded=excluded, threads=threads)

    extra = extra_memory(run)
    if extra is None:
        return []
    mib = 4 * work.items[1:].numel() / 2**20
    case = f"masked top-{K} + rank count, N = {table.num_items:,}, B = {MEMORY_ROWS:,}, {threads} threads"
    return [f"- {case}: rsir takes {extra:.1f} MiB beyond inputs and an item table of {mib:.0f} MiB."]


def _early_exit(report: Report, work: Workload, options: argparse.Namespace) -> None:
    table = ops.pack(work.items, backend="cpp", instruction_set=options.instruction_set)
    exact = ops.rank_within(work.queries, table, work.targets)
    threads = options.threads[0]
    contenders = []
    for tau in (None, 10, 50):

        def run(tau: int | None = tau) -> Tensor:
            return ops.rank_within(work.queries, table, work.targets, tau, threads=threads)

        if tau is not None and not torch.equal(run(), exact.clamp(max=tau + 1)):
            raise SystemExit(f"early exit at tau {tau}: wrong ranks")
        contenders.append(Contender("full count" if tau is None else f"tau = {tau}", run))
    within = (exact <= 10).float().mean()
    name = f"trained model, {table.num_items:,} items, {within:.0%} of rows within 10"
    report.figures += compare(
        name,
        contenders,
        threads=threads,
        rounds=options.rounds,
        cpu_time=options.cpu_time,
        peak=lambda: _core.measure_fma(options.instruction_set, threads, 0.02),
    )


def _added(rows: int, num_items: int) -> ops.SparseScores:
    """Scores as the item-kNN's vote adds: far above the spread of logits."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, num_items + 1, (rows, ADDED), generator=generator).sort(1).values
    first = torch.cat([torch.ones(rows, 1, dtype=torch.bool), ids[:, 1:] > ids[:, :-1]], 1)
    offsets = torch.nn.functional.pad(first.sum(1).cumsum(0), (1, 0))
    return ops.SparseScores(ids[first], offsets, 30 * torch.rand(int(offsets[-1]), generator=generator))


def _plain(
    work: Workload, *, count: bool = False, select: bool = False, added: ops.SparseScores | None = None
) -> Contender:
    """Plain torch in its fastest way."""
    rows = len(work.queries)
    row_of_target = torch.repeat_interleave(work.targets.offsets.diff())
    row_of_excluded = torch.repeat_interleave(work.excluded.offsets.diff())
    row_of_added = None if added is None else torch.repeat_interleave(added.offsets.diff())
    kept: dict[baselines.Way, baselines.Catalogue] = {}

    def run(way: baselines.Way, rows: int) -> tuple[Tensor, Tensor]:
        if way not in kept:
            kept.clear()
            kept[way] = baselines.Catalogue(work.items, way)
        catalogue = kept[way]
        ranks, ids = torch.empty(rows, dtype=torch.int64), torch.empty(rows, K, dtype=torch.int64)
        for low in range(0, rows, way.rows):
            high = min(low + way.rows, rows)
            logits = catalogue.score(work.queries[low:high])
            if added is not None and row_of_added is not None:
                begin, end = added.offsets[low], added.offsets[high]
                place = (row_of_added[begin:end] - low) * logits.shape[1] + added.ids[begin:end] - 1
                logits.view(-1).index_add_(0, place, added.values[begin:end])
            if count:
                begin, end = work.targets.offsets[low], work.targets.offsets[high]
                local = row_of_target[begin:end] - low
                best = torch.full((high - low,), -torch.inf)
                best.scatter_reduce_(0, local, logits[local, work.targets.ids[begin:end] - 1], "amax")
                ranks[low:high] = 1 + catalogue.count(logits, best)
            if select:
                begin, end = work.excluded.offsets[low], work.excluded.offsets[high]
                logits[row_of_excluded[begin:end] - low, work.excluded.ids[begin:end] - 1] = -torch.inf
                ids[low:high] = catalogue.best(logits, K)
        return ranks, ids

    way, whole = baselines.fastest(run, baselines.ways(work.items, rows, count=count, select=select), rows)
    ranks, ids = run(way, rows)
    if count:
        _same(ranks, ops.rank_within(work.queries, work.items, work.targets), "ranks")
    if select:
        _same(ids, ops.topk(work.queries, work.items, K, excluded=work.excluded, added=added).ids, "lists")
    return Contender(f"torch, {way}", whole)


def _same(theirs: Tensor, ours: Tensor, what: str) -> None:
    """Equal but for near ties, which float32 sums in another order may exchange: in one row of a thousand, or three."""
    differ = int((theirs != ours).view(len(ours), -1).any(1).sum())
    if differ > max(3, len(ours) // (1000 if what == "lists" else 20)):
        raise SystemExit(f"{what} of {differ} rows of {len(ours)} differ between torch and rsir")


def _check(work: Workload, table: ops.ItemTable, draw: ops.Draw, added: ops.SparseScores) -> None:
    """Ranks and top lists of some rows against double precision, up to rounding at near ties."""
    sums = ops.topk(work.queries, table, K, excluded=work.excluded, added=added)
    got = ops.rank_and_sample(work.queries, table, work.targets, draw=draw, excluded=work.excluded)
    top = ops.topk(work.queries, table, K, excluded=work.excluded)
    for row in range(0, len(work.queries), max(1, len(work.queries) // 16)):
        logits = work.items.double() @ work.queries[row].double()
        margin = 1e-5 * float(logits.abs().max())
        logits[0] = -torch.inf
        begin, end = work.targets.offsets[row], work.targets.offsets[row + 1]
        best = logits[work.targets.ids[begin:end]].max()
        low, high = (int((logits > best + shift).sum()) for shift in (margin, -margin))
        begin, end = work.excluded.offsets[row], work.excluded.offsets[row + 1]
        logits[work.excluded.ids[begin:end]] = -torch.inf
        want = logits.topk(K).values
        if not low <= int(got.ranks[row]) - 1 <= high + 1:
            raise SystemExit(f"row {row}: rank {int(got.ranks[row])}, expected within {low + 1}..{high + 2}")
        if (top.logits[row].double() - want).abs().max() > margin or int(got.ids[row]) not in top.ids[row]:
            raise SystemExit(f"row {row}: wrong top-{K}")
        own = slice(int(added.offsets[row]), int(added.offsets[row + 1]))
        logits[added.ids[own]] += added.values[own].double()
        if (sums.logits[row].double() - logits.topk(K).values).abs().max() > margin:
            raise SystemExit(f"row {row}: wrong top-{K} with added scores")

"""Fidelity verdicts over a large catalogue: FAISS proofs of rejection against the exact scan with early exit.

The catalogue is synthetic and clustered; a row's best target has a rank drawn log-uniformly from 1..N, so that at
N = 1,000,000 and tau = 10 one row in six passes, one in six fails by less than a factor of ten, and so on. Verdicts
are compared with the exact scan's before anything is timed; a wrong one ends the run without a figure.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsir import _core, ops
from rsir.generation.neighbours import CandidateIndex
from rsir.ops import Ragged

from .harness import Contender, Report, compare, describe_machine
from .proofs import rank_within_proved, select
from .workloads import Workload


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fidelity", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="catalogue size")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--tau", type=int, default=10)
    parser.add_argument(
        "--spread", type=float, default=0.7, help="standard deviation within a cluster; 1 between clusters"
    )
    parser.add_argument("--probes", type=int, nargs="+", default=[2, 4, 8], help="lists an index search visits")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="turns that are timed")
    parser.add_argument("--quick", action="store_true", help="20,000 items, 128 rows, three turns")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a machine that others use, too")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.items, options.rows, options.rounds = 20_000, 128, 3

    torch.set_num_threads(options.threads)
    report = Report(f"Fidelity at tau = {options.tau}, N = {options.items:,}, d = {options.dim}", describe_machine())
    work = clustered_workload(options.rows, options.items, options.dim, options.spread)
    table = ops.pack(work.items)
    start = time.perf_counter()
    index = CandidateIndex(table, method="ivf", threads=options.threads)
    report.machine["index"] = f"ivf, built in {time.perf_counter() - start:.1f} s"

    exact = ops.rank_within(work.queries, table, work.targets, options.tau, threads=options.threads)
    passing = exact <= options.tau
    case = f"{float(passing.float().mean()):.0%} of rows pass"
    cost = {
        "threads": options.threads,
        "rounds": options.rounds,
        "cpu_time": options.cpu_time,
        "peak": lambda: _core.measure_fma(table.instruction_set, options.threads, 0.02),
    }

    def scan(tau: int | None) -> Tensor:
        return ops.rank_within(work.queries, table, work.targets, tau, threads=options.threads)

    def prove(verify: str, audit: float = 0.02) -> object:
        return rank_within_proved(
            work.queries, index, work.targets, options.tau, verify=verify, audit=audit, threads=options.threads
        )

    baseline = [Contender("exact scan, early exit", lambda: scan(options.tau))]
    report.figures += compare(case, [*baseline, Contender("exact scan, full count", lambda: scan(None))], **cost)
    # What no proof of rejections can beat: the scan of the rows that pass.
    accepted = passing.nonzero()[:, 0]
    some = select(work.targets, accepted)
    floor = Contender(
        "scan of the passing rows alone",
        lambda: ops.rank_within(work.queries[accepted], table, some, options.tau, threads=options.threads),
    )
    report.figures += compare(case, [*baseline, floor], **cost)[1:]
    for probes in options.probes:
        index.probes = probes
        ranks, stats = prove("exact")
        if not torch.equal(ranks, exact):
            raise SystemExit(f"{probes} probes: the proved verdicts differ from the exact scan's")
        _, trusted = prove("trust", 1.0)
        proved = stats.rejected / max(1, int((~passing).sum()))
        name = f"{case}, {probes} probes"
        contenders = [
            Contender("FAISS proofs, exact verdicts", lambda: prove("exact")),
            Contender("FAISS proofs, the rest trusted", lambda: prove("trust")),
            Contender("FAISS search alone", lambda: index.search(work.queries, options.tau, threads=options.threads)),
        ]
        figures = compare(name, [*baseline, *contenders], **cost)[1:]
        report.figures += figures
        report.notes.append(
            f"- {probes} probes: {proved:.1%} of the failing rows proved; {1 / figures[0].times_slower:.2f}x the speed "
            f"of the early-exit scan with exact verdicts, {1 / figures[1].times_slower:.2f}x with trust, which lets "
            f"{trusted.leaked} of {trusted.rows} rows through that the scan rejects "
            f"({trusted.leak:.1%} of the trusted ones)."
        )
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


def clustered_workload(rows: int, num_items: int, dim: int, spread: float) -> Workload:
    """Items around the square root of N centres of uneven popularity and with log-normal norms; a query is the mean of
    three items with noise, its best target the item of a rank drawn log-uniformly, four more targets are anything."""
    random = np.random.default_rng(0)
    clusters = max(8, int(num_items**0.5))
    centres = random.standard_normal((clusters, dim), np.float32)
    weight = np.arange(1, clusters + 1) ** -0.5
    items = centres[random.choice(clusters, num_items + 1, p=weight / weight.sum())]
    items += np.float32(spread) * random.standard_normal((num_items + 1, dim), np.float32)
    items *= np.exp(0.2 * random.standard_normal((num_items + 1, 1), np.float32))
    history = random.integers(1, num_items + 1, (rows, 3))
    queries = items[history].mean(1) + np.float32(0.3 * spread) * random.standard_normal((rows, dim), np.float32)
    targets = random.integers(1, num_items + 1, (rows, 5))
    ranks = np.exp(random.random(rows) * np.log(num_items)).astype(np.int64)
    for row, rank in enumerate(ranks):
        logits = items[1:] @ queries[row]
        targets[row, 0] = 1 + np.argpartition(logits, num_items - rank)[num_items - rank]
    offsets = torch.arange(rows + 1) * 5
    nothing = Ragged(torch.zeros(0, dtype=torch.int64), torch.zeros(rows + 1, dtype=torch.int64))
    return Workload(
        torch.from_numpy(queries),
        torch.from_numpy(items),
        Ragged(torch.from_numpy(targets.reshape(-1)), offsets),
        nothing,
    )

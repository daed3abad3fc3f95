"""Seconds an epoch, and to the same quality: rsir against the SASRec of RecTools and of RecBole.

Amazon Toys, leave-one-out; d 64, two layers, two heads, histories of 50, Adam at 1e-3. Each library runs in a process
of its own, with the Python of the environment that ``--setup DIR`` makes once (RecTools and RecBole want versions of
numpy that rsir does not). After every epoch validation NDCG@20 is computed by the same code for all three, over the
whole catalogue. Time to quality is the time until NDCG@20 is within 1% of the best that rsir reaches. It counts rsir's
own validations, and only the training of the others; where they do not get there in the epochs they are given, the
figure is a lower bound. The last columns go by what they did reach: the time until their own best, and rsir's until it
was as good.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsir.data import leave_one_out
from rsir.data.splits import Split

from . import toys
from .harness import describe_machine

WORKERS = Path(__file__).parent / "peer_workers"
PACKAGES = {
    "rectools": ["torch==2.13.0", "rectools[torch]==0.19.0"],
    # RecBole 1.2.1 uses what numpy 2, scipy 1.12 and pandas 2.2 took away.
    "recbole": ["torch==2.13.0", "recbole==1.2.1", "numpy<2", "scipy<1.12", "pandas<2.2"],
}
WITHIN = 0.99


@dataclass(frozen=True)
class Contestant:
    """A library with settings; what differs from rsir's is said in `differs`."""

    name: str
    library: str
    settings: dict[str, Any]
    differs: str


CONTESTANTS = [
    Contestant("rsir", "rsir", {}, "post-norm, GELU, feed-forward 128, 1,024 negatives shared by a batch of 256 users"),
    Contestant(
        "RecTools, full softmax",
        "rectools",
        {"loss": "softmax", "negatives": 1},
        "its default loss; pre-norm, ReLU, feed-forward 64; rows padded to 50; batch of 256 users",
    ),
    Contestant(
        "RecTools, 256 negatives",
        "rectools",
        {"loss": "sampled_softmax", "negatives": 256},
        "as above, with 256 negatives of its own for each position",
    ),
    Contestant(
        "RecBole, full softmax",
        "recbole",
        {"loss": "CE", "batch": 2048},
        "its default loss and batch: 2,048 prefixes, each padded to 50, with a loss at the last item alone",
    ),
]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("--setup", type=Path, metavar="DIR", help="make the environments of the peers in DIR and end")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where --setup made them; without it rsir runs alone")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each peer")
    parser.add_argument("--our-epochs", type=int, default=60, help="most epochs of rsir; it stops by itself, too")
    parser.add_argument("--only", help="run only contestants whose name holds this, beside rsir")
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a machine that others use, too")
    parser.add_argument("--quick", action="store_true", help="400 simulated users, two epochs")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.setup:
        return setup(options.setup)
    if options.quick:
        options.epochs = options.our_epochs = 2

    machine = describe_machine()
    data, described = toys.load(options.quick)
    wanted = [one for one in CONTESTANTS if one.library == "rsir" or options.only is None or options.only in one.name]
    pythons = [(contestant, python) for contestant in wanted if (python := _python(options.peers, contestant.library))]
    results: list[tuple[Contestant, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "data.npz"
        hand_over(leave_one_out(data), arrays)
        for contestant, python in pythons:
            print(contestant.name, file=sys.stderr)
            results.append((contestant, _run(contestant, python, arrays, Path(folder) / "out.json", options)))
    lines = [f"## Training to the same quality, {options.threads} threads", ""]
    lines += [f"- {key}: {value}" for key, value in {**machine, "data": described}.items()]
    print("\n".join([*lines, "", *table(results, options)]))
    if options.peers is None:
        print("\nrsir ran alone: `python -m benchmarks peers --setup DIR`, then `--peers DIR`.")
    if options.json:
        figures = {contestant.name: result for contestant, result in results}
        options.json.write_text(json.dumps({"machine": machine, "data": described, "figures": figures}, indent=2))
    return 0


def setup(folder: Path) -> int:
    """Make an environment for each peer."""
    for name, packages in PACKAGES.items():
        print(f"{folder / name}: {' '.join(packages)}", flush=True)
        venv.create(folder / name, with_pip=True, clear=True)
        subprocess.run([str(folder / name / "bin" / "python"), "-m", "pip", "install", "-q", *packages], check=True)
    return 0


def hand_over(parts: Split, path: Path) -> None:
    """Training sequences and validation tasks as plain arrays."""
    tasks = parts.validation
    np.savez(
        path,
        num_items=parts.train.num_items,
        train_items=parts.train.items,
        train_offsets=parts.train.offsets,
        validation_rows=tasks.rows,
        validation_items=tasks.histories.values,
        validation_offsets=tasks.histories.offsets,
        validation_targets=tasks.targets,
    )


def table(results: list[tuple[Contestant, dict[str, Any]]], options: argparse.Namespace) -> list[str]:
    """Markdown; the first contestant is the one that the others are measured by."""
    clock = "cpu_seconds" if options.cpu_time else "seconds"
    share = options.threads if options.cpu_time else 1
    unit = "s" if not options.cpu_time else "cpu-s" if share == 1 else f"cpu-s / {share}"
    ours = results[0][1]["epochs"]
    best = max(epoch["ndcg"] for epoch in ours)
    lines = [
        f"| contestant | epochs | {unit} an epoch | x rsir | peak MiB | {unit} to {WITHIN * best:.4f} | x rsir | "
        f"best NDCG@20 | {unit} to it | x rsir |",
        "|" + "---|" * 10,
    ]
    first: tuple[float, float] | None = None
    for contestant, result in results:
        epochs = result["epochs"]
        per_epoch = epochs[-1][clock] / len(epochs) / share
        reached = _until(epochs, WITHIN * best, clock, share)
        spent = epochs[-1][clock] / share
        first = first or (per_epoch, reached or spent)
        sign, until = ("", reached) if reached is not None else ("> ", spent)
        at_best = max(epochs, key=lambda epoch: epoch["ndcg"])
        to_it, ours_to_it = at_best[clock] / share, _until(ours, at_best["ndcg"], clock, share)
        beside = "" if ours_to_it is None else f"{to_it / ours_to_it:.1f}"
        lines.append(
            f"| {contestant.name} | {len(epochs)} | {per_epoch:.2f} | {per_epoch / first[0]:.1f} | "
            f"{result['peak_mib']:,.0f} | {sign}{until:.1f} | {sign}{until / first[1]:.1f} | "
            f"{at_best['ndcg']:.4f} | {to_it:.1f} | {beside} |"
        )
    lines += ["", *(f"- {contestant.name}: {contestant.differs}." for contestant, _ in results)]
    for contestant, result in results:
        course = ", ".join(f"{epoch['ndcg']:.4f}" for epoch in result["epochs"][:10])
        lines.append(f"- {contestant.name}, NDCG@20 by epoch: {course}{', ...' if len(result['epochs']) > 10 else ''}")
    return lines


def _until(epochs: list[dict[str, Any]], ndcg: float, clock: str, share: int) -> float | None:
    """Time until NDCG@20 is as high as this; None if it never is."""
    return next((epoch[clock] / share for epoch in epochs if epoch["ndcg"] >= ndcg), None)


def _python(peers: Path | None, library: str) -> Path | None:
    """The Python that runs a library; None where it was not asked for."""
    if library == "rsir":
        return Path(sys.executable)
    if peers is None:
        return None
    python = peers / library / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{python}: no such file; make it by `python -m benchmarks peers --setup {peers}`")
    return python


def _run(contestant: Contestant, python: Path, arrays: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    ours = contestant.library == "rsir"
    settings = {
        "threads": options.threads,
        "seed": toys.SEED,
        "dropout": options.dropout,
        "epochs": options.our_epochs if ours else options.epochs,
        **contestant.settings,
    }
    if ours:
        settings["patience"] = 20
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    script = WORKERS / f"run_{contestant.library}.py"
    command = [str(python), str(script), str(arrays), str(out), json.dumps(settings)]
    subprocess.run(command, check=True, env=environment, cwd=out.parent, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads(out.read_text())
    return result

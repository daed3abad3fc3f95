"""Trajectories a second: rsir.generation, plain torch with rows side by side, and the per-row loop of the authors.

The default settings, tau that of the first round, on Amazon Toys with the default backbone trained for some epochs.
Plain torch encodes every prefix anew, scores the catalogue by torch.mm, counts ranks and takes masked maxima; rows that
end make room, but none takes their place. It and the per-row loop, :mod:`benchmarks.oracle`, run on samples of the
sources and are compared by time a trajectory. All three must give the same trajectories on the smaller sample, up to
rounding at near ties, or there is no figure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsir.config import FidelityConfig, GenerationConfig, RecursionConfig
from rsir.data.sequences import Sequences
from rsir.generation.fidelity import build
from rsir.generation.generate import generate
from rsir.runtime.philox import Stream, counters, gumbel, uniform
from rsir.runtime.runtime import Runtime

from . import toys
from .harness import Contender, Report, compare, describe_machine, extra_memory
from .oracle import all_trajectories, kept

ROUND = 1
CHUNKS = (64, 256, 1024)
ROUNDING = 0.005
"""Share of the sample's trajectories that may differ: float32 logits of two ways to encode differ in the last bits."""

Trajectories = list[tuple[int, list[int]]]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks generation", description=__doc__)
    standard = RecursionConfig()
    parser.add_argument("--model", choices=("bsarec", "sasrec"), default=standard.model.name)
    parser.add_argument("--tau", type=int, help="default: the first round's")
    parser.add_argument("--m", type=int, default=standard.generation.m, help="trajectories a source")
    parser.add_argument("--p", type=float, default=standard.generation.p, help="probability of the source's own items")
    parser.add_argument(
        "--k", type=int, default=standard.generation.k, help="a step draws from the k best; 1 is greedy"
    )
    parser.add_argument("--epochs", type=int, default=20, help="the model is trained for")
    parser.add_argument("--sample", type=int, default=200, help="sources of the check and of the per-row loop")
    parser.add_argument("--plain-sample", type=int, default=2000, help="sources of plain torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns that are timed")
    parser.add_argument("--quick", action="store_true", help="400 simulated users, one epoch, one turn")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds, for a machine that others use, too")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs, options.rounds, options.sample, options.plain_sample = 1, 1, 20, 100

    torch.set_num_threads(options.threads)
    machine = describe_machine()
    data, described = toys.load(options.quick)
    model, parts, of_model = toys.trained(data, options.epochs, options.model)
    config = GenerationConfig(p=options.p, m=options.m, k=options.k)
    policy = build(FidelityConfig(tau=options.tau), model.item_embeddings().detach(), ROUND)
    title = f"Generation at p {options.p}, tau {policy.tau}, m {options.m}, k {options.k}"
    report = Report(title, {**machine, "data": described, "model": of_model})
    settings: dict[str, Any] = {"seed": toys.SEED, "round_": ROUND, "tau": policy.tau}

    def rsir(sources: Sequences) -> Any:
        runtime = Runtime(threads=options.threads)
        return generate(model, sources, config, policy, seed=toys.SEED, round_=ROUND, runtime=runtime)

    shuffled = np.random.default_rng(0).permutation(len(parts.train))
    sample, larger = (parts.train.select(np.sort(shuffled[:n])) for n in (options.sample, options.plain_sample))
    expected = all_trajectories(model, sample, config, **settings, on_fail="drop")
    trials = {
        chunk: _seconds(lambda chunk=chunk: plain_torch(model, sample, config, chunk, **settings)) for chunk in CHUNKS
    }
    chunk = min(trials, key=lambda size: trials[size])
    found = rsir(sample).trajectories
    answers = {
        "rsir": [(int(source), found[row].tolist()) for row, source in enumerate(found.source)],
        "plain torch": plain_torch(model, sample, config, chunk, **settings),
    }
    for name, answer in answers.items():
        different = len(_as_set(answer) ^ _as_set(expected))
        if different > ROUNDING * 2 * max(len(expected), 1):
            raise SystemExit(
                f"{name}: {different} of {len(expected)} trajectories of the sample differ from the loop's"
            )
        report.notes.append(f"- {name}: {different} of the sample's {len(expected)} kept trajectories differ.")

    full, of_sample, of_larger = (rsir(sources) for sources in (parts.train, sample, larger))
    contenders = [
        Contender("rsir", lambda: rsir(parts.train), full.stats.decoded),
        Contender(
            f"plain torch, {chunk} rows side by side, {len(larger):,} sources",
            lambda: plain_torch(model, larger, config, chunk, **settings),
            of_larger.stats.decoded,
        ),
        Contender(
            f"per-row loop, {len(sample):,} sources, one thread",
            lambda: on_one_thread(lambda: all_trajectories(model, sample, config, **settings, on_fail="drop")),
            of_sample.stats.decoded,
        ),
    ]
    report.figures = compare(
        f"{full.stats.decoded:,} trajectories, {len(full.trajectories):,} kept",
        contenders,
        threads=options.threads,
        rounds=options.rounds,
        cpu_time=options.cpu_time,
        unit="trajectories/s",
    )
    for contender, figure in zip(contenders, report.figures, strict=True):
        figure.extra_mib = extra_memory(contender.run)
    report.notes.append("- Milliseconds are those of the sources named; ratios and rates are by trajectory.")
    print(report.markdown())
    if options.json:
        report.save(options.json)
    return 0


@torch.no_grad()
def plain_torch(
    model: Any, sources: Sequences, config: GenerationConfig, chunk: int, *, seed: int, round_: int, tau: int
) -> Trajectories:
    """What :mod:`rsir.generation.generate` gives from the first item, ``chunk`` trajectories at a time."""
    rows = [row for row in np.argsort(sources.lengths, kind="stable") if len(set(sources[row].tolist())) > 1]
    jobs = np.stack([np.repeat(rows, config.m), np.tile(np.arange(config.m), len(rows))], 1)
    table = model.item_embeddings()[1:].T
    decoded: list[tuple[int, int, list[int]]] = []
    for first in range(0, len(jobs), chunk):
        row, number = jobs[first : first + chunk].T
        own = torch.nn.utils.rnn.pad_sequence([torch.tensor(sources[r], dtype=torch.int64) for r in row], True)
        items = torch.zeros(len(row), model.max_len, dtype=torch.int64)
        items[:, 0] = own[:, 0]
        lengths = torch.full((len(row),), model.max_len)
        active = torch.arange(len(row))
        for length in range(1, model.max_len):
            prefix = items[active, :length]
            open_ = (own[active] > 0) & ~(own[active, :, None] == prefix[:, None]).any(2)
            queries = model.encode(prefix, torch.full((len(active),), length))
            logits = queries @ table
            targets = logits.gather(1, (own[active] - 1).clamp(min=0)).masked_fill_(~open_, -torch.inf)
            rank = 1 + (logits > targets.amax(1, keepdim=True)).sum(1)
            has_target = open_.any(1)
            passed = has_target & (rank <= tau)
            lengths[active[~passed]] = length
            if length > 1:  # the item that broke fidelity is dropped
                lengths[active[has_target & ~passed]] = length - 1
            logits.scatter_(1, prefix - 1, -torch.inf)
            key = round_, row[active.numpy()], number[active.numpy()], np.full(len(active), length)
            from_own = torch.from_numpy(uniform(seed, counters(Stream.POOL, *key)) < config.p)
            values, ids = logits.topk(config.k, 1)
            ids += 1
            own_values, places = targets.topk(min(config.k, targets.shape[1]), 1)
            own_width = own_values.shape[1]
            values[from_own], ids[from_own] = -torch.inf, 1
            values[from_own, :own_width] = own_values[from_own]
            ids[from_own, :own_width] = own[active].gather(1, places)[from_own].clamp(min=1)
            if config.k > 1:
                noise = torch.from_numpy(gumbel(seed, counters(Stream.ITEM, *key), ids.numpy()))
                values = values.double() / config.temperature + noise
            chosen = ids.gather(1, values.argmax(1, keepdim=True))[:, 0]
            active = active[passed]
            if not len(active):
                break
            items[active, length] = chosen[passed]
        for r, n, trajectory, length in zip(row, number, items.tolist(), lengths.tolist(), strict=True):
            decoded.append((int(r), int(n), trajectory[:length]))
    decoded.sort(key=lambda entry: entry[:2])
    return kept([(r, trajectory) for r, _, trajectory in decoded], sources, config)


def on_one_thread(run: Callable[[], object]) -> None:
    """With two, the loop's many small products are no faster on a quiet machine and many times slower on a busy one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run()
    torch.set_num_threads(threads)


def _as_set(trajectories: Trajectories) -> set[tuple[int, tuple[int, ...]]]:
    return {(row, tuple(items)) for row, items in trajectories}


def _seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start

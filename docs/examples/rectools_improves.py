"""A SASRec of RecTools trained on real sequences, and one on what rsir generated from it as well.

For each seed: train on the training part, keep the weights best on validation; let rsir generate, verify and acquire
with that model; train another on real and generated sequences, with as many steps, weights again chosen by validation;
rank the whole catalogue for the held-out test items with both. Needs rsir and RecTools in one environment
(docs/models.md); some minutes a seed on simulated users and one core.
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import warnings
from typing import Any

import pandas as pd
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

import rsir
from rsir.adapters import Adapter, from_rectools
from rsir.config import FidelityConfig, GenerationConfig, SimulationConfig
from rsir.data import Sequences, Split, leave_one_out, read, simulate, to_table
from rsir.evaluation import evaluate, paired_test

METRICS = ("recall@10", "ndcg@10")


def dataset(sequences: Sequences) -> Dataset:
    """Events as RecTools wants them; a generated sequence is a user of its own, in order of its positions."""
    frame = to_table(sequences).to_pandas().rename(columns={"user_id": Columns.User, "item_id": Columns.Item})
    frame = frame[[Columns.User, Columns.Item]]
    frame[Columns.Weight] = 1.0
    frame[Columns.Datetime] = pd.Timestamp("2020-01-01") + pd.to_timedelta(range(len(frame)), unit="s")
    return Dataset.construct(frame)


def train(sequences: Sequences, parts: Split, steps: int, options: argparse.Namespace, seed: int) -> Adapter:
    """The weights of a training that are best on validation."""
    seed_everything(seed)
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=20,
        dropout_rate=0.3,
        batch_size=128,
        get_trainer_func=lambda: Trainer(accelerator="cpu", devices=1, limit_train_batches=steps, **quiet),
    )
    data, best, chosen, when = dataset(sequences), -1.0, None, 0
    for number in range(1, options.evaluations + 1):
        model.fit_partial(data, min_epochs=1, max_epochs=1)
        adapter = from_rectools(model)
        found = evaluate(adapter, adapter.align_tasks(parts.validation, parts.train)).metrics["ndcg@20"]
        if found > best:
            best, chosen, when = found, copy.deepcopy(adapter), number
    assert chosen is not None
    print(f"  {len(sequences):,} sequences: best validation ndcg@20 {best:.4f}, at {when} of {options.evaluations}")
    return chosen


def compare(data: Sequences, options: argparse.Namespace, seed: int) -> dict[str, tuple[float, float, float]]:
    """Test metrics before and after, with the p-value of their paired difference."""
    parts = leave_one_out(data)
    steps = options.epochs * -(-int((parts.train.lengths > 1).sum()) // 128)
    base = train(parts.train, parts, steps, options, seed)
    aligned = base.align(parts.train)
    enriched = rsir.enrich(
        aligned,
        base,
        generation=GenerationConfig(m=options.m),
        fidelity=FidelityConfig(tau=options.tau),
        seed=seed,
    )
    after = train(enriched, parts, steps, options, seed)
    before_, after_ = (evaluate(model, model.align_tasks(parts.test, data)) for model in (base, after))
    print(f"seed {seed}: {len(enriched) - len(aligned):,} generated sequences beside {len(aligned):,} real ones")
    result = {}
    for metric in METRICS:
        test = paired_test(before_.gains(metric), after_.gains(metric))
        result[metric] = (before_.metrics[metric], after_.metrics[metric], test.p_value)
        print(f"  {metric}: {result[metric][0]:.4f} -> {result[metric][1]:.4f}, p = {test.p_value:.4f}")
    return result


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="interactions [4,000 simulated users]")
    parser.add_argument("--users", type=int, default=4000, help="simulated users [4000]")
    parser.add_argument("--items", type=int, default=2400, help="simulated items [2400]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--evaluations", type=int, default=12, help="validations of a training [12]")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the real sequences between them [5]")
    parser.add_argument("--m", type=int, default=10, help="trajectories a user [10]")
    parser.add_argument("--tau", type=int, default=50, help="rank threshold of fidelity [50]")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    data = read(options.data) if options.data else simulate(SimulationConfig(options.users, options.items)).sequences
    results = [compare(data, options, seed) for seed in range(options.seeds)]
    for metric in METRICS:
        before, after = ([result[metric][i] for result in results] for i in (0, 1))
        gains = [100 * (b / a - 1) for a, b in zip(before, after, strict=True)]
        spread = f" (standard deviation {statistics.stdev(gains):.1f})" if len(gains) > 1 else ""
        print(
            f"{metric}: {statistics.mean(before):.4f} -> {statistics.mean(after):.4f}, "
            f"{statistics.mean(gains):+.1f}%{spread} over {len(gains)} seeds"
        )
    return {"results": results}


if __name__ == "__main__":
    main()

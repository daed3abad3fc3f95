"""What the end-to-end benchmarks run on: Amazon Toys, split leave-one-out, and a SASRec trained on it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rsir.config import ModelConfig, RecursionConfig, SimulationConfig, TrainingConfig, to_dict
from rsir.data import leave_one_out, read, simulate
from rsir.data.sequences import Sequences
from rsir.data.splits import Split
from rsir.models import checkpoint
from rsir.training.fit import fit

FILE = "amazon-toys.txt"
FOLDER = Path(os.environ.get("RSIR_DATA", Path(__file__).parents[2] / "shared" / "data"))
USERS, ITEMS, MEAN_LENGTH = 19_412, 11_924, 8.63
SEED = 0


def load(quick: bool = False) -> tuple[Sequences, str]:
    """The data, and what to say of them: the public file, or simulated users where there is none."""
    if quick:
        return simulate(SimulationConfig(num_users=400, num_items=200)).sequences, "400 SIMULATED users, 200 items"
    if (FOLDER / FILE).exists():
        return read(FOLDER / FILE), f"Amazon Toys: {USERS:,} users, {ITEMS:,} items"
    data = simulate(SimulationConfig(num_users=USERS, num_items=ITEMS, mean_length=MEAN_LENGTH)).sequences
    missing = f"{FILE} was not found; RSIR_DATA names the folder that has it"
    return data, f"SIMULATED users in the number of Amazon Toys, {USERS:,} users, {ITEMS:,} items ({missing})"


def backbone(name: str, **training: Any) -> tuple[ModelConfig, TrainingConfig]:
    """A backbone and its own training, with changes of the training."""
    whole = RecursionConfig().for_backbone(name)
    return whole.model, dataclasses.replace(whole.training, **training)


def sasrec(**training: Any) -> tuple[ModelConfig, TrainingConfig]:
    """SASRec and its own training, which most benchmarks and their baselines are of, with changes of the training."""
    return backbone("sasrec", **training)


def trained(data: Sequences, evaluations: int, name: str = "sasrec") -> tuple[Any, Split, str]:
    """A backbone of default size after this many epochs, the split it was trained on, and what to say of it.

    Kept in the system's folder for temporary files, as the same model serves every benchmark.
    """
    parts = leave_one_out(data)
    model_config, config = backbone(name, max_evaluations=evaluations, patience=evaluations)
    settings = json.dumps([to_dict(model_config), to_dict(config), SEED, data.fingerprint()])
    place = f"rsir-benchmarks-{os.getuid()}/{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / place
    if not (folder / checkpoint.CARD).exists():
        fitted = fit(model_config, config, parts.train, parts.validation, seed=SEED)
        checkpoint.save(fitted.model, model_config, folder, metrics=fitted.best.metrics)
    quality = checkpoint.read_card(folder)["metrics"]["ndcg@20"]
    title = {"sasrec": "SASRec", "bsarec": "BSARec"}.get(name, name)
    described = f"{title}, d {model_config.dim}, {model_config.layers} layers, {evaluations} epochs, "
    return checkpoint.load(folder), parts, described + f"validation NDCG@20 {quality:.4f}"

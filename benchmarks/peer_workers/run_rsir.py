"""rsir.training.fit, as :mod:`benchmarks.peers` times it."""

from __future__ import annotations

import numpy as np
from ranking import Task, validation_ndcg
from torch import Tensor

from rsir.config import ModelConfig, TrainingConfig
from rsir.data.ragged import Ragged
from rsir.data.sequences import Sequences
from rsir.data.splits import EvaluationSet
from rsir.models.encoding import encode_sequences
from rsir.runtime.runtime import Runtime
from rsir.training.fit import fit

task = Task()
arrays, settings = task.arrays, task.settings
train = Sequences(items=arrays["train_items"], offsets=arrays["train_offsets"], num_items=task.num_items)
targets = arrays["validation_targets"]
histories = Ragged(arrays["validation_items"], arrays["validation_offsets"])
tasks = EvaluationSet(np.arange(len(targets)), histories, targets)
config = TrainingConfig(max_evaluations=settings["epochs"], patience=settings.get("patience", settings["epochs"]))
last_step = -1


def after_each(phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
    """Called once more after a validation, with what it found: that ends an epoch."""
    global last_step
    if done == last_step:
        task.stop()
        task.report(float(note.split()[2].rstrip(",")))
        task.start()
    last_step = done


task.start()
trained = fit(
    ModelConfig("sasrec", dropout=settings["dropout"]),
    config,
    train,
    tasks,
    seed=settings["seed"],
    runtime=Runtime(progress=after_each),
)
table = trained.model.item_embeddings().detach()  # type: ignore[operator]


def score(histories: list[np.ndarray]) -> Tensor:
    return encode_sequences(trained.model, Ragged.from_lists(histories)) @ table.T  # type: ignore[arg-type]


# Rounded in the note, exact here.
for epoch, checkpoint in zip(task.figures["epochs"], trained.history, strict=True):
    epoch["ndcg"] = checkpoint.metrics["ndcg@20"]
best = max(checkpoint.metrics["ndcg@20"] for checkpoint in trained.history)
again = validation_ndcg(score, arrays)
if abs(again - best) > 1e-4:
    raise SystemExit(f"rsir's own validation gives NDCG@20 {best:.6f}, the common measure {again:.6f}")
task.write()

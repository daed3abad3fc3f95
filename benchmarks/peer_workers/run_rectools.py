"""RecTools' SASRec, as :mod:`benchmarks.peers` times it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
import rectools
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from ranking import Task, validation_ndcg
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
task = Task()
settings, length = task.settings, 50
task.figures["version"] = rectools.__version__ if hasattr(rectools, "__version__") else ""
seed_everything(settings["seed"])
rows = np.repeat(np.arange(len(task.histories)), np.diff(task.arrays["train_offsets"]))
frame = pd.DataFrame(
    {
        Columns.User: rows,
        Columns.Item: task.arrays["train_items"],
        Columns.Weight: 1.0,
        Columns.Datetime: pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(rows)), unit="s"),
    }
)


class AfterEach(Callback):
    """Validates when an epoch has ended, off the clock."""

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        task.start()

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        task.stop()
        network = module.torch_model.eval()
        known = np.asarray(model.data_preparator.get_known_item_ids(), np.int64)
        inside = np.zeros(task.num_items + 1, np.int64)
        inside[known] = model.data_preparator.get_known_items_sorted_internal_ids()
        with torch.no_grad():
            table = network.item_model.get_all_embeddings()

        def score(histories: list[np.ndarray]) -> torch.Tensor:
            batch = torch.zeros(len(histories), length, dtype=torch.int64)
            for number, history in enumerate(histories):
                own = inside[history[-length:]]
                own = own[own > 0]
                batch[number, length - len(own) :] = torch.from_numpy(own)
            scores = network.encode_sessions({"x": batch}, table)[:, -1] @ table.T
            scores = scores[:, torch.from_numpy(inside)]
            return scores.masked_fill(torch.from_numpy(inside == 0), -torch.inf)

        task.report(validation_ndcg(score, task.arrays))
        module.torch_model.train()
        task.start()


def trainer() -> Trainer:
    return Trainer(
        max_epochs=settings["epochs"],
        min_epochs=settings["epochs"],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        accelerator="cpu",
        devices=1,
        callbacks=[AfterEach()],
    )


model = SASRecModel(
    n_blocks=2,
    n_heads=2,
    n_factors=64,
    dropout_rate=settings["dropout"],
    session_max_len=length,
    batch_size=256,
    lr=1e-3,
    loss=settings["loss"],
    n_negatives=settings["negatives"],
    get_trainer_func=trainer,
)
model.fit(Dataset.construct(frame))

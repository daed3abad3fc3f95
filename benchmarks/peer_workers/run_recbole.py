"""RecBole's SASRec, as :mod:`benchmarks.peers` times it."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import torch
from ranking import Task, validation_ndcg

warnings.filterwarnings("ignore")
task = Task()
settings, length = task.settings, 50
task.figures["version"] = recbole.__version__

from recbole.config import Config  # noqa: E402  (it reads sys.argv)
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import get_model, init_seed  # noqa: E402

folder = Path(tempfile.mkdtemp())
(folder / "log").mkdir()
lines = ["user_id:token\titem_id:token\ttimestamp:float"]
# Validation items go in as each user's last ones, which RecBole splits off again.
targets = dict(zip(task.arrays["validation_rows"].tolist(), task.arrays["validation_targets"].tolist(), strict=True))
for row, history in enumerate(task.histories):
    events = [*history.tolist(), targets[row]] if row in targets else []
    lines += [f"{row + 1}\t{item}\t{place}" for place, item in enumerate(events)]
(folder / "log" / "log.inter").write_text("\n".join(lines) + "\n")
config = Config(
    model="SASRec",
    dataset="log",
    config_dict={
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "MAX_ITEM_LIST_LENGTH": length,
        "eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "mode": "full", "group_by": "user"},
        "hidden_size": 64,
        "inner_size": 128,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dropout_prob": settings["dropout"],
        "attn_dropout_prob": settings["dropout"],
        "loss_type": settings["loss"],
        "train_neg_sample_args": None,
        "train_batch_size": settings["batch"],
        "learning_rate": 1e-3,
        "epochs": settings["epochs"],
        "eval_step": 0,
        "seed": settings["seed"],
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(folder / "saved"),
        "state": "ERROR",
    },
)
logging.disable(logging.WARNING)
torch.set_num_threads(settings["threads"])
init_seed(config["seed"], config["reproducibility"])
dataset = create_dataset(config)
train, *_ = data_preparation(config, dataset)
model = get_model("SASRec")(config, train.dataset)
inside = np.zeros(task.num_items + 1, np.int64)
for token, number in dataset.field2token_id["item_id"].items():
    if token != "[PAD]":
        inside[int(token)] = number


def score(histories: list[np.ndarray]) -> torch.Tensor:
    batch = torch.zeros(len(histories), length, dtype=torch.int64)
    lengths = torch.tensor([min(len(history), length) for history in histories])
    for number, history in enumerate(histories):
        batch[number, : lengths[number]] = torch.from_numpy(inside[history[-length:]])
    scores = (model.forward(batch, lengths) @ model.item_embedding.weight.T)[:, torch.from_numpy(inside)]
    return scores.masked_fill(torch.from_numpy(inside == 0), -torch.inf)


class Timed(Trainer):
    """Validates when an epoch has ended, off the clock."""

    def _train_epoch(self, *arguments: Any, **options: Any) -> Any:
        task.start()
        loss = super()._train_epoch(*arguments, **options)
        task.stop()
        model.eval()
        task.report(validation_ndcg(score, task.arrays))
        model.train()
        return loss


Timed(config, model).fit(train, saved=False, verbose=False)

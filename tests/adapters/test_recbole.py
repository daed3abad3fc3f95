"""The adapter against RecBole itself, where it is installed: each of the models that its documentation names."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from rsir.adapters import from_recbole
from rsir.data import write
from rsir.errors import BackboneError
from tests.adapters.contract import check, log

pytest.importorskip("recbole")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.peers]


MODELS = {  # settings of each beside the common ones
    "SASRec": {"n_layers": 1, "n_heads": 2, "inner_size": 16},
    "LightSANs": {"n_layers": 1, "n_heads": 2, "inner_size": 16, "k_interests": 3},
    "GRU4Rec": {"num_layers": 1, "embedding_size": 16},
    "NARM": {"n_layers": 1, "embedding_size": 16},
    "STAMP": {"embedding_size": 16},
}


def trained(name, tmp_path, monkeypatch):
    """A model of RecBole, one epoch on a file that rsir wrote."""
    monkeypatch.setattr(sys, "argv", ["pytest"])
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import get_model

    data = log()
    (tmp_path / "log").mkdir()
    write(data, tmp_path / "log" / "log.inter")
    settings = {
        "data_path": str(tmp_path),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": 8,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "hidden_size": 16,
        **MODELS[name],
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "epochs": 1,
        "eval_step": 0,
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(tmp_path / "saved"),
        "state": "ERROR",
    }
    config = Config(model=name, dataset="log", config_dict=settings)
    logging.disable(logging.WARNING)
    try:
        dataset = create_dataset(config)
        train, *_ = data_preparation(config, dataset)
        model = get_model(name)(config, train.dataset)
        Trainer(config, model).fit(train, saved=False, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    return data, model.eval(), dataset


@pytest.mark.parametrize("name", list(MODELS))
def test_adapter(name, tmp_path, monkeypatch):
    data, model, dataset = trained(name, tmp_path, monkeypatch)
    assert type(model).__name__ == name
    ids = dataset.field2token_id["item_id"]

    def own_scores(history):
        row = torch.zeros(1, 8, dtype=torch.int64)
        row[0, : len(history)] = torch.tensor([ids[label] for label in history])
        scores = model.full_sort_predict({model.ITEM_SEQ: row, model.ITEM_SEQ_LEN: torch.tensor([len(history)])})
        return {label: float(scores.view(-1)[number]) for label, number in ids.items() if number}

    check(from_recbole(model, dataset), data, own_scores)


def test_what_does_not_fit(tmp_path, monkeypatch):
    _, model, dataset = trained("SASRec", tmp_path, monkeypatch)
    with pytest.raises(BackboneError, match="lacks item_embedding, max_seq_length, ITEM_SEQ"):
        from_recbole(torch.nn.Linear(2, 2), dataset)
    model.n_items += 1
    with pytest.raises(BackboneError, match="give the dataset that the model was built for"):
        from_recbole(model, dataset)

"""A backbone that uses times, and sequences to try it on."""

from __future__ import annotations

import numpy as np
import torch

from rsir.config import ModelConfig
from rsir.data import Sequences
from rsir.models import build

ITEMS, MAX_LEN = 30, 7
HSTU = ModelConfig(name="hstu", dim=8, heads=2, max_len=MAX_LEN, dropout=0.0, times="on")
DAY = 86_400


def timed_model(seed=1):
    model = build(HSTU, ITEMS, seed=seed).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(number + seed))
        model.gap.fill_(3600)
    return model


def sequences(count=25, seed=3, timed=True):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, count)
    lists = [rng.integers(1, ITEMS + 1, length).tolist() for length in lengths]
    times = np.concatenate([np.sort(rng.integers(0, 400 * DAY, length)) for length in lengths])
    return Sequences.from_lists(lists, ITEMS, times=times if timed else None)

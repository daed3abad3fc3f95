"""What backbones compute, spelt out."""

from __future__ import annotations

import torch


def silu(x):
    return x / (1 + torch.exp(-x))


def norm(x):
    return (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-6)

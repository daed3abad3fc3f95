"""Backbones by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from rsir.config import ModelConfig
from rsir.config.registry import Registry
from rsir.errors import BackboneError

__all__ = ["BACKBONES", "build", "maker_of", "names", "register"]

Maker = Callable[[ModelConfig, int, torch.Generator], nn.Module]
AnyMaker = TypeVar("AnyMaker", bound=Maker)

BACKBONES: Registry[Maker] = Registry("model.name", BackboneError)
"""Every backbone by name."""


def register(name: str) -> Callable[[AnyMaker], AnyMaker]:
    """Class decorator: make a backbone known by a name.

    The class (or function) is called with ``(config: ModelConfig, num_items: int, generator: torch.Generator)``
    and draws its initial weights from the generator alone.

    Raises
    ------
    BackboneError
        When the name is taken.
    """
    return BACKBONES.register(name)


def names() -> list[str]:
    """Names of all registered backbones, sorted."""
    return BACKBONES.names()


def maker_of(name: str) -> Maker:
    """The class, or function, that is registered under a name; BackboneError, which lists them, where none is."""
    return BACKBONES[name]


def build(config: ModelConfig, num_items: int, *, seed: int = 0) -> nn.Module:
    """A backbone with fresh weights, on the CPU.

    Parameters
    ----------
    config : ModelConfig
        Its ``name`` says which backbone.
    num_items : int
        Size N of the catalogue, at least 1.
    seed : int, default 0
        0..2**63 - 1; equal seeds give equal weights. torch's global generator is left as it was.

    Raises
    ------
    BackboneError
        Unknown name (the message lists those known), or no item.
    """
    maker = maker_of(config.name)
    if num_items < 1:
        raise BackboneError(f"num_items: expected at least 1, got {num_items}")
    # torch's own layers draw from the global generator when they are made, whatever we overwrite afterwards
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return maker(config, num_items, torch.Generator().manual_seed(seed))

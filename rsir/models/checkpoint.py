"""Models on disk: weights as safetensors, everything else as a readable JSON card; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import rsir
from rsir import files
from rsir.config import ModelConfig, from_dict, to_dict
from rsir.errors import BackboneError, CheckpointError, ConfigError
from rsir.models.registry import build
from rsir.models.times import uses_times
from rsir.runtime.resume import tensors_to_bytes
from rsir.runtime.torch_state import plain_torch

__all__ = ["CARD", "WEIGHTS", "load", "read_card", "save", "to_files"]

WEIGHTS, CARD = "model.safetensors", "model.json"
_FORMAT = 2  # 1 had no checksum
_LAYERS = 64  # of a backbone whose layers may share their weights
_SPARE = 2**26  # bytes that a model may take beside its weights


def to_files(
    model: nn.Module,
    config: ModelConfig,
    *,
    metrics: Mapping[str, float] | None = None,
    data: str | None = None,
    settings: Mapping[str, Any] | None = None,
    ensemble: Mapping[str, Any] | None = None,
    refit: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Content of a checkpoint's files by name, for a caller that writes them in its own way; see :func:`save`.

    `ensemble` is noted in the card, too: what the model is a member of, as JSON values; and `refit`: how a model was
    trained that has no metrics of its own.
    """
    content = tensors_to_bytes(model.state_dict())
    if uses_times(model):  # as the data decided, where the settings say auto
        config = replace(config, times="on")
    card = {
        "format": _FORMAT,
        "rsir": rsir.__version__,
        "model": to_dict(config),
        "num_items": model.num_items,
        "metrics": dict(metrics or {}),
        "data": data,
        "settings": dict(settings or {}),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    card |= {name: dict(value) for name, value in (("ensemble", ensemble), ("refit", refit)) if value is not None}
    card["checksum"] = files.checksum(card)
    return {WEIGHTS: content, CARD: (json.dumps(card, indent=2) + "\n").encode()}


def save(
    model: nn.Module,
    config: ModelConfig,
    directory: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    data: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to a folder, which is created if need be.

    Parameters
    ----------
    model : torch.nn.Module
        Built from ``config`` by :func:`rsir.models.build`.
    config : ModelConfig
    directory : path
        Gets model.safetensors and model.json; each appears whole or not at all.
    metrics : mapping of str to float, optional
        For the card.
    data : str, optional
        Fingerprint of the data it was trained on (:meth:`rsir.data.Sequences.fingerprint`), for the card.
    settings : mapping, optional
        What else it was made with, by name, as JSON values, for the card.

    Raises
    ------
    CheckpointError
        The disk refuses.
    """
    folder = Path(directory)
    try:
        files.make_folder(folder)
    except OSError as cause:
        raise files.refused(folder, cause, CheckpointError) from cause
    for name, content in to_files(model, config, metrics=metrics, data=data, settings=settings).items():
        files.replace(folder / name, content, CheckpointError)


def read_card(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON card of a checkpoint.

    Raises
    ------
    CheckpointError
        Missing, not JSON, of a format this version cannot read, or incomplete.
    """
    path = Path(directory) / CARD
    try:
        card = json.loads(files.read_bytes(path, links=True))  # Hugging Face's cache has links
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{path} is damaged: {cause}") from cause
    if not isinstance(card, dict) or card.get("format") not in (1, _FORMAT):
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        if type(found) is int and found > _FORMAT:
            raise CheckpointError(
                f"{path}: has format {found}, and rsir {rsir.__version__} reads up to {_FORMAT}: rsir "
                f"{card.get('rsir', 'of a newer version')} wrote it; install that or a newer one"
            )
        raise CheckpointError(f"{path}: expected a model card of format {_FORMAT}, got {found!r}")
    checksum = card.pop("checksum", None)
    if checksum != files.checksum(card) and (checksum, card["format"]) != (None, 1):
        raise CheckpointError(f"{path} is damaged: its checksum differs")
    missing = [key for key in ("model", "num_items", "sha256") if key not in card]
    if missing or type(card["num_items"]) is not int:
        raise CheckpointError(f"{path} is damaged: it lacks {', '.join(missing) or 'a whole number as num_items'}")
    return card


@plain_torch()
def load(directory: str | os.PathLike[str]) -> nn.Module:
    """Read a model that :func:`save` wrote.

    Returns
    -------
    torch.nn.Module
        On the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        A file is missing or damaged, the two do not belong together, a weight is not finite, or another version of
        rsir wrote them with settings that this one does not know; the message names the version.
    BackboneError
        The backbone is not registered: import the module that registers it first.
    """
    card = read_card(directory)
    path = Path(directory) / WEIGHTS
    try:
        content = files.read_bytes(path, links=True)
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read: {cause.strerror}") from cause
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise CheckpointError(f"{path} is damaged, or is not the file that {CARD} beside it describes: SHA-256 differs")
    try:
        config = from_dict(ModelConfig, card["model"], "model")
    except ConfigError as cause:
        raise CheckpointError(
            f"{path.parent / CARD}: has settings that rsir {rsir.__version__} does not know ({cause}); rsir "
            f"{card.get('rsir', 'of another version')} wrote it: load it with that version"
        ) from cause
    mismatch = f"{path} does not hold the weights of the model in {CARD}"
    try:
        tensors = safetensors.torch.load(content)
        _check_sizes(config, card["num_items"], tensors, mismatch)
        model = build(config, card["num_items"])
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as cause:
        raise CheckpointError(f"{mismatch}: {cause}") from cause
    _check_finite(tensors, path)
    return model.eval()


def _check_sizes(config: ModelConfig, num_items: int, tensors: Mapping[str, Tensor], mismatch: str) -> None:
    """Refuse a card that asks for another model than the tensors beside it are of, before anything of its size is made.

    The model is built without memory first, on torch's meta device, where its backbone can be.
    """
    there = sum(tensor.nbytes for tensor in tensors.values())
    if config.layers > max(len(tensors), _LAYERS):
        raise CheckpointError(f"{mismatch}: model.layers is {config.layers:,}, it has {len(tensors)} tensors")
    try:
        with torch.device("meta"):
            model = build(config, num_items)
    except BackboneError:
        raise
    except Exception:  # a backbone of one's own, which computes with numbers when it is made
        numbers = {
            "num_items x dim": num_items * config.dim,
            "layers x dim x feedforward": config.layers * config.dim * config.feedforward,
            "max_len x dim": config.max_len * config.dim,
        }
        for name, number in numbers.items():
            if number > max(there, _SPARE):
                raise CheckpointError(f"{mismatch}: {name} is {number:,}, it has {there:,} bytes") from None
        return
    expected = model.state_dict()
    for name in {**expected, **tensors}:
        ours, theirs = (tuple(where[name].shape) if name in where else "none" for where in (expected, tensors))
        if ours != theirs:
            raise CheckpointError(f"{mismatch}: {name}: expected {ours}, got {theirs}")
    others = sum(buffer.nbytes for buffer in model.buffers()) - sum(tensor.nbytes for tensor in expected.values())
    if others > there + _SPARE:
        raise CheckpointError(f"{mismatch}: the model has {others:,} bytes of its own beside the {there:,} of the file")


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that no score can be computed with."""
    for name, tensor in tensors.items():
        wrong = int((~tensor.isfinite()).sum())
        if wrong:
            raise CheckpointError(
                f"{path}: {wrong:,} of the {tensor.numel():,} numbers of {name} are nan or infinite, expected finite "
                "weights; go back to a model from before, or train again"
            )

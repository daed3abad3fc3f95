"""The compiled CPU backend: torch tensors in and out of ``rsir._core`` without copies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rsir.errors import BackendUnavailable
from rsir.ops.backend import Backend
from rsir.ops.checks import version_of
from rsir.ops.cpp_catalogue import CppCatalogue, numpy_lists
from rsir.ops.items import ItemTable
from rsir.ops.types import (
    AdamMoments,
    FullSoftmax,
    LayerDropout,
    LayerParameters,
    Ragged,
    SampledSoftmax,
)
from rsir.runtime.core import _core

_INSTRUCTION_SETS = ("avx512vnni", "avx512", "avx2", "base")


class Cpp(CppCatalogue):
    """Every op on the compiled core, for CPU tensors."""

    name = "cpp"

    def pack(self, items: Tensor, instruction_set: str | None, dtype: torch.dtype) -> ItemTable:
        name = _instruction_set(instruction_set)
        if items.device.type != "cpu":
            raise ValueError(f"items: backend 'cpp' scores on cpu, got {items.device}; move them with .cpu()")
        half = dtype == torch.float16
        if not half:
            items = items.float()
        bits = items.numpy().view(np.uint16) if items.dtype == torch.float16 else items.numpy()
        # by name the screen of bytes is used on small tables, too
        table = _core.PackedTable(bits, name, half, instruction_set is not None)
        return ItemTable(self, items, (table, version_of(items)), name, dtype)

    def neighbour_votes(self, graph: Tensor, items: Tensor, sources: Ragged, threads: int) -> Tensor:
        return torch.from_numpy(_core.neighbour_votes(graph.numpy(), items.numpy(), numpy_lists(sources), threads))

    def sampled_softmax(
        self,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        negative_ids: Tensor,
        weights: Tensor,
        target_offsets: Tensor | None,
        negative_offsets: Tensor | None,
        threads: int,
        instruction_set: str | None,
        bfloat16: bool,
    ) -> SampledSoftmax:
        loss, *gradients = _core.sampled_softmax(
            queries.numpy(),
            positives.numpy(),
            negatives.numpy(),
            targets.numpy(),
            negative_ids.numpy(),
            weights.numpy(),
            None if target_offsets is None else target_offsets.numpy(),
            None if negative_offsets is None else negative_offsets.numpy(),
            threads,
            _instruction_set(instruction_set),
            bfloat16,
        )
        return SampledSoftmax(torch.tensor(loss, dtype=torch.float32), *map(torch.from_numpy, gradients))

    def full_softmax(
        self,
        queries: Tensor,
        items: Tensor,
        targets: Tensor,
        weights: Tensor,
        threads: int,
        instruction_set: str | None,
        bfloat16: bool,
    ) -> FullSoftmax:
        arrays = queries.numpy(), items.numpy(), targets.numpy(), weights.numpy()
        loss, *gradients = _core.full_softmax(*arrays, threads, _instruction_set(instruction_set), bfloat16)
        return FullSoftmax(torch.tensor(loss, dtype=torch.float32), *map(torch.from_numpy, gradients))

    def transformer_layer(
        self,
        x: Tensor,
        segments: Tensor,
        parameters: LayerParameters,
        heads: int,
        epsilon: float,
        dropout: LayerDropout | None,
        threads: int,
        instruction_set: str | None,
    ) -> Tensor:
        random = None if dropout is None else [part.contiguous().numpy() for part in dropout[1:] if part is not None]
        settings = {
            "bytes": random,
            "heads": heads,
            "dropped": 0 if dropout is None else dropout.dropped,
            "epsilon": epsilon,
            "threads": threads,
            "instruction_set": _instruction_set(instruction_set),
        }
        own = () if parameters.filter is None else parameters.filter[4:]
        tensors = (parameter.contiguous() for parameter in parameters.tensors)
        y: Tensor = _TransformerLayer.apply(settings, own, segments, x.contiguous(), *tensors)
        return y

    def adam_rows(
        self,
        weights: Tensor,
        moments: AdamMoments,
        step: int,
        ids: Tensor | None,
        gradients: Tensor | None,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        average: Tensor | None,
        decay: float,
        padding: int | None,
        threads: int,
        instruction_set: str | None,
    ) -> None:
        _core.adam_rows(
            weights.detach().numpy(),
            moments.first.numpy(),
            moments.second.numpy(),
            None if moments.last is None else moments.last.numpy(),
            None if ids is None else ids.contiguous().numpy(),
            None if gradients is None else gradients.numpy(),
            step,
            learning_rate,
            betas,
            epsilon,
            None if average is None else average.numpy(),
            decay,
            -1 if padding is None else padding,
            threads,
            _instruction_set(instruction_set),
        )
        for changed in (weights, average):
            if changed is not None:
                torch.autograd.graph.increment_version(changed)  # packed copies of the table are out of date

    def encode_histories(
        self,
        histories: Ragged,
        embeddings: Tensor,
        positions: Tensor | None,
        layers: Sequence[LayerParameters],
        heads: int,
        epsilon: float,
        threads: int,
        instruction_set: str | None,
    ) -> Tensor:
        queries = _core.encode(
            *numpy_lists(histories),
            embeddings.detach().numpy(),
            None if positions is None else positions.numpy(),
            [[parameter.detach().numpy() for parameter in layer[:12]] for layer in layers],
            _filters(layers),
            heads,
            epsilon,
            threads,
            _instruction_set(instruction_set),
        )
        return torch.from_numpy(queries)

    def extend_histories(
        self,
        slots: Tensor,
        items: Tensor,
        lengths: Tensor,
        keys: Tensor,
        values: Tensor,
        low: Tensor | None,
        embeddings: Tensor,
        positions: Tensor | None,
        layers: Sequence[LayerParameters],
        heads: int,
        epsilon: float,
        threads: int,
        instruction_set: str | None,
    ) -> Tensor:
        queries = _core.step(
            slots.numpy(),
            items.numpy(),
            lengths.numpy(),
            keys.numpy(),
            values.numpy(),
            None if low is None else low.numpy(),
            embeddings.detach().numpy(),
            None if positions is None else positions.numpy(),
            [[parameter.detach().numpy() for parameter in layer[:12]] for layer in layers],
            _filters(layers),
            heads,
            epsilon,
            threads,
            _instruction_set(instruction_set),
        )
        return torch.from_numpy(queries)


BACKEND: Backend = Cpp()


class _TransformerLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, settings: dict[str, Any], own: tuple[float, ...], segments: Tensor, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        arrays = [parameter.detach().numpy() for parameter in parameters]
        settings = settings | {"parameters": arrays[:12], "filter": (*arrays[12:], *own) if own else None}
        y, ctx.saved = _core.layer_forward(x.detach().numpy(), segments.numpy(), **settings)
        ctx.settings = settings
        ctx.save_for_backward(segments, x, *parameters)  # which refuses parameters that were changed since
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        segments, x, *parameters = ctx.saved_tensors
        grad_x, gradients = _core.layer_backward(
            x.detach().numpy(),
            segments.numpy(),
            **ctx.settings,
            saved=ctx.saved,
            grad_y=upstream[0].contiguous().numpy(),
        )
        parts = torch.from_numpy(gradients).split([parameter.numel() for parameter in parameters])
        shaped = (part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True))
        return (None, None, None, torch.from_numpy(grad_x), *shaped)


def _filters(layers: Sequence[LayerParameters]) -> list[tuple[Any, ...]] | None:
    """What the core takes of layers' filters."""
    filters = [layer.filter for layer in layers if layer.filter is not None]
    return [(*(value.detach().numpy() for value in own[:4]), *own[4:]) for own in filters] or None


@cache
def _usable() -> list[str]:
    return _core.instruction_sets()


def _instruction_set(name: str | None) -> str:
    usable = _usable()
    if name is None:
        return usable[0]
    if name not in _INSTRUCTION_SETS:
        raise ValueError(f"instruction_set: expected one of {list(_INSTRUCTION_SETS)} or None, got {name!r}")
    if name not in usable:
        raise BackendUnavailable(f"instruction set {name!r} is not offered by this CPU or build; usable: {usable}")
    return name

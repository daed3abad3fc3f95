"""What a backend must have, the one table of backends, and the choice among them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from inspect import isfunction
from typing import TYPE_CHECKING, NoReturn, Protocol

import torch
from torch import Tensor

from rsir.errors import BackendUnavailable, ConfigError
from rsir.ops.types import (
    AdamMoments,
    Draw,
    FullSoftmax,
    LayerDropout,
    LayerParameters,
    Ragged,
    RankedSample,
    RankedTopK,
    Sample,
    SampledSoftmax,
    SparseScores,
    TopK,
)

if TYPE_CHECKING:
    from rsir.ops.items import ItemTable

__all__ = ["BACKENDS", "NETWORK", "Backend", "CatalogueOps", "NetworkOps", "lacking", "load", "ops_of", "resolve"]

BACKENDS = ("cpp", "reference", "triton")
"""The backends that may be asked for by name."""

_MODULES = {name: f"rsir.ops.{name}" for name in (*BACKENDS, "sharded")}
"""Where each backend is, as ``BACKEND``. A sharded table is joined of others, and not asked for by name."""

_DEFAULT = {"cpu": "cpp", "cuda": "triton"}


class CatalogueOps(Protocol):
    """The ops on an item table, on inputs that :mod:`rsir.ops` has checked; what they mean is said there."""

    def topk(self, queries: Tensor, table: ItemTable, k: int, excluded: Ragged | None, threads: int) -> TopK: ...

    def topk_sample(
        self, queries: Tensor, table: ItemTable, draw: Draw, excluded: Ragged | None, threads: int
    ) -> Sample: ...

    def pool_sample(
        self, queries: Tensor, table: ItemTable, pool: Ragged, draw: Draw, excluded: Ragged | None, threads: int
    ) -> Sample: ...

    def rank_within(
        self, queries: Tensor, table: ItemTable, targets: Ragged, tau: int | None, threads: int
    ) -> Tensor: ...

    def count_above(
        self, queries: Tensor, table: ItemTable, bars: Tensor, limit: int | None, threads: int
    ) -> Tensor: ...

    def place_within(
        self, queries: Tensor, table: ItemTable, targets: Tensor, tau: int, excluded: Ragged | None, threads: int
    ) -> Tensor: ...

    def rank_and_sample(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        draw: Draw,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedSample: ...

    def rank_and_topk(
        self,
        queries: Tensor,
        table: ItemTable,
        targets: Ragged,
        tau: int | None,
        k: int,
        excluded: Ragged | None,
        threads: int,
    ) -> RankedTopK: ...

    def logits_of(self, queries: Tensor, table: ItemTable, lists: Ragged, threads: int) -> Tensor: ...


class NetworkOps(Protocol):
    """The ops of training and encoding, which compute in the dtype of their inputs."""

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
    ) -> SampledSoftmax: ...

    def full_softmax(
        self,
        queries: Tensor,
        items: Tensor,
        targets: Tensor,
        weights: Tensor,
        threads: int,
        instruction_set: str | None,
        bfloat16: bool,
    ) -> FullSoftmax: ...

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
    ) -> Tensor: ...

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
    ) -> Tensor: ...

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
    ) -> Tensor: ...

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
    ) -> None: ...


class Backend(CatalogueOps, NetworkOps, Protocol):
    """Computes every op, or refuses it by name (:data:`_LACKS`)."""

    name: str

    def pack(self, items: Tensor, instruction_set: str | None, dtype: torch.dtype) -> ItemTable: ...

    def adding(self, added: SparseScores) -> CatalogueOps | None:
        """The ops with scores that are added, where the backend has them; else they are composed of the others."""

    def neighbour_votes(self, graph: Tensor, items: Tensor, sources: Ragged, threads: int) -> Tensor: ...


def ops_of(protocol: type) -> frozenset[str]:
    """Names of the ops of a protocol."""
    return frozenset(
        name
        for part in protocol.__mro__
        for name, value in vars(part).items()
        if isfunction(value) and not name.startswith("_")
    )


NETWORK = ops_of(NetworkOps)
"""Names of the ops of training and encoding."""

_LACKS = {
    "triton": NETWORK - {"sampled_softmax"},
    "sharded": NETWORK | {"pack", "neighbour_votes"},
}
"""The ops that a backend refuses."""


def resolve(backend: str, op: str, values: Tensor) -> Backend:
    """The backend that computes an op on such values, by name or, with "auto", by their device and dtype.

    For the ops of a catalogue "auto" is cpp on a CPU and triton on CUDA. For those of :data:`NETWORK` it is the same
    in float32, where that backend has the op; else the reference, which torch's autograd trains on any device.

    Raises
    ------
    ValueError
        An unknown name, or values that the backend does not train in.
    BackendUnavailable
        The backend cannot run here, or has no such op.
    """
    device, exact = values.device.type, values.dtype == torch.float32
    if backend == "auto":
        name = _DEFAULT.get(device)
        if op in NETWORK and (name is None or not exact or op in _LACKS.get(name, ())):
            name = "reference"
        if name is None:
            raise BackendUnavailable(
                f"no default backend for device {device!r}: move the items to cpu or cuda, "
                f"or ask for backend='reference'"
            )
        return load(name)
    if backend not in BACKENDS:
        raise ConfigError(f"backend: expected 'auto' or one of {list(BACKENDS)}, got {backend!r}")
    if op in _LACKS.get(backend, ()):
        raise _refusal(backend, op)
    on_cpu = backend == "cpp"
    if op in NETWORK and backend != "reference" and (not exact or (on_cpu and device != "cpu")):
        raise ValueError(
            f"backend {backend!r} trains in float32{' on cpu' if on_cpu else ''}, got {values.dtype} on "
            f"{values.device}; convert with .float(){'.cpu()' if on_cpu else ''} or use backend='reference'"
        )
    return load(backend)


def load(name: str) -> Backend:
    """Import a backend, or raise :class:`BackendUnavailable` with the cause and the other choices."""
    try:
        backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
    except (ImportError, BackendUnavailable) as cause:
        others = sorted(set(BACKENDS) - {name})
        raise BackendUnavailable(f"backend {name!r} cannot be used here: {cause}. Others: {others}") from cause
    return backend


def lacking(op: str) -> Callable[..., NoReturn]:
    """The method of a backend that has no such op: it refuses, by name."""

    def refuse(self: Backend, *_: object) -> NoReturn:
        raise _refusal(self.name, op)

    return refuse


def _refusal(backend: str, op: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"backend {backend!r} has no {op}: use backend='reference', which has every op on any device"
    )

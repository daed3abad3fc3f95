"""What a recommender must offer to be used here: three small protocols and a check that names what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from rsir.errors import BackboneError

if TYPE_CHECKING:
    from rsir.data.batches import TrainingBatch
    from rsir.ops import Ragged, SparseScores

__all__ = [
    "AddingBackbone",
    "Backbone",
    "HistoryBackbone",
    "IncrementalBackbone",
    "LookupBackbone",
    "PrefixBackbone",
    "State",
    "SteppingBackbone",
    "TimedBackbone",
    "TrainableBackbone",
    "check_backbone",
    "require",
]


@runtime_checkable
class Backbone(Protocol):
    """Enough for evaluation, generation, verification and enrichment.

    The logit of an item is the dot product of the query with its row of :meth:`item_embeddings`.

    Attributes
    ----------
    num_items : int
        Size N of the catalogue; ids are 1..N and 0 is padding.
    max_len : int
        Longest history that :meth:`encode` takes.
    """

    num_items: int
    max_len: int

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Query after each history.

        Parameters
        ----------
        items : (B, L) int64
            Oldest first, padded with 0 on the right; L <= max_len.
        lengths : (B,) int64
            In 1..L.

        Returns
        -------
        (B, d) float32
            A row's query must not depend on the other rows of the batch.
        """
        ...

    def item_embeddings(self) -> Tensor:
        """(N + 1, d) float32; row 0 belongs to the padding and is never scored."""
        ...


@runtime_checkable
class TimedBackbone(Backbone, Protocol):
    """Optional: attends to when items came, too.

    Where it also has ``step`` or ``encode_prefixes``, these take ``times``, int64 of (n, 2) or (nnz, 2): when each item
    came, and when what comes after it is asked for. A registered one is built with ``config.times`` on or off, and its
    class says that it can use times by ``uses_times = True``. Batches then have ``times``. An int64 buffer ``gap``, if
    it has one, is set by training to the usual time between two events.

    Attributes
    ----------
    uses_times : bool
        Whether this one is to be given times.
    """

    uses_times: bool

    def encode(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """As of :class:`Backbone`.

        Parameters
        ----------
        items, lengths
        times : (B, L + 1) int64, optional
            When each item came, and at place ``lengths`` when what comes next is asked for; what comes after means
            nothing. Default: of a history whose times are not known, where the backbone says what stands in for them.
        """
        ...


@runtime_checkable
class State(Protocol):
    """What an incremental backbone remembers of the sequences it is extending, one a slot."""

    def reset(self, slots: Tensor) -> None:
        """Empty these slots, (n,) int64."""
        ...

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Let each target slot, (n,) int64, hold what its source slot holds; no target is a source."""
        ...


@runtime_checkable
class IncrementalBackbone(Backbone, Protocol):
    """Optional: extends a history by one item without encoding it anew."""

    def new_state(self, slots: int) -> State:
        """State with this many empty slots."""
        ...

    def step(self, state: Any, slots: Tensor, items: Tensor) -> Tensor:
        """Append one item to each named slot; what :meth:`encode` would return after it.

        Parameters
        ----------
        state : State
            From :meth:`new_state`; changed in place.
        slots : (n,) int64
            Distinct.
        items : (n,) int64

        Returns
        -------
        (n, d) float32
            A slot's query must not depend on which other slots are extended with it.
        """
        ...


@runtime_checkable
class SteppingBackbone(IncrementalBackbone, Protocol):
    """Optional: extends all slots of a state by one item each, with shapes that do not change and no look at values.

    What a GPU decodes by without waiting for the host.
    """

    def step_all(self, state: Any, items: Tensor, at: Tensor) -> Tensor:
        """Append one item to every slot; what :meth:`encode` would return after it.

        Parameters
        ----------
        state : State
            From :meth:`new_state`; changed in place. What it says of lengths is neither read nor kept.
        items : (slots,) int64
        at : (slots,) int64
            How many items each slot holds before, below max_len; 0 begins anew.

        Returns
        -------
        (slots, d) float32
        """
        ...


@runtime_checkable
class HistoryBackbone(Backbone, Protocol):
    """Optional: encodes many histories at once without padding them."""

    def encode_histories(self, histories: Ragged) -> Tensor | None:
        """What :meth:`encode` would return for each history, cut to its last max_len items.

        Never with dropout, whatever the model's mode.

        Parameters
        ----------
        histories : Ragged
            int32 ids on the CPU, oldest item first, none empty.

        Returns
        -------
        (n, d) float32, or None
            A history's query must not depend on the other histories. None, the same for all histories, where the model
            cannot do so in its present state (on its device, say): then :meth:`encode` is used.
        """
        ...


@runtime_checkable
class PrefixBackbone(Backbone, Protocol):
    """Optional: gives the query after every item of a sequence in one causal pass."""

    def encode_prefixes(self, sequences: Ragged) -> Tensor:
        """What :meth:`encode` would return after each item of each sequence, up to rounding.

        Parameters
        ----------
        sequences : Ragged
            int32 ids on the CPU, oldest item first, 1 to max_len of each.

        Returns
        -------
        (nnz, d) float32
        """
        ...


@runtime_checkable
class AddingBackbone(Backbone, Protocol):
    """Optional: adds scores to the logits of a few items a history, as a count of sequences does."""

    def added_scores(self, histories: Ragged) -> SparseScores:
        """What is added to the logits after each history.

        Parameters
        ----------
        histories : Ragged
            int32 ids on the CPU, oldest item first, whole.

        Returns
        -------
        SparseScores
            A row for each history, on the device of :meth:`item_embeddings`. A row must not depend on the other ones.
        """
        ...


@runtime_checkable
class TrainableBackbone(Backbone, Protocol):
    """Optional: can be trained by :func:`rsir.training.fit.fit`; must also be a ``torch.nn.Module``.

    One with an attribute ``draws_for_whole_batch``, true, draws from ``batch.generator`` what the whole batch takes
    where it is given a part of it (``batch.part``), so that several processes train as one would. For others each
    process draws by itself.
    """

    def loss(self, batch: TrainingBatch, negatives: Tensor) -> Tensor:
        """Loss of a batch, a scalar to call ``backward`` on.

        Parameters
        ----------
        batch : TrainingBatch
        negatives : (S,) int64
            Items every position of the batch is contrasted with; one equal to the position's target does
            not count there. Where ``batch.corrections`` is given, they are not drawn alike, and logits of targets and
            negatives are to be corrected by it. Where ``batch.full`` is true, they are the whole catalogue, 1..N.
        """
        ...


@runtime_checkable
class LookupBackbone(TrainableBackbone, Protocol):
    """Optional: its loss reads item embeddings by calling one table, which a large catalogue profits from."""

    @property
    def item_table(self) -> nn.Embedding:
        """The table of (N + 1, d); ``loss`` reads it by calling it with ids, in no other way unless ``batch.full``."""
        ...


_MEMBERS: dict[type, tuple[str, ...]] = {
    Backbone: ("num_items", "max_len", "encode", "item_embeddings"),
    IncrementalBackbone: ("num_items", "max_len", "encode", "item_embeddings", "new_state", "step"),
    TrainableBackbone: ("num_items", "max_len", "encode", "item_embeddings", "loss"),
}


def require(model: object, protocol: type) -> None:
    """Check that a model offers what a protocol asks for.

    Parameters
    ----------
    model : object
    protocol : Backbone, IncrementalBackbone or TrainableBackbone

    Raises
    ------
    BackboneError
        Names every missing member.
    """
    missing = [name for name in _MEMBERS[protocol] if not hasattr(model, name)]
    if missing:
        raise BackboneError(
            f"{type(model).__name__} is no {protocol.__name__}: it lacks {', '.join(missing)} "
            "(see rsir.models.protocol for what each must do)"
        )


@torch.no_grad()
def check_backbone(model: object) -> None:
    """Try a model of one's own on two short histories, so that what it gets wrong is said before any work is done.

    Parameters
    ----------
    model : object
        Left in the mode, training or evaluation, that it was in.

    Raises
    ------
    BackboneError
        It lacks a member of :class:`Backbone`, or ``num_items``, ``max_len``, its item embeddings or its queries are
        not what they are to be; says what was expected, what came, and how to fix it.
    """
    require(model, Backbone)
    model = cast(Backbone, model)
    name = type(model).__name__
    for attribute in ("num_items", "max_len"):
        value = getattr(model, attribute)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BackboneError(f"{name}.{attribute}: expected an int of at least 1, got {value!r}")
    table = model.item_embeddings()
    _check_floats(table, f"{name}.item_embeddings()", "(num_items + 1, d)")
    if len(table) == model.num_items:
        raise BackboneError(
            f"{name}.item_embeddings(): expected {model.num_items + 1} rows, one an item after row 0 of the padding, "
            f"got {len(table)}; put a row of zeros before them: torch.nn.functional.pad(table, (0, 0, 1, 0))"
        )
    if len(table) != model.num_items + 1:
        raise BackboneError(f"{name}.item_embeddings(): expected {model.num_items + 1} rows, got {len(table)}")
    if not table[1:].isfinite().all():
        raise BackboneError(f"{name}.item_embeddings(): not finite: has its training diverged?")
    width = min(model.max_len, 2)
    items = torch.ones(2, width, dtype=torch.int64, device=table.device)
    items[0, 1:] = 0
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        queries = model.encode(items, torch.tensor([1, width], device=table.device))
    except (TypeError, RuntimeError, ValueError, IndexError) as cause:
        if isinstance(cause, torch.OutOfMemoryError):
            raise
        raise BackboneError(
            f"{name}.encode(items (2, {width}) int64, lengths (2,) int64): {str(cause).strip().partition(chr(10))[0]}"
        ) from cause
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
    _check_floats(queries, f"{name}.encode(items, lengths)", f"(2, {table.shape[1]}) for two histories")
    if queries.shape != (2, table.shape[1]):
        raise BackboneError(
            f"{name}.encode(items, lengths): expected one query a history as wide as an item embedding, "
            f"{(2, table.shape[1])} here, got {tuple(queries.shape)}"
            + ("; take each row's last place: x[torch.arange(len(x)), lengths - 1]" if queries.ndim == 3 else "")
        )
    if not queries.isfinite().all():
        raise BackboneError(
            f"{name}.encode(items, lengths): its query after item 1 is not finite: has training diverged?"
        )


def _check_floats(value: object, name: str, shape: str) -> None:
    """A 2-D float32 tensor; the query's own number of dimensions is told by the caller."""
    if not isinstance(value, Tensor):
        raise BackboneError(
            f"{name}: expected a float32 tensor {shape}, got {type(value).__name__}; use torch.as_tensor"
        )
    if value.dtype != torch.float32:
        raise BackboneError(f"{name}: expected float32, got {value.dtype}; convert it with .float()")
    if "num_items" in shape and value.ndim != 2:
        raise BackboneError(f"{name}: expected {shape}, got {tuple(value.shape)}")

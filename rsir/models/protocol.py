"""What a recommender must offer to be used here: three small protocols and a check that names what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from rsir.errors import BackboneError

if TYPE_CHECKING:
    from rsir.data.batches import TrainingBatch
    from rsir.ops import Ragged

__all__ = [
    "Backbone",
    "HistoryBackbone",
    "IncrementalBackbone",
    "LookupBackbone",
    "State",
    "TrainableBackbone",
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
            negatives are to be corrected by it.
        """
        ...


@runtime_checkable
class LookupBackbone(TrainableBackbone, Protocol):
    """Optional: its loss reads item embeddings by calling one table, which a large catalogue profits from."""

    @property
    def item_table(self) -> nn.Embedding:
        """The table of (N + 1, d); ``loss`` reads it by calling it with ids, in no other way."""
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

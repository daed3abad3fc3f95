"""What every adapter has: a catalogue of its own, and a way to bring data to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from rsir.data.alignment import align, ids_in
from rsir.data.sequences import Sequences
from rsir.data.splits import EvaluationSet
from rsir.errors import BackboneError, RsirError

__all__ = ["Adapter", "check_scores"]


class Adapter(nn.Module):
    """A trained model of another library as a :class:`rsir.models.Backbone`, in evaluation mode.

    Its catalogue is the items that the model knows, in the model's order. Bring data to it by :meth:`align`.

    Attributes
    ----------
    num_items : int
    max_len : int
    item_labels : (num_items,) pyarrow array
        The outside names of items 1..num_items.
    network : torch.nn.Module
        The other library's. The item embeddings are taken from it once: adapt anew after training on.
    """

    item_table: Tensor

    def __init__(self, network: nn.Module, item_labels: Any, item_table: Tensor, max_len: int) -> None:
        super().__init__()
        labels = pa.array(item_labels)
        if len(item_table) != len(labels) + 1:
            raise BackboneError(
                f"{type(network).__name__}: expected {len(labels) + 1} item embeddings, one for each of its "
                f"{len(labels)} items and the padding, got {len(item_table)}"
            )
        if not item_table[1:].isfinite().all():
            raise BackboneError(f"{type(network).__name__}: its item embeddings are not finite: has training diverged?")
        self.network = network
        self.item_labels, self.num_items, self.max_len = labels, len(labels), max_len
        table = item_table.detach().float().clone()
        table[0] = 0
        self.register_buffer("item_table", table)
        self.eval()

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Query after each history; see :class:`rsir.models.Backbone`."""
        raise NotImplementedError

    def item_embeddings(self) -> Tensor:
        """(N + 1, d) float32; row 0 is zero."""
        return self.item_table

    def align(self, data: Sequences) -> Sequences:
        """Data over this model's catalogue: the same rows, items numbered as here.

        Events with items that the model does not know are omitted.

        Parameters
        ----------
        data : Sequences
            Items are matched by their labels, or by their ids if they have none; integers and their text match.

        Raises
        ------
        DataError
            None of the items is known.

        Warns
        -----
        DataWarning
            Events were omitted; says how many.
        """
        return align(data, self.item_labels, type(self.network).__name__)

    def align_tasks(self, tasks: EvaluationSet, data: Sequences) -> EvaluationSet:
        """Ranking tasks over this model's catalogue, for :func:`rsir.evaluation.evaluate`.

        Items of histories that the model does not know are omitted, and so are tasks whose target it does
        not know or whose history is empty then.

        Parameters
        ----------
        tasks : EvaluationSet
        data : Sequences
            Over whose catalogue the tasks are.
        """
        own = ids_in(data, self.item_labels, type(self.network).__name__)
        items, targets = own[tasks.histories.values], own[tasks.targets]
        known = replace(tasks.histories, values=items.astype(np.int32)).where(items > 0)
        kept = (known.lengths > 0) & (targets > 0)
        return EvaluationSet(
            rows=tasks.rows[kept],
            histories=known.take(np.flatnonzero(kept)),
            targets=targets[kept].astype(np.int32),
            repeats=tasks.repeats,
        )


@torch.no_grad()
def check_scores(adapter: Adapter, scores: Any, what: str, hint: str) -> None:
    """Refuse a model whose own scores are not the dot products that a backbone's are.

    Parameters
    ----------
    adapter : Adapter
    scores : callable
        (items (B, L), lengths (B,)) -> the model's own scores of items 1..N, (B, N), up to a constant a row.
    what : str
        Names the model in the message.
    hint : str
        Which models of its library can be adapted, for one that cannot be called with items and lengths alone.

    Raises
    ------
    BackboneError
    """
    width = min(adapter.max_len, 3)
    device = adapter.item_table.device
    lengths = torch.tensor([1, width], device=device)
    items = torch.arange(2 * width, device=device).view(2, width) % adapter.num_items + 1
    items = items * (torch.arange(width, device=device) < lengths[:, None])
    try:
        ours = adapter.encode(items, lengths) @ adapter.item_table[1:].T
        theirs = scores(items, lengths).float()
    except (TypeError, KeyError, AttributeError, IndexError, ValueError, RuntimeError) as cause:
        if isinstance(cause, (RsirError, torch.OutOfMemoryError)):
            raise
        reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise BackboneError(f"{what}: does not encode histories of item ids alone ({reason}); {hint}") from cause
    difference = (ours - theirs) - (ours - theirs).mean(1, keepdim=True)
    if difference.abs().max() > 1e-3 * max(1.0, float(theirs.abs().max())):
        raise BackboneError(
            f"{what}: its scores are not dot products of a query and item embeddings (they differ by up to "
            f"{float(difference.abs().max()):.3g}), so it cannot be a backbone; see rsir.models.protocol"
        )

"""CL4SRec (Xie et al., 2022, arXiv 2010.14395): SASRec, and two random views of a sequence must know each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rsir.config import ModelConfig
from rsir.data.batches import TrainingBatch
from rsir.models.attention import rows_of
from rsir.models.losses import sampled_softmax
from rsir.models.registry import register
from rsir.models.sasrec import SASRec
from rsir.models.views import draw_views

__all__ = ["CL4SRec"]


@register("cl4srec")
class CL4SRec(SASRec):
    """SASRec with a contrastive loss in training; all the rest, and the weights it starts from, are SASRec's.

    Parameters
    ----------
    config : ModelConfig
    num_items : int
    generator : torch.Generator
        Draws the initial weights: normal(0, 0.02), biases 0.

    Attributes
    ----------
    mask_item : (d,) float32
        What stands for an item that a view hides.
    """

    capturable = False  # the number of views of a batch is read back

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__(config, num_items, generator)
        self.mask_item = nn.Parameter(torch.empty(config.dim).normal_(0, 0.02, generator=generator))

    def loss(self, batch: TrainingBatch, negatives: Tensor) -> Tensor:
        """SASRec's loss; in training mode with the contrastive one, which is drawn anew each time, like dropout."""
        loss = super().loss(batch, negatives)
        if self.training and self.config.contrastive_weight > 0:
            loss = loss + self.config.contrastive_weight * self.contrast(batch)
        return loss

    def contrast(self, batch: TrainingBatch) -> Tensor:
        """Mean cross-entropy of telling a view's twin from all other views of the batch.

        Two views are compared by the dot product of their queries over sqrt(d). The paper does not divide; queries here
        are normed to a length of about sqrt(d), and undivided products, of up to d, kept the model from learning what
        comes next.
        """
        config, part = self.config, batch.part
        whole = batch if part is None else part.whole
        positions, segments, items, weights = (
            torch.cat([value, value]) for value in (whole.positions, whole.segments, whole.items, whole.weights)
        )
        views = draw_views(positions, segments, config.crop, config.mask, config.reorder, batch.generator)
        rows = rows_of(batch, copies=2)
        own = torch.arange(len(items), device=items.device) if rows is None else rows.places
        items, masked = items.flatten()[views.origin].view_as(items)[own], views.masked.view_as(items)[own]
        inputs = torch.where(masked[..., None], self.mask_item, self.items(items))
        x = self.read(inputs, views.positions[own], views.segments[own], batch.generator, rows)
        if part is None:
            queries = x.flatten(0, 1)[views.last]
        else:  # a twin must be told from the views of other processes' rows, too
            placed = x.new_zeros(*segments.shape, config.dim).index_copy(0, own, x)
            queries = part.joined(placed.flatten(0, 1)[views.last])
        queries = queries * config.dim**-0.25
        count = len(queries) // 2
        twins = queries.roll(count, 0)
        # Views of one sequence share an id, and a negative with the target's id does not count: neither a view itself
        # nor, a second time, its twin.
        ids = torch.arange(count, device=queries.device).repeat(2)
        weight = weights.flatten()[views.last]
        weight = (weight / weight.sum()).to(queries.dtype)
        loss = sampled_softmax(queries, twins, queries, ids, ids, weight, self.threads)
        return loss if part is None else part.of_whole(loss)

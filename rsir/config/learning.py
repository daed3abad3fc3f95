"""The backbone and its training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from rsir.config.values import check_types, choice, require

__all__ = ["ModelConfig", "TrainingConfig", "for_backbone"]

Section = TypeVar("Section", "ModelConfig", "TrainingConfig")


@dataclass(frozen=True)
class ModelConfig:
    """The backbone; by default BSARec in the size of the RSIR authors' SASRec.

    :meth:`for_backbone` gives the defaults of the others, and :meth:`rsir.config.RecursionConfig.for_backbone` those of
    their training, too; on the command line ``--model NAME`` does.

    Attributes
    ----------
    name
        Registered name of the backbone.
    dim
        Width d of the embeddings and hidden states.
    layers
        Number of transformer blocks, or of recurrent layers (gru4rec).
    heads
        Attention heads; must divide dim (gru4rec has none).
    feedforward
        Width of the feed-forward layer (gru4rec: of the hidden state; hstu has none).
    dropout
        Dropout probability.
    max_len
        Longest prefix that is encoded; older items are cut off.
    contrastive_weight
        Weight of the contrastive loss (cl4srec only; lambda in its paper).
    crop
        Share of a sequence that a cropped view keeps (cl4srec only; eta in its paper).
    mask
        Share of a sequence that a masked view hides (cl4srec only; gamma in its paper).
    reorder
        Share of a sequence that a reordered view shuffles (cl4srec only; beta in its paper).
    filter_share
        Share of the low-pass filter in a layer, beside attention (bsarec only; alpha in its paper).
    filter_decay
        What the filter weighs an item by, for each item that came after it (bsarec only).
    times
        Whether attention sees when items came (hstu, and backbones of one's own that use times): on, off, or auto: on
        where the data have times.
    """

    name: str = "bsarec"
    dim: int = 64
    layers: int = 2
    heads: int = 2
    feedforward: int = 128
    dropout: float = 0.5
    max_len: int = 50
    contrastive_weight: float = 0.1
    crop: float = 0.6
    mask: float = 0.3
    reorder: float = 0.6
    filter_share: float = 0.7
    filter_decay: float = 0.8
    times: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        check_types(self, "model")
        for name in ("dim", "layers", "heads", "feedforward"):
            require(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))
        require(2 <= self.max_len < 2**16, "model.max_len", "in 2..65535", self.max_len)
        headless = self.name == "gru4rec"
        require(headless or self.dim % self.heads == 0, "model.heads", f"a divisor of dim {self.dim}", self.heads)
        # one byte decides each element, so that probabilities are rounded to 1/256
        require(0 <= self.dropout < 511 / 512, "model.dropout", "in [0, 0.998)", self.dropout)
        require(
            0 <= self.contrastive_weight < float("inf"),
            "model.contrastive_weight",
            "a number of 0 or more",
            self.contrastive_weight,
        )
        require(0 <= self.filter_decay < 1, "model.filter_decay", "in [0, 1)", self.filter_decay)
        for name in ("crop", "mask", "reorder", "filter_share"):
            require(0 <= getattr(self, name) <= 1, f"model.{name}", "a share in [0, 1]", getattr(self, name))

    def for_backbone(self, name: str) -> ModelConfig:
        """The same settings for another backbone; those that are at their default take the other one's default."""
        return replace(for_backbone("model", self, self.name, name), name=name)


# What was chosen on validation of Amazon Toys for BSARec (docs/stronger.md) has not been tried with the others.
_PLAIN = {"patience": 20, "synthetic_weight": 1.0, "real_last": 0}
_OWN_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "sasrec": {"training": _PLAIN},
    "cl4srec": {"training": _PLAIN},
    "esasrec": {"training": _PLAIN, "model": {"dropout": 0.2}},  # its authors' settings for Amazon Toys
    "gru4rec": {"training": _PLAIN, "model": {"layers": 1}},  # its paper: a second layer made it worse
    "hstu": {"training": _PLAIN},
}
"""What a backbone's defaults differ in from BSARec's, by section."""


def for_backbone(section: str, config: Section, backbone: str, name: str) -> Section:
    """A section of settings for another backbone; those at the first one's defaults take the other one's."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    ours, theirs = ({**defaults, **_OWN_DEFAULTS.get(which, {}).get(section, {})} for which in (backbone, name))
    return replace(config, **{key: value for key, value in theirs.items() if getattr(config, key) == ours[key]})


@dataclass(frozen=True)
class TrainingConfig:
    """How one backbone is trained; defaults are those of bsarec (docs/stronger.md), others bring their own.

    Attributes
    ----------
    batch_size
        Sequences a step.
    learning_rate
        Step size of Adam.
    schedule
        constant, or cosine: the learning rate falls to a hundredth of itself over max_evaluations validations, along
        half a cosine; what that was measured to do is in docs/stronger.md.
    negatives
        Negative items shared by a batch; 0: all items, the full softmax. No fewer than the catalogue has: all of them,
        too, more slowly.
    loss_precision
        float32, or bfloat16: factors of the products in the softmax over items are rounded to it, which is faster on
        processors with instructions for it (AVX512_BF16). What is summed and kept stays float32.
    proposal
        What negatives are drawn from: uniform, or popularity: by how often an item occurs in the training set, with the
        log-Q correction.
    patience
        Validations without a better NDCG@20 before training stops.
    evaluate_every
        Steps between validations; none means one pass over the real sequences, so that training
        sets of different sizes are compared by steps, and at least 10.
    max_evaluations
        Most validations of one training.
    synthetic_weight
        Weight of a synthetic sequence's loss beside 1 for a real one.
    ema
        Decay of an exponential moving average of the weights, which is what is validated and kept; 0 is off.
    real_last
        A training that has synthetic sequences goes on from its best weights on the real ones alone, for this many
        validations, with real_rate in place of learning_rate; the best weights of all are kept. 0 is off.
    real_rate
        Step size of Adam in that last stretch.
    item_trust
        With data.items: events of an item at which half of what was learnt beside the projection of its vector is kept
        (rsir.training.projection); 0 keeps all of it for every item that has one.
    """

    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    negatives: int = 1024
    loss_precision: Literal["float32", "bfloat16"] = "float32"
    proposal: Literal["uniform", "popularity"] = "uniform"
    patience: int = 8
    evaluate_every: int | None = None
    max_evaluations: int = 200
    synthetic_weight: float = 0.5
    ema: float = 0.999
    real_last: int = 2
    real_rate: float = 2e-4
    item_trust: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "training")
        for name in ("batch_size", "patience", "max_evaluations"):
            require(getattr(self, name) >= 1, f"training.{name}", "at least 1", getattr(self, name))
        require(self.negatives >= 0, "training.negatives", "at least 0", self.negatives)
        choice("training.loss_precision", self.loss_precision, ("float32", "bfloat16"))
        choice("training.schedule", self.schedule, ("constant", "cosine"))
        choice("training.proposal", self.proposal, ("uniform", "popularity"))
        for name in ("learning_rate", "real_rate"):
            require(0 < getattr(self, name) < float("inf"), f"training.{name}", "above 0", getattr(self, name))
        require(0 <= self.real_last < 2**16, "training.real_last", "in 0..65535", self.real_last)
        require(
            0 <= self.synthetic_weight < float("inf"), "training.synthetic_weight", "0 or more", self.synthetic_weight
        )
        require(0 <= self.item_trust < float("inf"), "training.item_trust", "0 or more", self.item_trust)
        require(0 <= self.ema < 1, "training.ema", "in [0, 1)", self.ema)
        if self.evaluate_every is not None:
            require(self.evaluate_every >= 1, "training.evaluate_every", "at least 1", self.evaluate_every)

"""Adam and the average of weights in few passes, for models that look items up in one table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rsir import ops
from rsir.config import TrainingConfig
from rsir.models.protocol import LookupBackbone

__all__ = ["TableAdam", "has_table_adam", "table_adam"]

_LARGE_CATALOGUE = 50_000  # items; from here on lazy rows are worth it: python -m benchmarks training --catalogues
_SHARE = 0.1  # of the catalogue; with more negatives than this a step is about the whole table


class TableAdam:
    """Adam that takes the gradient of a model's item table as rows, without a table of gradients.

    With ``lazy``, for large catalogues, it updates the rows that a step looked up alone. The others are brought up to
    date when a step looks them up, before it does: steps see what Adam over the whole table would show them
    (:func:`rsir.ops.adam_rows` has the small print). All other parameters are stepped as one.

    Parameters
    ----------
    model : LookupBackbone and torch.nn.Module
        float32, on a CPU. Until :meth:`close` its table gives sparse gradients, and its other parameters are parts of
        one array.
    learning_rate : float
    threads : int
    decay : float
        Decay of a moving average of the parameters; 0 keeps none.
    lazy : bool

    Attributes
    ----------
    param_groups : list of dict
        As of a torch optimizer, with "lr" alone, which may change from step to step unless lazy.
    """

    def __init__(self, model: Any, learning_rate: float, threads: int, decay: float, lazy: bool) -> None:
        self.param_groups = [{"lr": learning_rate}]
        self._threads, self._decay, self._lazy = threads, decay, lazy
        self._steps = 0
        self._table: nn.Embedding = model.item_table
        weight = self._table.weight
        named = list(model.named_parameters(remove_duplicate=False))
        self._table_names = [name for name, value in named if value is weight]
        self._others = [value for value in model.parameters() if value is not weight]
        self._flat = torch.cat([value.detach().flatten() for value in self._others] or [weight.new_empty(0)])
        for value, part in zip(self._others, self._parts(self._flat), strict=True):
            value.data = part
        self._places = {name: at for at, other in enumerate(self._others) for name, value in named if value is other}
        self._moments = {"table": _moments(weight, decay, lazy), "others": _moments(self._flat[None], decay, False)}
        self._padding, self._table.padding_idx, self._table.sparse = self._table.padding_idx, None, True
        self._hook = self._table.register_forward_pre_hook(self._before_lookup)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._table.weight.grad = None
        for value in self._others:
            value.grad = None

    def step(self) -> None:
        """One step with the gradients there are.

        Raises
        ------
        ValueError
            The loss read the table in another way than by calling it, and the table is lazy.
        """
        gradient, self._table.weight.grad = self._table.weight.grad, None
        if self._lazy and gradient is not None and not gradient.is_sparse:
            raise ValueError(
                "item_table: the loss read this model's item embeddings in another way than by calling the table; let "
                "it call the table, or the class have item_table = None"
            )
        self._steps += 1
        if self._others:
            parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self._others]
            self._adam("others", self._flat[None], None, torch.cat(parts)[None])
        if gradient is not None and gradient.is_sparse:
            self._adam("table", self._table.weight, gradient._indices()[0], gradient._values())
        elif gradient is not None:
            self._adam("table", self._table.weight, None, gradient)

    @property
    def averages(self) -> dict[str, Tensor]:
        """The moving average of every parameter by its name in the model; right after :meth:`settle`."""
        if not self._decay:
            return {}
        parts = self._parts(self._moments["others"]["average"][0])
        table = self._moments["table"]["average"]
        return dict.fromkeys(self._table_names, table) | {name: parts[at] for name, at in self._places.items()}

    def settle(self) -> None:
        """Bring all rows up to date, for whoever reads the whole table."""
        if self._steps and self._lazy:
            self._adam("table", self._table.weight)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here: tensors by number and name under "state"."""
        groups = enumerate(self._moments.values())
        return {"state": {number: {"step": torch.tensor(self._steps), **moments} for number, moments in groups}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        for number, moments in enumerate(self._moments.values()):
            saved = state_dict["state"][number]
            self._steps = int(saved["step"])
            for name, value in moments.items():
                value.copy_(saved[name])

    def close(self) -> None:
        """Leave the model alone from now on."""
        self._hook.remove()
        self._table.padding_idx, self._table.sparse = self._padding, False
        for value in self._others:
            value.data = value.data.clone()

    def _parts(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([value.numel() for value in self._others])
        return [part.view(value.shape) for part, value in zip(parts, self._others, strict=True)]

    def _before_lookup(self, table: nn.Module, arguments: tuple[Tensor]) -> None:
        if self._steps and self._lazy and torch.is_grad_enabled():
            self._adam("table", self._table.weight, arguments[0].flatten())

    def _adam(self, name: str, weights: Tensor, ids: Tensor | None = None, gradients: Tensor | None = None) -> None:
        own = self._moments[name]
        ops.adam_rows(
            weights,
            ops.AdamMoments(own["first"], own["second"], own.get("last")),
            self._steps,
            ids,
            gradients,
            learning_rate=self.param_groups[0]["lr"],
            average=own.get("average"),
            decay=self._decay,
            padding=self._padding if name == "table" else None,
            threads=self._threads,
        )


def has_table_adam(model: object) -> bool:
    """Whether :func:`table_adam` has one for a model: one that allows it, in float32 on a CPU."""
    if not isinstance(model, LookupBackbone) or model.item_table is None:
        return False
    values = model.parameters()  # type: ignore[attr-defined]
    return model.item_table.weight.device.type == "cpu" and all(value.dtype == torch.float32 for value in values)


def table_adam(model: Any, config: TrainingConfig, threads: int) -> TableAdam | None:
    """:class:`TableAdam` where a training can have it; see :func:`has_table_adam`.

    Parameters
    ----------
    model : torch.nn.Module
    config : TrainingConfig
    threads : int
    """
    if not has_table_adam(model):
        return None
    rows = len(model.item_table.weight)
    # Rows that are left behind make up for steps at one rate.
    lazy = rows > _LARGE_CATALOGUE and 0 < config.negatives <= _SHARE * rows and config.schedule == "constant"
    return TableAdam(model, config.learning_rate, threads, config.ema, lazy)


def _moments(weights: Tensor, decay: float, lazy: bool) -> dict[str, Tensor]:
    weights = weights.detach()
    moments = {"first": torch.zeros_like(weights), "second": torch.zeros_like(weights)}
    if lazy:
        moments["last"] = torch.zeros(len(weights), dtype=torch.int32)
    if decay:
        moments["average"] = weights.clone()
    return moments

"""Adam, for a large catalogue on the rows of the item table that a step looked up alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rsir import ops
from rsir.config import TrainingConfig
from rsir.models.protocol import LookupBackbone

__all__ = ["RowAdam", "suits"]

_LARGE_CATALOGUE = 50_000  # items; from here on rows are worth it: python -m benchmarks training --catalogues
_SHARE = 0.1  # of the catalogue; with more negatives than this a step is about the whole table


class RowAdam(torch.optim.Adam):
    """Adam that updates, of a model's item table, the rows that a step looked up.

    The other rows are brought up to date when a step looks them up, before it does: steps see what Adam over the whole
    table would show them (:func:`rsir.ops.adam_rows` has the small print).

    Parameters
    ----------
    model : LookupBackbone and torch.nn.Module
        float32, on a CPU. Its table gives sparse gradients until :meth:`close`.
    learning_rate : float
    threads : int
        For the table.
    decay : float
        Of a moving average of the table, which is kept with its rows; 0 keeps none.
    """

    def __init__(self, model: Any, learning_rate: float, threads: int, decay: float = 0.0) -> None:
        super().__init__(model.parameters(), lr=learning_rate, fused=True)
        self._rate, self._threads, self._decay, self._taken = learning_rate, threads, decay, 0
        self._table: nn.Embedding = model.item_table
        weight = self._table.weight
        self._names = [name for name, value in model.named_parameters(remove_duplicate=False) if value is weight]
        self.state[weight] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(weight, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            "last": torch.zeros(len(weight), dtype=torch.int32),
        }
        if decay:
            self.state[weight]["average"] = weight.detach().clone()
        self._table.sparse = True
        self._hook = self._table.register_forward_pre_hook(self._before_lookup)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step with the gradients there are.

        Raises
        ------
        ValueError
            The loss read the table in another way than by calling it.
        """
        weight = self._table.weight
        gradient, weight.grad = weight.grad, None
        if gradient is not None and not gradient.is_sparse:
            raise ValueError(
                "item_table: the loss read this model's item embeddings in another way than by calling the table; let "
                "it call the table, or the class have item_table = None"
            )
        super().step()
        self._taken += 1
        self.state[weight]["step"] += 1
        if gradient is not None:
            self._rows(self._taken, gradient._indices()[0], gradient._values())

    @property
    def averages(self) -> dict[str, Tensor]:
        """The moving average of the table by its name in the model; right after :meth:`settle`."""
        return {name: self.state[self._table.weight]["average"] for name in self._names if self._decay}

    def settle(self) -> None:
        """Bring all rows up to date, for whoever reads the whole table."""
        if self._taken:
            self._rows(self._taken)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        own = self.state[self._table.weight]
        own["last"] = own["last"].to(torch.int32)  # torch makes everything of a float parameter's dtype
        self._taken = int(own["step"])

    def close(self) -> None:
        """Leave the model's table alone from now on."""
        self._hook.remove()
        self._table.sparse = False

    def _before_lookup(self, table: nn.Module, arguments: tuple[Tensor]) -> None:
        if self._taken and torch.is_grad_enabled():
            self._rows(self._taken, arguments[0].flatten())

    def _rows(self, step: int, ids: Tensor | None = None, gradients: Tensor | None = None) -> None:
        own = self.state[self._table.weight]
        moments = ops.AdamMoments(own["exp_avg"], own["exp_avg_sq"], own["last"])
        ops.adam_rows(
            self._table.weight,
            moments,
            step,
            ids,
            gradients,
            learning_rate=self._rate,
            average=own.get("average"),
            decay=self._decay,
            threads=self._threads,
        )


def suits(model: object, config: TrainingConfig) -> bool:
    """Whether :class:`RowAdam` is for this training: a model that allows it, in float32 on a CPU, a large catalogue.

    Parameters
    ----------
    model : torch.nn.Module
    config : TrainingConfig
    """
    if not isinstance(model, LookupBackbone) or model.item_table is None:
        return False
    weight = model.item_table.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    return len(weight) > _LARGE_CATALOGUE and config.negatives <= _SHARE * len(weight)

"""The decoding engine for a GPU: every step is of all slots, and the host reads back which trajectories ended."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rsir.config import GenerationConfig
from rsir.data.sequences import Sequences
from rsir.generation.decoding import Engine, Found
from rsir.generation.drawing import adds
from rsir.generation.fidelity import Fidelity, Policy, Rank
from rsir.models.items import pack_items
from rsir.models.protocol import Backbone, SteppingBackbone
from rsir.models.times import uses_times
from rsir.ops import ItemTable
from rsir.ops.slots import slots_of
from rsir.runtime.graphs import Repeated
from rsir.runtime.philox import Stream, counters
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpoints
from rsir.runtime.runtime import Runtime

__all__ = ["DeviceEngine", "engine_of"]

DEVICES = frozenset({"cuda"})  # in Triton's interpreter, on a CPU, idle slots take as long as others
MOST_SLOTS = 65_536


def engine_of(
    model: Backbone,
    sources: Sequences,
    rows: np.ndarray,
    config: GenerationConfig,
    fidelity: Fidelity,
    *,
    table: ItemTable | None,
    runtime: Runtime,
    **options: Any,
) -> Engine:
    """The engine for a model and a table: on the device where kernels score, the model steps all slots together, and
    nothing but ranks is checked."""
    if table is not None and fidelity.table is not None and table is not fidelity.table:
        raise ValueError("table: expected the one that the index of the fidelity policy was built of, got another")
    table = pack_items(model, table if fidelity.table is None else fidelity.table, world=runtime.world)
    unscreened = type(fidelity).screen is Policy.screen or (isinstance(fidelity, Rank) and fidelity.index is None)
    kernels = table.backend.name == "triton" and table.weights.device.type in DEVICES
    all_slots = kernels and isinstance(model, SteppingBackbone) and not uses_times(model)
    checked = fidelity.checks_items or fidelity.judges or adds(model, config)
    made = DeviceEngine if all_slots and unscreened and not checked else Engine
    return made(model, sources, rows, config, fidelity, table=table, runtime=runtime, **options)


class DeviceEngine(Engine):
    """What :class:`Engine` decodes, to the byte; see there.

    What a trajectory has open, its random numbers, the verdict and the draw are computed where the model is, by a fixed
    number of kernels a step. Nothing is shared among trajectories of a source: work of a fixed shape gains nothing by
    it.
    """

    def __init__(self, model: Backbone, sources: Sequences, rows: np.ndarray, *others: Any, **options: Any) -> None:
        super().__init__(model, sources, rows, *others, **options)
        self.step_all = cast(SteppingBackbone, model).step_all
        self.step_slots = Repeated(self._step, self.device, "decoding")
        slots, lengths = len(self.job), np.sort(self._lengths(rows))[::-1]
        at_once = -(-slots // self.config.m)
        self.job = torch.full((slots,), -1)  # the host knows which slot holds what
        self.slots = slots_of(
            self.table,
            slots,
            self.max_length,
            torch.tensor(sources.items, device=self.device),
            listed=int(lengths[:at_once].sum()) * self.config.m,
            longest=int(lengths[:1].sum()),
            tau=self.fidelity.tau,
            k=self.config.k,
            temperature=self.config.temperature,
            seed=self.seed,
            share=self.config.p,
            drop=self.fidelity.on_fail == "drop",
        )

    def run(self, checkpointer: Checkpoints = NO_CHECKPOINTS) -> Found:
        with torch.cuda.device(self.device if self.device.type == "cuda" else -1):  # which need not be the current one
            return super().run(checkpointer)

    def _start(self, slots: Tensor, job: np.ndarray) -> None:
        row, number = self._row_and_number(job)
        lengths = self._lengths(row)
        words = counters(Stream.ITEM, self.round, self._number_of(row), number, np.zeros_like(row))
        given = self._start_lengths(row, number, lengths)
        fresh = np.column_stack([slots.numpy(), self.sources.offsets[row], lengths, given, words])
        self.job[slots] = torch.from_numpy(job)
        self.slots.start(self._tensor(fresh))

    def _advance(self, slots: Tensor) -> Tensor:
        return self.step_slots().cpu().nonzero()[:, 0]

    def _step(self) -> Tensor:
        queries = self.step_all(self.state, *self.slots.append())
        return cast(Tensor, self.slots.decide(queries))

    def _most_slots(self) -> int:
        """As set; what is not set is what a quarter of the device's free memory holds."""
        if self.device.type != "cuda" or self.config.slots != GenerationConfig().slots:
            return super()._most_slots()
        state = cast(SteppingBackbone, self.model).new_state(1)
        held = sum(value.nbytes for value in vars(state).values() if isinstance(value, Tensor))
        longest = int(self._lengths(self.rows).max(initial=1))
        # Of kernels: maxima of groups, bits of what is excluded, and keys of what may be drawn, twice.
        scratch = 2 * self.table.num_items + 16 * max(longest, 1024) + 64 * self.table.dim
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(self.config.slots, min(MOST_SLOTS, free // 4 // (held + scratch)))

    def _ended(self, slots: Tensor) -> dict[str, Tensor]:
        records = self.slots.records[slots.to(self.device)].cpu() if len(slots) else torch.zeros(0, 4 + self.max_length)
        length, refused, scanned, scanned_refused = records[:, :4].long().unbind(1)
        ended = {
            "job": self.job[slots],
            "items": records[:, 4:].int(),
            "lengths": length,
            "refused": refused.bool(),
            "scanned": scanned,
            "scanned_refused": scanned_refused,
        }
        self.job[slots] = -1
        return ended

"""One pass over the catalogue: how many items beat each row's target, and the maximum of every group of items.

Sorting inside a matrix-product kernel costs more than the product. So the pass keeps only the maximum of each group
of G consecutive items, and :mod:`rsir.kernels.select` looks inside the best groups afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import dot_block
from .plan import Plan, group_size, launching, make_plan, measured_plan, platform
from .types import Factors, ItemTable, Lists

__all__ = ["NO_TARGET", "Bars", "Scan"]

NO_TARGET = 2**30  # count of a row without targets, which is dropped as early as can be


# Sizes and lists are not specialised: masks and row starts gain nothing from it, and each new size would compile anew.
@triton.jit(do_not_specialize=["target_ptr", "offset_ptr", "num_rows"])
def best_target_kernel(
    query_ptr,
    table_ptr,
    target_ptr,
    offset_ptr,
    best_ptr,
    num_rows,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Best target logit of each row, in the tiles and so in the bits of :func:`scan_kernel`.

    A tile scores all targets of its rows against all its rows and keeps each row's own.
    """
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_mask = rows < num_rows
    begin = tl.load(offset_ptr + rows, mask=row_mask, other=0)
    end = tl.load(offset_ptr + rows + 1, mask=row_mask, other=0)
    first = tl.load(offset_ptr + tl.program_id(0) * BLOCK_M)
    last = tl.load(offset_ptr + tl.minimum((tl.program_id(0) + 1) * BLOCK_M, num_rows))
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    for tile in range(tl.cdiv(last - first, BLOCK_N).to(tl.int32)):  # Triton 3.5 fails to compile an int64 counter
        entry = first + tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        ids = tl.load(target_ptr + entry, mask=entry < last, other=0).to(tl.int64)
        scores = dot_block(
            query_ptr,
            rows.to(tl.int64),
            row_mask,
            table_ptr,
            ids,
            entry < last,
            D,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            PRECISION,
        )
        own = (entry[None, :] >= begin[:, None]) & (entry[None, :] < end[:, None]) & (scores == scores)
        best = tl.maximum(best, tl.max(tl.where(own, scores, float("-inf")), axis=1))
    tl.store(best_ptr + rows, best, mask=row_mask)


@triton.jit
def by_group(values, SUM: tl.constexpr, GROUP: tl.constexpr, STRIDED: tl.constexpr):
    """Sum or maximum of (M, N) values over the items of each group: (M, N / GROUP)."""
    GROUPS: tl.constexpr = values.shape[1] // GROUP
    if STRIDED:
        grouped = tl.reshape(values, (values.shape[0], GROUP, GROUPS))
    else:
        grouped = tl.reshape(values, (values.shape[0], GROUPS, GROUP))
    if SUM:
        return tl.sum(grouped, axis=1 if STRIDED else 2)
    else:
        return tl.max(grouped, axis=1 if STRIDED else 2)


@triton.jit(
    do_not_specialize=[
        *("num_rows", "num_items", "num_groups", "words_per_row", "first_tile", "last_tile", "tiles_per_program")
    ],
)
def scan_kernel(
    query_ptr,
    table_ptr,
    best_ptr,
    count_ptr,
    maxima_ptr,
    row_ptr,
    alive_ptr,
    margin_ptr,
    norm_ptr,
    open_ptr,
    num_rows,
    num_items,
    num_groups,
    words_per_row,
    first_tile,
    last_tile,
    tiles_per_program,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    MARGIN: tl.constexpr,
    COUNT: tl.constexpr,
    MAXIMA: tl.constexpr,
    PERMUTED: tl.constexpr,
    STRIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scan item tiles [first_tile, last_tile) in pieces of ``tiles_per_program`` (second grid axis).

    COUNT adds to ``count`` the items that score strictly above ``best``: equal bits never count, so neither does the
    target itself. MAXIMA writes each group's maximum, NaN counting as -inf; programs own disjoint groups.
    MARGIN: a score is known up to ``margin * norm``. COUNT then counts what is surely above, and sets a bit of ``open``
    for what may be or may not (column c of a tile of N: bit c // (N / 32) of word c % (N / 32)); MAXIMA are upper
    bounds.
    PERMUTED takes rows in the order of ``row_ptr`` and leaves out those from ``alive`` on.
    STRIDED deals the items of a group to columns BLOCK_N / GROUP apart, which on NVIDIA tensor cores puts a whole
    group into one thread's registers (4 shuffles in place of 128 a tile for half precision on sm_90).
    """
    GROUPS: tl.constexpr = BLOCK_N // GROUP
    place = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    if PERMUTED:
        row_mask = place < tl.load(alive_ptr)
        rows = tl.load(row_ptr + place, mask=row_mask, other=0)
    else:
        row_mask = place < num_rows
        rows = place.to(tl.int64)
    first = first_tile + tl.program_id(1) * tiles_per_program
    last = tl.minimum(first + tiles_per_program, last_tile)
    if PERMUTED and tl.program_id(0) * BLOCK_M >= tl.load(alive_ptr):
        last = first

    column = tl.arange(0, BLOCK_N)
    if STRIDED:
        column = (column % GROUPS) * GROUP + column // GROUPS
    if COUNT:
        best = tl.load(best_ptr + rows, mask=row_mask, other=float("inf"))[:, None]
        above = tl.zeros((BLOCK_M, GROUPS), tl.int32)
    if MARGIN:
        WORDS: tl.constexpr = BLOCK_N // 32
        margin = tl.load(margin_ptr + rows, mask=row_mask, other=0.0)
        bit = tl.full((BLOCK_N,), 1, tl.int32) << (tl.arange(0, BLOCK_N) // WORDS)
    for tile in range(first, last):
        index = tile * BLOCK_N + column  # item id - 1
        scores = dot_block(
            query_ptr,
            rows,
            row_mask,
            table_ptr,
            index.to(tl.int64) + 1,
            index < num_items,
            D,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            PRECISION,
        )
        if (tile + 1) * BLOCK_N > num_items:
            scores = tl.where((index < num_items)[None, :], scores, float("-inf"))
        if COUNT:
            is_above = scores > best
        if MARGIN:
            slack = margin[:, None] * tl.load(norm_ptr + 1 + index, mask=index < num_items, other=0.0)[None, :]
            upper = scores + slack
            upper = tl.where(upper == upper, upper, float("inf"))
            if COUNT:
                is_above = scores - slack > best
                bits = tl.where((upper <= best) | is_above, 0, bit[None, :])
                word = tile * WORDS + tl.arange(0, WORDS)
                tl.store(
                    open_ptr + rows[:, None] * words_per_row + word[None, :],
                    tl.sum(tl.reshape(bits, (BLOCK_M, 32, WORDS)), axis=1),
                    mask=row_mask[:, None] & (word < words_per_row)[None, :],
                )
            scores = upper
        if COUNT:
            above += by_group(is_above.to(tl.int32), True, GROUP, STRIDED)
        if MAXIMA:
            maxima = by_group(scores, False, GROUP, STRIDED)
            # not tl.maximum, which lets NaN through in the interpreters of Triton before 3.8
            maxima = tl.where(maxima == maxima, maxima, float("-inf"))
            group = tile * GROUPS + tl.arange(0, GROUPS)
            tl.store(
                maxima_ptr + rows[:, None] * num_groups + group[None, :],
                maxima,
                mask=row_mask[:, None] & (group < num_groups)[None, :],
            )
    if COUNT:
        tl.atomic_add(count_ptr + rows, tl.sum(above, axis=1), mask=row_mask, sem="relaxed")


class Bars(NamedTuple):
    """What items are counted against, and their counts."""

    best: Tensor
    """(B,) float32 bars."""
    count: Tensor
    """(B,) int32 counters of the items above them."""
    open: Tensor | None = None
    """(B, words) int32 bits of the items that the pass does not decide; None where it decides all."""


@dataclass(frozen=True)
class Scan:
    """How a table is scanned: by which tiles, in groups of how many items, in how many pieces.

    ``tau``: rows with that many items above their bar are dropped between pieces; None drops none.
    """

    table: ItemTable
    plan: Plan
    group: int
    tau: int | None
    phases: int

    @classmethod
    def of(
        cls,
        queries: Tensor,
        table: ItemTable,
        *,
        picks: int = 1,
        tau: int | None = None,
        group: int | None = None,
        phases: int | None = None,
        plan: Plan | None = None,
    ) -> Scan:
        """The scan for queries (B, d); what is not given follows from the shape.

        ``picks``: how many groups are looked into afterwards.
        """
        return cls(
            table,
            plan or measured_plan(platform(), queries.device, table.precision, table.dim, len(queries), table.half),
            group or group_size(table.num_items, table.dim, picks),
            tau,
            # A phase costs a sort of the rows and a launch: about the time of a few thousand items.
            phases or (3 if tau is not None and table.num_items >= 2**15 else 1),
        )

    @property
    def num_groups(self) -> int:
        return triton.cdiv(self.table.num_items, self.group)

    def picks(self, k: int) -> int:
        """Groups to look into for the k best items: k where maxima are exact, else what nearly always holds them."""
        return min(self.num_groups, k if self.table.exact else 2 * k + 8)

    def bars(self, queries: Tensor, targets: Lists) -> Bars:
        """Each row's best target logit, and its counter: 0, or beyond every tau for rows without targets."""
        count = targets.offsets.diff().eq(0).int() * NO_TARGET
        return Bars(self.best_targets(queries, targets), count, self.open_bits(queries))

    def open_bits(self, queries: Tensor) -> Tensor | None:
        """Room for the bits of what a pass leaves open; None where it decides all."""
        if self.table.exact:
            return None
        words = triton.cdiv(self.table.num_items, self.plan.block_n) * self.plan.block_n // 32
        return torch.empty(len(queries), words, dtype=torch.int32, device=queries.device)

    def best_targets(self, queries: Tensor, targets: Lists) -> Tensor:
        """(B,) float32 each row's best target logit of queries (B, d) float32, -inf without targets."""
        rows = len(queries)
        best = torch.empty(rows, dtype=torch.float32, device=queries.device)
        plan = self.plan if self.table.exact else make_plan(platform(), "ieee", self.table.dim, rows)
        constants = plan.tiles(self.table.dim) | {"BLOCK_N": plan.target_block_n}
        with launching():
            best_target_kernel[(triton.cdiv(rows, plan.block_m),)](
                queries, self.table.weights, targets.ids, targets.offsets, best, rows, **constants
            )
        return best

    def run(self, factors: Factors, bars: Bars | None, maxima: Tensor | None) -> None:
        """Count items above the bars and write maxima (B, num_groups), or what the margin knows of both.

        In several phases the catalogue comes in growing pieces (of three: 1/16, to 1/4, the rest), and rows that have
        been counted beyond tau are left out of the later ones; their maxima there stay as they were.
        """
        tiles = triton.cdiv(self.table.num_items, self.plan.block_n)
        first = 0
        for phase in range(self.phases):
            last = max(first, tiles >> 2 * (self.phases - 1 - phase))
            alive = None
            if bars is not None and self.phases > 1:
                dead = bars.count.ge(self.table.num_items if self.tau is None else self.tau)
                alive = dead.sort(stable=True).indices, (~dead).sum(dtype=torch.int32)
            if first < last:
                self._launch(factors, bars, maxima, range(first, last), alive)
            first = last

    def _launch(
        self,
        factors: Factors,
        bars: Bars | None,
        maxima: Tensor | None,
        tiles: range,
        alive: tuple[Tensor, Tensor] | None,
    ) -> None:
        """Launch scan_kernel over item tiles, split so that small batches fill the device."""
        queries, margins = factors
        row_tiles = triton.cdiv(len(queries), self.plan.block_m)
        per_program = triton.cdiv(len(tiles), _splits(row_tiles, len(tiles), queries.device))
        best, count, is_open = bars or (None, None, None)
        with launching():
            scan_kernel[(row_tiles, triton.cdiv(len(tiles), per_program))](
                queries,
                self.table.scanned,
                best,
                count,
                maxima,
                *(alive or (None, None)),
                margins,
                self.table.norms,
                is_open,
                len(queries),
                self.table.num_items,
                self.num_groups,
                0 if is_open is None else is_open.shape[1],
                tiles.start,
                tiles.stop,
                per_program,
                GROUP=self.group,
                MARGIN=margins is not None,
                COUNT=bars is not None,
                MAXIMA=maxima is not None,
                PERMUTED=alive is not None,
                STRIDED=self.plan.strided,
                **self.plan.tiles(self.table.dim),
            )


def _splits(row_tiles: int, tiles: int, device: torch.device) -> int:
    """Programs per row tile: as many as fill the device four times over."""
    if device.type == "cpu":
        return min(2, tiles)  # the interpreter runs programs one by one; two keep the seam between them tested
    units = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(tiles, 4 * units // row_tiles))

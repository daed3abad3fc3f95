"""A decode step for all slots at once: shapes are fixed, masks say what counts, and nothing is read back to the host.

A slot holds one trajectory. :meth:`Slots.append` takes each one's pending item in and lists what its source still has
open; :meth:`Slots.decide` verifies the trajectories by their queries and draws the items that come next.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import order_key, philox
from .gumbel import signed
from .plan import launching
from .recheck import complete, recount
from .scan import NO_TARGET, Bars, Scan
from .select import best_keys, exclusion_bits, pick, repair, row_scores
from .types import ItemTable, Lists

__all__ = ["FRESH", "Slots"]

FRESH = 7
"""Columns of what a slot is started with: slot, place of the source's first item, its length, how many items are
given, and the three words that key its random numbers. The step is added to the second word; to the third 256 is added
for the choice between pool and catalogue."""

_HEAD = 4  # columns of a slot's record before its items: length, refused, scanned, scanned and refused

# What a slot does in this step, its kind: 0 nothing; 1 it ends, being full or with nothing of its source open; 2 its
# next item is given; 3 it draws from its source's open items; 4 it draws from the catalogue.


@triton.jit(do_not_specialize=["width"])
def start_kernel(fresh_ptr, task_ptr, record_ptr, pending_ptr, source_ptr, width, BLOCK: tl.constexpr):
    """Give the slot in each fresh row its task, an empty record, and the first item of its source."""
    fresh = fresh_ptr + tl.program_id(0) * 7
    slot = tl.load(fresh)
    column = tl.arange(0, 8)
    values = tl.load(fresh + 1 + column, mask=column < 6, other=0)
    tl.store(task_ptr + slot * 6 + column, values, mask=column < 6)
    tl.store(pending_ptr + slot, tl.load(source_ptr + tl.load(fresh + 1)))
    for start in range(0, width, BLOCK):
        place = start + tl.arange(0, BLOCK)
        tl.store(record_ptr + slot * width + place, tl.zeros((BLOCK,), tl.int32), mask=place < width)


@triton.jit
def open_items(item, valid, trajectory_ptr, length, newest, BLOCK_L: tl.constexpr):
    """Which of a source's items (BLOCK,) are neither among the first ``length`` of the trajectory nor its newest."""
    used = (item == newest).to(tl.int32)
    for start in range(0, length, BLOCK_L):
        place = start + tl.arange(0, BLOCK_L)
        own = tl.load(trajectory_ptr + place, mask=place < length, other=0)
        used = tl.maximum(used, tl.max((item[:, None] == own[None, :]).to(tl.int32), axis=1))
    return valid & (used == 0)


@triton.jit(do_not_specialize=["source_ptr", "width", "max_length", "key0", "key1"])
def append_kernel(
    task_ptr,
    record_ptr,
    pending_ptr,
    source_ptr,
    share_ptr,
    newest_ptr,
    at_ptr,
    kind_ptr,
    left_ptr,
    count_ptr,
    end_ptr,
    width,
    max_length,
    key0,
    key1,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
    NONE: tl.constexpr,
):
    """Append each slot's pending item, say what the slot does in this step, and count the open items of its source.

    ``left`` is 0 and ``count`` beyond every tau for slots that draw nothing; ``end`` is where the items end that may
    not be drawn, for slots that draw from the catalogue.
    """
    slot = tl.program_id(0).to(tl.int64)
    begin = tl.load(task_ptr + slot * 6)
    size = tl.load(task_ptr + slot * 6 + 1).to(tl.int32)
    given = tl.load(task_ptr + slot * 6 + 2).to(tl.int32)
    busy = size > 0
    record = record_ptr + slot * width
    newest = tl.where(busy, tl.load(pending_ptr + slot), 0)
    before = tl.where(busy, tl.load(record), 0)
    left = before * 0
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        item = tl.load(source_ptr + begin + place, mask=place < size, other=0)
        left += tl.sum(open_items(item, place < size, record + 4, before, newest, BLOCK_L).to(tl.int32), axis=0)
    length = before + 1
    zero = tl.zeros((16,), tl.int64)
    word = philox(
        zero.to(tl.uint32),
        (zero + tl.load(task_ptr + slot * 6 + 3)).to(tl.uint32),
        (zero + tl.load(task_ptr + slot * 6 + 4) + length).to(tl.uint32),
        (zero + tl.load(task_ptr + slot * 6 + 5) + 256).to(tl.uint32),
        (zero.to(tl.int32) + key0).to(tl.uint32, bitcast=True),
        (zero.to(tl.int32) + key1).to(tl.uint32, bitcast=True),
    )
    own = tl.max(word.to(tl.int64), axis=0) < tl.load(share_ptr)
    starts = busy & (length < given) & (length < max_length)
    given_next = tl.load(source_ptr + begin + length, mask=starts, other=0)
    draws = busy & (length < max_length) & (length >= given) & (left > 0)
    kind = tl.where(draws, tl.where(own, 3, 4), tl.where(starts, 2, tl.where(busy, 1, 0)))
    # Stores come last, and the program is one warp: no thread reads what another has changed already.
    tl.store(record + 4 + before, newest, mask=busy)
    tl.store(record, length, mask=busy)
    tl.store(newest_ptr + slot, newest.to(tl.int64))
    tl.store(at_ptr + slot, before.to(tl.int64))
    tl.store(pending_ptr + slot, given_next, mask=starts)
    tl.store(kind_ptr + slot, kind)
    tl.store(left_ptr + slot, tl.where(draws, left, 0).to(tl.int64))
    tl.store(count_ptr + slot, tl.where(draws, 0, NONE))
    tl.store(end_ptr + slot, slot * width + 4 + tl.where(kind == 4, length, 0))


@triton.jit(do_not_specialize=["source_ptr", "width"])
def list_kernel(
    task_ptr,
    record_ptr,
    source_ptr,
    kind_ptr,
    offset_ptr,
    id_ptr,
    width,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Write the open items of the slots that draw, those of slot s from place ``offset[s]`` on."""
    slot = tl.program_id(0).to(tl.int64)
    kind = tl.load(kind_ptr + slot)
    begin = tl.load(task_ptr + slot * 6)
    size = tl.where(kind >= 3, tl.load(task_ptr + slot * 6 + 1), 0).to(tl.int32)
    record = record_ptr + slot * width
    length = tl.load(record)
    written = tl.load(offset_ptr + slot)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        item = tl.load(source_ptr + begin + place, mask=place < size, other=0)
        still = open_items(item, place < size, record + 4, length, 0, BLOCK_L)
        at = written + tl.cumsum(still.to(tl.int32), axis=0) - 1
        tl.store(id_ptr + at, item, mask=still)
        written += tl.sum(still.to(tl.int32), axis=0)


@triton.jit(do_not_specialize=["num_items", "num_picks", "words_per_row", "width"])
def choices_kernel(
    query_ptr,
    table_ptr,
    pick_ptr,
    id_ptr,
    offset_ptr,
    kind_ptr,
    word_ptr,
    key_ptr,
    num_items,
    num_picks,
    words_per_row,
    width,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Order keys (rows, width) of what each row may draw: its own open items, each once, or the best of the catalogue.

    The bits of a row are set for what it may not draw; of its own items they are clear to begin with.
    """
    row = tl.program_id(0).to(tl.int64)
    candidate = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    kind = tl.load(kind_ptr + row)
    kinds = tl.zeros((BLOCK_N,), tl.int32) + kind
    own = kinds == 3
    entry = tl.load(offset_ptr + row) + candidate
    listed = own & (entry < tl.load(offset_ptr + row + 1))
    picked = (kinds == 4) & (candidate < num_picks * GROUP)
    group = tl.load(pick_ptr + row * num_picks + candidate // GROUP, mask=picked, other=0)
    index = tl.load(id_ptr + entry, mask=listed, other=1) - 1
    index = tl.where(own, index, group * GROUP + candidate % GROUP)
    valid = listed | (picked & (index < num_items))
    bit = tl.full((BLOCK_N,), 1, tl.int32) << (index % 32)
    word = word_ptr + row * words_per_row + index // 32
    if kind == 3:  # noqa: SIM108 (the compiler has statements alone)
        before = tl.atomic_or(word, bit, mask=valid, sem="relaxed")
    else:
        before = tl.load(word, mask=valid, other=-1)
    scores = row_scores(query_ptr, row, table_ptr, index, valid, D, BLOCK_M, BLOCK_N, BLOCK_K)
    scores = tl.where(valid & ((before & bit) == 0), scores, float("-inf"))
    tl.store(key_ptr + row * width + candidate, order_key(scores, index + 1), mask=candidate < width)


@triton.jit(do_not_specialize=["width", "k", "tau", "key0", "key1"])
def settle_kernel(
    task_ptr,
    record_ptr,
    pending_ptr,
    kind_ptr,
    count_ptr,
    key_ptr,
    temperature_ptr,
    ended_ptr,
    width,
    k,
    tau,
    key0,
    key1,
    CHECKED: tl.constexpr,
    DROP: tl.constexpr,
    GREEDY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Draw each slot's next item from its best k, or end its trajectory; the winner has the largest scaled logit +
    Gumbel noise, the lower id among equal ones."""
    slot = tl.program_id(0).to(tl.int64)
    kind = tl.load(kind_ptr + slot)
    record = record_ptr + slot * width
    length = tl.load(record)
    column = tl.arange(0, BLOCK)
    key = tl.load(key_ptr + slot * k + column, mask=column < k, other=0)
    ordered = key >> 32
    bits = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(tl.int32)
    logit = bits.to(tl.float32, bitcast=True)
    item = tl.where((column < k) & (logit > float("-inf")), 0x7FFFFFFF - (key & 0xFFFFFFFF), 0)
    noisy = logit.to(tl.float64)
    if not GREEDY:
        zero = tl.zeros((BLOCK,), tl.int64)
        word = philox(
            item.to(tl.uint32),
            (zero + tl.load(task_ptr + slot * 6 + 3)).to(tl.uint32),
            (zero + tl.load(task_ptr + slot * 6 + 4) + length).to(tl.uint32),
            (zero + tl.load(task_ptr + slot * 6 + 5)).to(tl.uint32),
            (zero.to(tl.int32) + key0).to(tl.uint32, bitcast=True),
            (zero.to(tl.int32) + key1).to(tl.uint32, bitcast=True),
        )
        u = (word.to(tl.int64).to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2^-32
        noisy = noisy / tl.load(temperature_ptr) - tl.log(-tl.log(u))
    noisy = tl.where(item > 0, noisy, float("-inf"))
    wins = (noisy == tl.max(noisy, axis=0)) & (item > 0)
    drawn = tl.min(tl.where(wins, item, 0x7FFFFFFF), axis=0).to(tl.int32)
    drawn = tl.where(drawn == 0x7FFFFFFF, 0, drawn)

    draws = kind >= 3
    failed = kind < 0
    if CHECKED:
        failed = draws & (tl.load(count_ptr + slot) >= tau)
        tl.store(record + 2, tl.load(record + 2) + 1, mask=draws)
        tl.store(record + 3, tl.load(record + 3) + 1, mask=failed)
    drawn = tl.where(failed, 0, drawn)
    tl.store(pending_ptr + slot, drawn, mask=draws)
    tl.store(record + 1, 1, mask=failed)
    if DROP:
        back = failed & (length > tl.load(task_ptr + slot * 6 + 2).to(tl.int32))
        tl.store(record, length - 1, mask=back)
        tl.store(record + 4 + length - 1, 0, mask=back)
    ended = (kind == 1) | (draws & (drawn == 0))
    tl.store(task_ptr + slot * 6 + 1, 0, mask=ended)
    tl.store(ended_ptr + slot, ended.to(tl.int32))


class Slots:
    """State of ``count`` slots on the device of the table.

    Parameters
    ----------
    count, max_length : int
    sources : (nnz,) int32
        The items of all sources, one after the other.
    listed, longest : int
        The most items that the sources of all slots have at a time, and one of them has.
    table : ItemTable
    tau : int, optional
        Rank within which an open item must be; None checks nothing.
    k : int
    temperature : float
    seed : int
    share : float
        Probability of drawing from the source's own items.
    drop : bool
        Whether the generated item that failed the check is taken off again.

    Attributes
    ----------
    records : (count, 4 + max_length) int32
        Length, refused, scanned, scanned and refused, items padded with 0.
    """

    def __init__(
        self,
        count: int,
        max_length: int,
        sources: Tensor,
        listed: int,
        longest: int,
        table: ItemTable,
        *,
        tau: int | None,
        k: int,
        temperature: float,
        seed: int,
        share: float,
        drop: bool,
    ) -> None:
        self.count, self.max_length, self.table, self.sources = count, max_length, table, sources
        self.tau = None if tau is None else min(tau, table.num_items)  # no rank is larger
        self.k, self.drop, self.longest = min(k, table.num_items), drop, longest
        self.keys = signed(seed), signed(seed >> 32)
        device = sources.device
        # word < limit is what (word + 0.5) / 2**32 < share is
        limit = max(0, -int(-(share * 2.0**32 - 0.5) // 1))
        self.share = torch.tensor([limit], dtype=torch.int64, device=device)
        self.temperature = torch.tensor([temperature], dtype=torch.float64, device=device)

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self.width = _HEAD + max_length
        self.tasks, self.records = zeros(count, FRESH - 1), zeros(count, self.width, dtype=torch.int32)
        self.pending, self.kinds, self.above, self.ended = (zeros(count, dtype=torch.int32) for _ in range(4))
        self.newest, self.at, self.left, self.ends = (zeros(count) for _ in range(4))
        self.begins = torch.arange(count, device=device) * self.width + _HEAD
        self.offsets, self.open = zeros(count + 1), zeros(max(1, listed), dtype=torch.int32)

    def start(self, fresh: Tensor) -> None:
        """Give slots new trajectories: (n, FRESH) int64."""
        with launching():
            start_kernel[(len(fresh),)](
                fresh, self.tasks, self.records, self.pending, self.sources, self.width, BLOCK=64
            )

    def append(self) -> tuple[Tensor, Tensor]:
        """Take the pending items in; -> (count,) int64 the item that each trajectory now ends in, and its place."""
        tiles = {"BLOCK": 32, "BLOCK_L": 32, "enable_fp_fusion": True, "num_warps": 1}
        with launching():
            append_kernel[(self.count,)](
                self.tasks,
                self.records,
                self.pending,
                self.sources,
                self.share,
                self.newest,
                self.at,
                self.kinds,
                self.left,
                self.above,
                self.ends,
                self.width,
                self.max_length,
                *self.keys,
                NONE=NO_TARGET,
                **tiles,
            )
            torch.cumsum(self.left, 0, out=self.offsets[1:])
            list_kernel[(self.count,)](
                self.tasks, self.records, self.sources, self.kinds, self.offsets, self.open, self.width, **tiles
            )
        return self.newest, self.at

    def decide(self, queries: Tensor) -> Tensor:
        """Verify and draw by queries (count, d) float32; -> (count,) int32, whether each trajectory ends here."""
        table, device = self.table, queries.device
        scan = Scan.of(queries, table, picks=self.k, tau=self.tau)
        num_picks = scan.picks(self.k)
        maxima = torch.empty(self.count, scan.num_groups, dtype=torch.float32, device=device)
        if scan.phases > 1:
            maxima.fill_(-torch.inf)
        bars = None
        if self.tau is not None:
            best = scan.best_targets(queries, Lists(self.open, self.offsets))
            bars = Bars(best, self.above, scan.open_bits(queries))
        scan.run(table.scanning(queries), bars, maxima)
        if bars is not None:
            recount(queries, scan, bars)

        used = Lists(self.records.view(-1), self.begins, self.ends)
        bits = exclusion_bits(used, self.count, table.num_items, device)
        repair(queries, scan, maxima, bits, used)
        picks, bar = pick(maxima, num_picks)
        width = max(num_picks * scan.group, self.longest, self.k)
        keys = torch.empty(self.count, width, dtype=torch.int64, device=device)
        with launching():
            choices_kernel[(self.count, triton.cdiv(width, scan.plan.row_block_n))](
                queries,
                table.weights,
                picks,
                self.open,
                self.offsets,
                self.kinds,
                bits,
                keys,
                table.num_items,
                num_picks,
                bits.shape[1],
                width,
                GROUP=scan.group,
                **scan.plan.lone_rows(table.dim),
            )
        best = best_keys(keys, self.k)
        if not table.exact:
            draws = self.kinds == 4
            if self.tau is not None:
                draws &= self.above < self.tau
            complete(queries, scan, maxima, bar, best, bits, ~draws)
        with launching():
            settle_kernel[(self.count,)](
                self.tasks,
                self.records,
                self.pending,
                self.kinds,
                self.above,
                best,
                self.temperature,
                self.ended,
                self.width,
                self.k,
                self.tau or 0,
                *self.keys,
                CHECKED=self.tau is not None,
                DROP=self.drop,
                GREEDY=self.k == 1,
                BLOCK=triton.next_power_of_2(self.k),
                enable_fp_fusion=True,
                num_warps=1,
            )
        return self.ended

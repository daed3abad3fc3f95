"""Compiled core: scoring, ranking and sampling over a packed catalogue. Arrays must be C-contiguous and of the very
dtype given; anything else is a ValueError. The meaning of each op is documented in :mod:`rsir.ops`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Lists = tuple[NDArray[np.int32], NDArray[np.int64]]
"""ids (nnz,) and offsets (B + 1,): row b owns ids[offsets[b]:offsets[b + 1]]."""

_Added = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]
"""ids (nnz,), ascending within a row, offsets (B + 1,) and values (nnz,)."""

_Filter = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float, float]
"""Of a layer: distances (heads, L), beta (d,), norm weight and bias (d,), share and decay."""

class PackedTable:
    """Item embeddings laid out for one instruction set. ``weights`` (N + 1, d) is kept by reference; with ``half``,
    float32 or the bits of float16, it is not. Where the instruction set has products of bytes, codes of eight bits are
    made of it once enough rows are scanned, with ``screen_always`` by the first one."""

    def __init__(
        self,
        weights: NDArray[np.float32] | NDArray[np.uint16],
        instruction_set: str,
        half: bool = False,
        screen_always: bool = False,
    ) -> None: ...
    @property
    def num_items(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes of the packed copy."""

    @property
    def rows_screened(self) -> int:
        """Rows of scans whose answers codes of eight bits proved, all but a few exact logits."""

    @property
    def instruction_set(self) -> str: ...

def instruction_sets() -> list[str]:
    """Instruction sets usable here, best first."""

def rank_within(
    table: PackedTable,
    queries: NDArray[np.float32],
    targets: _Lists,
    tau: int,
    threads: int,
    added: _Added | None = None,
) -> NDArray[np.int64]: ...
def count_above(
    table: PackedTable,
    queries: NDArray[np.float32],
    bars: NDArray[np.float32],
    limit: int,
    threads: int,
    added: _Added | None = None,
) -> NDArray[np.int64]: ...
def place_within(
    table: PackedTable,
    queries: NDArray[np.float32],
    targets: NDArray[np.int32],
    excluded: _Lists | None,
    tau: int,
    threads: int,
    added: _Added | None = None,
) -> NDArray[np.int64]: ...
def topk(
    table: PackedTable,
    queries: NDArray[np.float32],
    k: int,
    excluded: _Lists | None,
    threads: int,
    added: _Added | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
def topk_sample(
    table: PackedTable,
    queries: NDArray[np.float32],
    k: int,
    temperature: float,
    excluded: _Lists | None,
    seed: int,
    counters: NDArray[np.int64],
    threads: int,
    added: _Added | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
def pool_sample(
    table: PackedTable,
    queries: NDArray[np.float32],
    pool: _Lists,
    k: int,
    temperature: float,
    excluded: _Lists | None,
    seed: int,
    counters: NDArray[np.int64],
    threads: int,
    added: _Added | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
def rank_and_sample(
    table: PackedTable,
    queries: NDArray[np.float32],
    targets: _Lists,
    tau: int,
    k: int,
    temperature: float,
    excluded: _Lists | None,
    seed: int,
    counters: NDArray[np.int64],
    threads: int,
    added: _Added | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]: ...
def rank_and_topk(
    table: PackedTable,
    queries: NDArray[np.float32],
    targets: _Lists,
    tau: int,
    k: int,
    excluded: _Lists | None,
    threads: int,
    added: _Added | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]: ...
def logits_of(table: PackedTable, queries: NDArray[np.float32], lists: _Lists, threads: int) -> NDArray[np.float32]: ...
def neighbour_votes(
    graph: NDArray[np.int32], items: NDArray[np.int32], sources: _Lists, threads: int
) -> NDArray[np.int64]: ...
def sampled_softmax(
    queries: NDArray[np.float32],
    positives: NDArray[np.float32],
    negatives: NDArray[np.float32],
    targets: NDArray[np.int64],
    negative_ids: NDArray[np.int64],
    weights: NDArray[np.float32],
    target_offsets: NDArray[np.float32] | None,
    negative_offsets: NDArray[np.float32] | None,
    threads: int,
    instruction_set: str,
    bfloat16: bool = False,
) -> tuple[float, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]: ...
def full_softmax(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    targets: NDArray[np.int64],
    weights: NDArray[np.float32],
    threads: int,
    instruction_set: str,
    bfloat16: bool = False,
) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]: ...
def layer_forward(
    x: NDArray[np.float32],
    segments: NDArray[np.int64],
    parameters: Sequence[NDArray[np.float32]],
    bytes: Sequence[NDArray[np.uint8]] | None,
    filter: _Filter | None,
    heads: int,
    dropped: int,
    epsilon: float,
    threads: int,
    instruction_set: str,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The output, and what layer_backward needs."""

def layer_backward(
    x: NDArray[np.float32],
    segments: NDArray[np.int64],
    parameters: Sequence[NDArray[np.float32]],
    bytes: Sequence[NDArray[np.uint8]] | None,
    filter: _Filter | None,
    heads: int,
    dropped: int,
    epsilon: float,
    threads: int,
    instruction_set: str,
    saved: NDArray[np.float32],
    grad_y: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The gradients of x and, one after the other in one array, of the parameters."""

def adam_rows(
    weights: NDArray[np.float32],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    last: NDArray[np.int32] | None,
    ids: NDArray[np.int64] | None,
    gradients: NDArray[np.float32] | None,
    step: int,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    average: NDArray[np.float32] | None,
    decay: float,
    padding: int,
    threads: int,
    instruction_set: str,
) -> None:
    """A step of Adam on the rows that ids name, or, without gradients, what steps without any do to them.

    Row number padding has no gradient; -1: there is none. Without last a step of the whole table, with gradients of the
    rows that ids name or, without these, of all.
    """

def encode(
    items: NDArray[np.int32],
    offsets: NDArray[np.int64],
    table: NDArray[np.float32],
    positions: NDArray[np.float32] | None,
    layers: Sequence[Sequence[NDArray[np.float32]]],
    filters: Sequence[_Filter] | None,
    heads: int,
    epsilon: float,
    threads: int,
    instruction_set: str,
) -> NDArray[np.float32]:
    """What the layers give at the last item of each history."""

def step(
    slots: NDArray[np.int64],
    items: NDArray[np.int64],
    at: NDArray[np.int64],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    low: NDArray[np.float32] | None,
    table: NDArray[np.float32],
    positions: NDArray[np.float32] | None,
    layers: Sequence[Sequence[NDArray[np.float32]]],
    filters: Sequence[_Filter] | None,
    heads: int,
    epsilon: float,
    threads: int,
    instruction_set: str,
) -> NDArray[np.float32]:
    """The same after one more item; keys and values, (layers, slots, heads, width, d / heads), grow in place."""

def measure_fma(instruction_set: str, threads: int, seconds: float) -> float:
    """Multiply-adds in registers: floating point operations per second of running, summed over threads."""

def measure_read(threads: int, bytes: int) -> float:
    """Bytes a second that the threads read, each from a buffer of its own."""

class ItemKnn:
    """Of each item, those that go with it: item i owns entries offsets[i] .. offsets[i + 1] - 1, by ascending id."""

    def __init__(self, ids: NDArray[np.int32], values: NDArray[np.float32], offsets: NDArray[np.int64]) -> None: ...
    @staticmethod
    def fit(
        items: NDArray[np.int32],
        offsets: NDArray[np.int64],
        num_items: int,
        window: int,
        decay: float,
        backward: float,
        history_exponent: float,
        item_exponent: float,
        neighbours: int,
        threads: int,
    ) -> ItemKnn: ...
    @property
    def num_items(self) -> int: ...
    @property
    def ids(self) -> NDArray[np.int32]: ...
    @property
    def values(self) -> NDArray[np.float32]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    def score(
        self,
        items: NDArray[np.int32],
        begins: NDArray[np.int64],
        ends: NDArray[np.int64],
        decay: float,
        newest: int,
        most: int,
        without_own: bool,
        threads: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
        """Items, their shares, and offsets (rows + 1,), for each history items[begins[r]:ends[r]]."""
    def ranks_unseen(
        self,
        occurrences: NDArray[np.int64],
        own: NDArray[np.int32],
        own_offsets: NDArray[np.int64],
        histories: NDArray[np.int32],
        history_offsets: NDArray[np.int64],
        targets: NDArray[np.int32],
        target_offsets: NDArray[np.int64],
        window: int,
        decay: float,
        backward: float,
        history_exponent: float,
        item_exponent: float,
        age_decay: float,
        newest: int,
        tau: int,
        threads: int,
    ) -> NDArray[np.int64]:
        """(rows,) the rank, at most tau + 1, of the best target of each row, its own sequence left out of the count."""

def assign_rows(lengths: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]: ...
def fill_rows(
    items: NDArray[np.int32],
    ends: NDArray[np.int64],
    lengths: NDArray[np.int64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    weight: NDArray[np.float32],
    grid: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> None: ...
def soften_rows(
    ids: NDArray[np.int32],
    cumulative: NDArray[np.float32],
    share: float,
    numbers: NDArray[np.float64],
    ends: NDArray[np.int64],
    lengths: NDArray[np.int64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> None: ...
def near_points(points: NDArray[np.float64], reach: float) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...
def draw_genres(
    users: NDArray[np.int64],
    uniform: NDArray[np.float64],
    points: NDArray[np.float64],
    home: NDArray[np.int32],
    centres: NDArray[np.float64],
    offsets: NDArray[np.int64],
    ids: NDArray[np.int32],
    concentration: float,
) -> NDArray[np.int64]: ...
def find_repeats(
    users: NDArray[np.int64],
    drawn: NDArray[np.int32],
    step: int,
    items: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> NDArray[np.bool_]: ...

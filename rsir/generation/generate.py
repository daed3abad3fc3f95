"""Bounded exploration: the current model generates sequences for each user, checked step by step (RSIR, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from rsir.config import GenerationConfig
from rsir.config.values import choice, require
from rsir.data.sequences import Sequences, offsets_of, ragged_indices
from rsir.errors import GenerationError
from rsir.generation.decoding import Found
from rsir.generation.fidelity import Fidelity
from rsir.generation.on_device import engine_of
from rsir.generation.stats import GenerationStats
from rsir.generation.times import are_timed, with_times
from rsir.models.protocol import Backbone
from rsir.ops import ItemTable
from rsir.runtime import memory
from rsir.runtime.memory import first_line, out_of_memory
from rsir.runtime.progress import Progress
from rsir.runtime.resume import NO_CHECKPOINTS, Checkpoints, Snapshot
from rsir.runtime.runtime import RUNTIME, Runtime
from rsir.runtime.world import World

__all__ = ["Generated", "generate"]

_ARRAYS = ("items", "offsets", "source", "round")


@dataclass(frozen=True)
class Generated:
    """Verified trajectories and how they came about.

    Attributes
    ----------
    trajectories : Sequences
        Generated rows alone, ordered by source row and trajectory number; join them to their sources with
        ``Sequences.concat``. They have times (:mod:`rsir.generation.times`) if the model uses them and the sources do.
    stats : GenerationStats
    """

    trajectories: Sequences
    stats: GenerationStats


@torch.no_grad()
def generate(
    model: Backbone,
    sources: Sequences,
    config: GenerationConfig,
    fidelity: Fidelity,
    *,
    seed: int,
    round_: int,
    table: ItemTable | None = None,
    checkpointer: Checkpoints = NO_CHECKPOINTS,
    numbers: npt.NDArray[np.int64] | None = None,
    runtime: Runtime = RUNTIME,
) -> Generated:
    """Generate and verify ``config.m`` trajectories for every row of ``sources``.

    Parameters
    ----------
    model : Backbone
        The generator; the incremental part of the protocol is used where it is offered.
    sources : Sequences
        Rows to start from. Rows with fewer than 2 different items have nothing to be verified against and
        generate nothing.
    config : GenerationConfig
    fidelity : Fidelity
        Bound to the same model; see :func:`rsir.generation.fidelity.build`.
    seed : int
        0..2**64 - 1.
    round_ : int
        1..32767; marks the trajectories and keys their random numbers.
    table : ItemTable, optional
        The model's items where they are packed already, or are to be of half precision
        (:func:`rsir.models.pack_items`), or to be scored by a backend of choice; default: ``fidelity.table``, or packed
        here.
    checkpointer : Checkpoints, optional
        Where to save finished trajectories now and then; those that are there already are not decoded again. Several
        processes share one folder.
    numbers : (n,) int64, optional
        Numbers of the rows of ``sources``, where they are some of a larger set: their rows there. Random numbers are
        keyed by them, so that the rows generate what they would there.
    runtime : Runtime, optional
        Threads of the scoring ops, the processes that divide the sources, and who is told of the number of finished
        trajectories.

    Returns
    -------
    Generated

    Raises
    ------
    ConfigError
        `seed`, `round_` or the policy's `on_fail` out of range.
    ValueError
        If the sources have more items than the model, or ``table`` is not what the index of ``fidelity`` was built of.
    GenerationError
        Memory ran out.
    Interrupted
        ``runtime.stop`` asked for it; finished trajectories were saved before.
    RunError
        They cannot be saved.
    """
    world = runtime.world
    choice("on_fail", fidelity.on_fail, ("drop", "keep"))
    require(1 <= round_ < 2**15, "round_", "in 1..32767", round_)
    require(0 <= seed < 2**64, "seed", "in 0..2**64 - 1", seed)
    if sources.num_items != model.num_items:
        raise ValueError(
            f"sources: expected a catalogue of {model.num_items} items as the model's, got {sources.num_items}"
        )
    rows = _with_two_items(sources)
    shards, done = _finished(checkpointer, sources) if world.is_main else ([], 0)
    done, size = world.broadcast_object(lambda: [done, _sources_at_once(model, config)])
    if done:
        shards = [_first_ones(world, lambda: _together(shards), sources)]
    rows, total = rows[np.searchsorted(rows, done) :], len(rows) * config.m
    # Decoding is many small tensors: torch's threads gain nothing on them (2.05 s for Toys with one or two) and stall
    # for each other on a busy machine. The scoring ops have threads of their own.
    torch_threads = torch.get_num_threads()
    threads = torch_threads if runtime.threads is None else runtime.threads
    torch.set_num_threads(1)
    try:
        for first in range(0, max(len(rows), 1), size):
            before = total - (len(rows) - first) * config.m
            engine = engine_of(
                model,
                sources,
                rows[first : first + size],
                config,
                fidelity,
                seed=seed,
                round_=round_,
                table=table,
                numbers=numbers,
                runtime=replace(runtime, threads=threads, progress=_further(runtime.progress, before, total)),
            )
            found = engine.run(checkpointer)
            del engine
            shards.append(_gathered(_filtered(found, sources, config), sources, round_, world))
            if first + size < len(rows) and world.is_main:
                end = int(rows[first + size])
                _keep(checkpointer, shards[-1], done, end)
                done = end
            del found
            memory.release()
    except (MemoryError, RuntimeError) as cause:
        if not out_of_memory(cause):
            raise
        raise GenerationError(
            f"out of memory while generating ({first_line(cause)}); resume with --resume and a generation.slots lower "
            f"than {config.slots}"
        ) from cause
    finally:
        torch.set_num_threads(torch_threads)
    together = _together(shards)
    if are_timed(model, sources):
        together = replace(together, trajectories=with_times(together.trajectories, sources))
    return together


def _sources_at_once(model: Backbone, config: GenerationConfig) -> int:
    """From how many sources trajectories are held padded; the others wait, or are filtered already."""
    limit = memory.current()
    if limit is None:
        return 2**62
    a_trajectory = 20 * model.max_len + 256  # in parts, joined, in order, and as keys to find duplicates by
    return max(1, limit.left({}) // 4 // (a_trajectory * config.m))


def _further(progress: Progress, before: int, of: int) -> Progress:
    """Progress of a shard as that of the whole."""

    def report(phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
        progress(phase, before + done, of, unit, note)

    return report


def _keep(checkpointer: Checkpoints, shard: Generated, begin: int, end: int) -> None:
    """Save what came of rows ``begin`` to ``end - 1``, in the place of single trajectories."""
    values = {**asdict(shard.stats), "begin": begin, "end": end}
    checkpointer.save("shard", lambda: _to_saved(shard.trajectories, values))
    checkpointer.remove("trajectories")


def _finished(checkpointer: Checkpoints, sources: Sequences) -> tuple[list[Generated], int]:
    """Shards that are there already, and the row before which they hold all that comes of the sources."""
    found: dict[int, tuple[Generated, int]] = {}
    for saved in checkpointer.load("shard"):
        trajectories, values = _from_saved(saved, sources)
        begin, end = values.pop("begin"), values.pop("end")
        found.setdefault(begin, (Generated(trajectories, GenerationStats(**values)), end))
    shards, begin = [], 0
    while begin in found:
        shard, begin = found[begin]
        shards.append(shard)
    return shards, begin


def _together(shards: list[Generated]) -> Generated:
    trajectories = Sequences.concat(*(shard.trajectories for shard in shards))
    return Generated(trajectories, sum((shard.stats for shard in shards), GenerationStats()))


def _first_ones(world: World, make: Callable[[], Generated], sources: Sequences) -> Generated:
    """What the first process makes, for all."""

    def decode(content: bytes) -> Generated:
        trajectories, values = _from_saved(Snapshot.from_bytes(content), sources)
        return Generated(trajectories, GenerationStats(**values))

    return world.broadcast_object(
        make,
        lambda generated: _to_saved(generated.trajectories, asdict(generated.stats)).to_bytes(),
        decode,
    )


def _to_saved(trajectories: Sequences, values: dict[str, int]) -> Snapshot:
    return Snapshot({name: torch.tensor(getattr(trajectories, name)) for name in _ARRAYS}, values)


def _from_saved(saved: Snapshot, sources: Sequences) -> tuple[Sequences, dict[str, int]]:
    items, offsets, source, round_ = (saved.tensors[name].numpy() for name in _ARRAYS)
    trajectories = Sequences(
        items=items,
        offsets=offsets,
        num_items=sources.num_items,
        source=source,
        round=round_,
        item_labels=sources.item_labels,
        user_labels=sources.user_labels,
    )
    return trajectories, dict(saved.values)


@dataclass(frozen=True)
class _Kept:
    """Trajectories that are kept, in the order of source rows: (n,) source row and length of each, and the items."""

    row: np.ndarray
    lengths: np.ndarray
    items: np.ndarray
    stats: GenerationStats


def _filtered(found: Found, sources: Sequences, config: GenerationConfig) -> _Kept:
    """Drop what is too short, a copy of its row's beginning, or the same as an earlier one from its row."""
    decoded = len(found.row)
    long_enough = found.lengths >= config.min_length
    copy = np.zeros(decoded, bool)
    if not config.keep_copies:
        some = np.flatnonzero(long_enough)
        copy[some] = _is_prefix(found.row[some], found.items[some], found.lengths[some], sources)
    kept = np.flatnonzero(long_enough & ~copy)
    # Rows of bytes compare as wholes; padding is 0, which no item is, so lengths need no comparing.
    key = np.column_stack([found.row[kept].view(np.int32).reshape(-1, 2), found.items[kept]])
    first = np.unique(key.view(f"V{key.strides[0]}")[:, 0], return_index=True)[1] if len(kept) else kept
    unique = kept[np.sort(first)]
    lengths = found.lengths[unique]
    stats = GenerationStats(
        decoded=decoded,
        refused=int(found.refused.sum()),
        scanned=int(found.scanned.sum()),
        scanned_refused=int(found.scanned_refused.sum()),
        too_short=int((~long_enough).sum()),
        copies=int(copy.sum()),
        duplicates=len(kept) - len(unique),
    )
    items = found.items[unique][np.arange(found.items.shape[1]) < lengths[:, None]]
    return _Kept(found.row[unique], lengths, items, stats)


def _gathered(own: _Kept, sources: Sequences, round_: int, world: World) -> Generated:
    """What all processes kept; every source's trajectories are one process's."""
    counts = np.array([astuple(own.stats)])
    parts = world.all_gather(*(torch.from_numpy(part) for part in (own.row, own.lengths, own.items, counts)))
    row, lengths, items, counts = (part.numpy() for part in parts)
    order = np.argsort(row, kind="stable")
    begin = offsets_of(lengths)[order]
    lengths = lengths[order]
    trajectories = Sequences(
        items=items[ragged_indices(begin, lengths)],
        offsets=offsets_of(lengths),
        num_items=sources.num_items,
        source=sources.source[row[order]],
        round=np.full(len(row), round_, np.int16),
        item_labels=sources.item_labels,
        user_labels=sources.user_labels,
    )
    return Generated(trajectories, GenerationStats(*counts.sum(0).tolist()))


def _is_prefix(row: np.ndarray, items: np.ndarray, lengths: np.ndarray, sources: Sequences) -> np.ndarray:
    """(T,) bool: whether a trajectory, items padded (T, L), equals the beginning of its source."""
    place, begin = np.arange(items.shape[1]), sources.offsets[row]
    equal = lengths <= sources.offsets[row + 1] - begin
    for some in memory.blocks(len(row), items.shape[1]):
        at = np.minimum(begin[some, None] + place, len(sources.items) - 1)
        inside = place < lengths[some, None]
        equal[some] &= ((sources.items[at] == items[some]) | ~inside).all(axis=1)
    return equal


def _with_two_items(sources: Sequences) -> np.ndarray:
    """(n,) int64: rows that hold at least two different items."""
    differs = np.zeros(len(sources), bool)
    for rows in memory.row_blocks(sources.offsets):
        offsets = sources.offsets[rows.start : rows.stop + 1]
        row = np.repeat(np.arange(rows.start, rows.stop), np.diff(offsets))
        differs[row[sources.items[offsets[0] : offsets[-1]] != sources.items[sources.offsets[row]]]] = True
    return np.flatnonzero(differs)

"""Bounded exploration: the current model generates sequences for each user, checked step by step (RSIR, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from .config import GenerationConfig
from .data.sequences import Sequences, offsets_of
from .decoding import Engine, Found
from .distributed import ALONE, World
from .fidelity import Fidelity
from .memory import first_line, out_of_memory
from .models.protocol import Backbone
from .ops import PackedItems
from .partial import Partial, Saved
from .progress import Progress, silent

__all__ = ["Generated", "GenerationError", "from_bytes", "generate", "to_bytes"]

_ARRAYS = ("items", "offsets", "source", "round")


class GenerationError(ValueError):
    """Generation cannot go on; the message says why."""


@dataclass(frozen=True)
class Generated:
    """Verified trajectories and how they came about.

    Attributes
    ----------
    trajectories : Sequences
        Generated rows alone, ordered by source row and trajectory number; join them to their sources with
        ``Sequences.concat``.
    decoded : int
        Trajectories decoded.
    refused : int
        Trajectories that the fidelity check ended.
    scanned, scanned_refused : int
        Rank verdicts by exact scan, counted for every trajectory, and how many of them were refusals. Where unproved
        verdicts are trusted (``fidelity.verify="trust"``) the scanned are a sample of them: the quotient is the share
        wrongly trusted.
    too_short, copies, duplicates : int
        Trajectories dropped for their length, as a prefix of their source, or as equal to an earlier one of the
        same source.
    """

    trajectories: Sequences
    decoded: int
    refused: int
    scanned: int
    scanned_refused: int
    too_short: int
    copies: int
    duplicates: int


@torch.no_grad()
def generate(
    model: Backbone,
    sources: Sequences,
    config: GenerationConfig,
    fidelity: Fidelity,
    *,
    seed: int,
    round_: int,
    on_fail: str = "drop",
    table: PackedItems | None = None,
    backend: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
    partial: Partial | None = None,
    world: World = ALONE,
    numbers: npt.NDArray[np.int64] | None = None,
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
        Bound to the same model; see :func:`rsir.fidelity.build`.
    seed : int
        0..2**64 - 1.
    round_ : int
        1 or more; marks the trajectories and keys their random numbers.
    on_fail : {"drop", "keep"}
        Whether the generated item that failed the check is taken off again (the paper) or stays (the authors'
        code).
    table : PackedItems, optional
        The model's items where they are packed already, or are to be of half precision
        (:func:`rsir.models.packed_items`); default: those of ``fidelity``'s index, or packed here.
    backend, threads
        As for :func:`rsir.ops.topk`.
    progress : Progress
        Called with the number of finished trajectories.
    partial : Partial, optional
        Where to save finished trajectories now and then; those that are there already are not decoded again.
    world : World, optional
        Processes that call this together, with the same arguments and a folder that they share: they divide the
        sources, and each returns what one process would.
    numbers : (n,) int64, optional
        Of the rows of ``sources``, where they are some of a larger set: their rows there. Random numbers are keyed by
        them, so that the rows generate what they would there.

    Returns
    -------
    Generated

    Raises
    ------
    ValueError
        If the sources have more items than the model, ``table`` is not what the index of ``fidelity`` was built of, or
        there are several processes and no folder.
    GenerationError
        Memory ran out.
    Interrupted, RunError
        As of ``partial``.
    """
    if sources.num_items != model.num_items:
        raise ValueError(
            f"sources: expected a catalogue of {model.num_items} items as the model's, got {sources.num_items}"
        )
    # Decoding is many small tensors: torch's threads gain nothing on them (2.05 s for Toys with one or two) and stall
    # for each other on a busy machine. The scoring ops have threads of their own.
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engine = Engine(
            model,
            sources,
            config,
            fidelity,
            seed=seed,
            round_=round_,
            drop=on_fail == "drop",
            table=table,
            backend=backend,
            threads=torch_threads if threads is None else threads,
            world=world,
            numbers=numbers,
        )
        found = engine.run(progress, partial)
    except (MemoryError, RuntimeError) as cause:
        if not out_of_memory(cause):
            raise
        raise GenerationError(
            f"out of memory while generating ({first_line(cause)}); go on with --resume and a generation.slots lower "
            f"than {config.slots}"
        ) from cause
    finally:
        torch.set_num_threads(torch_threads)
    return world.share(
        lambda: _filtered(cast(Found, found), sources, config, round_),
        lambda generated: to_bytes(generated.trajectories, **_counts(generated)),
        lambda content: _generated(*from_bytes(content, sources)),
    )


def _generated(trajectories: Sequences, counts: dict[str, int]) -> Generated:
    return Generated(trajectories, **counts)


def _counts(generated: Generated) -> dict[str, int]:
    return {name: value for name, value in vars(generated).items() if name != "trajectories"}


def to_bytes(trajectories: Sequences, **values: int) -> bytes:
    """Trajectories without labels, and numbers that go with them, for another process."""
    arrays = {name: torch.tensor(getattr(trajectories, name)) for name in _ARRAYS}
    return Saved(arrays, values).to_bytes()


def from_bytes(content: bytes, sources: Sequences) -> tuple[Sequences, dict[str, int]]:
    """What :func:`to_bytes` was given; labels are those of the sources."""
    saved = Saved.from_bytes(content)
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


def _filtered(found: Found, sources: Sequences, config: GenerationConfig, round_: int) -> Generated:
    """Drop what is too short, a copy of its source's beginning, or the same as an earlier one of its source."""
    decoded = len(found.row)
    long_enough = found.lengths >= config.min_length
    copy = np.zeros(decoded, bool)
    if not config.keep_copies:
        some = np.flatnonzero(long_enough)
        copy[some] = _is_prefix(found.row[some], found.items[some], found.lengths[some], sources)
    kept = np.flatnonzero(long_enough & ~copy)
    # Rows of bytes compare as wholes; padding is 0, which no item is, so lengths need no comparing.
    key = np.ascontiguousarray(np.column_stack([found.row[kept], found.items[kept]]))
    first = np.unique(key.view(f"V{key.strides[0]}")[:, 0], return_index=True)[1] if len(kept) else kept
    unique = kept[np.sort(first)]
    lengths = found.lengths[unique]
    trajectories = Sequences(
        items=found.items[unique][np.arange(found.items.shape[1]) < lengths[:, None]],
        offsets=offsets_of(lengths),
        num_items=sources.num_items,
        source=sources.source[found.row[unique]],
        round=np.full(len(unique), round_, np.int16),
        item_labels=sources.item_labels,
        user_labels=sources.user_labels,
    )
    return Generated(
        trajectories,
        decoded=decoded,
        refused=int(found.refused.sum()),
        scanned=int(found.scanned.sum()),
        scanned_refused=int(found.scanned_refused.sum()),
        too_short=int((~long_enough).sum()),
        copies=int(copy.sum()),
        duplicates=len(kept) - len(unique),
    )


def _is_prefix(row: np.ndarray, items: np.ndarray, lengths: np.ndarray, sources: Sequences) -> np.ndarray:
    """(T,) bool: whether a trajectory, items padded (T, L), equals the beginning of its source."""
    place = np.arange(items.shape[1])
    at = sources.offsets[row][:, None] + place
    there = np.append(sources.items, 0)[np.minimum(at, len(sources.items))]
    inside = place < lengths[:, None]
    fits = lengths <= sources.lengths[row]
    return fits & np.where(inside, there == items, True).all(axis=1)

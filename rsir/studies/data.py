"""What the training set becomes, round by round: density, regularity, novelty, popularity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rsir.config import RecursionConfig
from rsir.data.sequences import Sequences
from rsir.studies.lab import Lab
from rsir.studies.recipes import fixed, paper, reset

__all__ = ["approximate_entropy", "arms", "density", "popularity_share", "run"]


def arms(config: RecursionConfig) -> list[str]:
    """None to choose: the study has all of its arms."""
    return []


def run(lab: Lab, rounds: int) -> None:
    """Statistics of every round's training set under the default recipe, with a fixed tau, and under the paper's."""
    lab.record_base()
    for arm, make in {"rsir": reset, "rsir, fixed tau": fixed, "paper": paper}.items():
        recipe = make(lab.config)
        done = lab.recursion(arm, replace(recipe, rounds=rounds))
        assert done.path is not None
        train = lab.parts.train
        acquired: list[Sequences] = []
        for result in done.rounds[: rounds + 1]:
            if result.round > 0:
                new = Sequences.load(done.path / f"round-{result.round:02d}" / "trajectories.parquet")
                acquired = [*acquired, new] if recipe.accumulate else [new]
            whole = Sequences.concat(train, *acquired)
            lab.note(
                arm,
                result.round,
                done.config,
                density=density(whole),
                approximate_entropy=approximate_entropy(whole),
                novel_share=result.novel_share,
                popular_share=popularity_share(whole, train),
            )


def density(sequences: Sequences) -> float:
    """Share of the (user, item) pairs that occur, the trajectories of a user counted as the user's."""
    pairs = np.repeat(sequences.source, sequences.lengths) * (sequences.num_items + 1) + sequences.items
    return len(np.unique(pairs)) / (sequences.num_real * sequences.num_items)


def approximate_entropy(sequences: Sequences, length: int = 1) -> float:
    """Approximate entropy (Pincus 1991) of symbols: how unsure the next item is, given the ``length`` before it.

    The entropy of runs of ``length + 1`` items less that of runs of ``length``, over the runs that have a next item,
    in nats; lower is more regular. Items match only themselves, which is Pincus's tolerance of 0.
    """
    starts = np.flatnonzero(
        np.arange(len(sequences.items)) + length < np.repeat(sequences.offsets[1:], sequences.lengths)
    )
    runs = np.stack([sequences.items[starts + i] for i in range(length + 1)], axis=1)
    return _entropy(runs) - _entropy(runs[:, :length])


def popularity_share(sequences: Sequences, real: Sequences, top: float = 0.01) -> float:
    """Share of the interactions that fall on the ``top`` most popular part of the catalogue in the real sequences."""
    counts = np.bincount(real.items, minlength=real.num_items + 1)
    popular = np.argsort(-counts, kind="stable")[: max(1, round(top * real.num_items))]
    return float(np.isin(sequences.items, popular).mean())


def _entropy(rows: np.ndarray) -> float:
    counts = np.unique(rows, axis=0, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())

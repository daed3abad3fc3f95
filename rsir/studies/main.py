"""What the recursion gains, beside simpler ways to enlarge the data and beside spending the same on the base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rsir.config import RecursionConfig
from rsir.data.sequences import Sequences, offsets_of
from rsir.generation.neighbours import neighbour_graph
from rsir.models import Ensemble
from rsir.studies.lab import RETAINED, Lab
from rsir.studies.lines import BASES
from rsir.studies.recipes import paper, reset

__all__ = ["arms", "inserted", "reordered", "run"]


def arms(config: RecursionConfig) -> list[str]:
    """What ``--arms`` may name."""
    bases = [BASES[2], BASES[4]]
    return ["rsir", *bases, "one round, two seeds", "count", "paper", "paper, fine-tuned", "reordering", "insertion"]


def run(lab: Lab, rounds: int) -> None:
    """Every arm for one data set, backbone and seed; one round of those that the recursion is compared with."""
    ours = replace(reset(lab.config), rounds=rounds)
    authors = replace(paper(lab.config), rounds=1)
    train, seed = lab.parts.train, lab.config.seed
    lab = replace(lab, counting=lab.wants("count"))
    lab.record_base()
    if lab.counting:
        lab.record_count()
    if lab.wants("rsir"):
        lab.recursion("rsir", ours, policies=RETAINED)
    for count in (2, 4):  # beside a round, and beside three
        if lab.wants(BASES[count]):
            lab.record_bases(count)
    if lab.wants(arm := "one round, two seeds"):  # as many networks as three rounds
        lab.record(arm, 1, Ensemble(lab.lineages(arm, ours, 2)), ours)
    if lab.wants("paper"):
        lab.recursion("paper", authors)
    if lab.wants("paper, fine-tuned"):
        lab.recursion("paper, fine-tuned", replace(authors, successor="finetune"))
    if lab.wants("reordering"):
        lab.training("reordering", lambda: Sequences.concat(train, reordered(train, seed)))
    if lab.wants("insertion"):
        lab.training("insertion", lambda: Sequences.concat(train, inserted(train, lab, seed)))


def reordered(train: Sequences, seed: int) -> Sequences:
    """Each sequence once more, its items in random order."""
    row = np.repeat(np.arange(len(train)), train.lengths)
    order = np.lexsort((np.random.default_rng([seed, 1]).random(len(row)), row))
    return _generated(train, train.items[order], train.lengths)


def inserted(train: Sequences, lab: Lab, seed: int) -> Sequences:
    """Each sequence once more, after a fifth of its items (at least one) the base's nearest neighbour of the item."""
    near = neighbour_graph(lab.base().model.item_embeddings().detach(), 1)[:, 0]
    row = np.repeat(np.arange(len(train)), train.lengths)
    order = np.lexsort((np.random.default_rng([seed, 2]).random(len(row)), row))
    place = np.arange(len(row)) - np.repeat(train.offsets[:-1], train.lengths)
    chosen = np.zeros(len(row), bool)
    chosen[order] = place < np.maximum(1, train.lengths // 5)[row]
    items = np.repeat(train.items, 1 + chosen)
    new = np.flatnonzero(chosen) + np.arange(1, chosen.sum() + 1)
    items[new] = near[train.items[chosen]]
    return _generated(train, items, train.lengths + np.bincount(row[chosen], minlength=len(train)))


def _generated(train: Sequences, items: np.ndarray, lengths: np.ndarray) -> Sequences:
    return Sequences(
        items=items.astype(np.int32),
        offsets=offsets_of(lengths),
        num_items=train.num_items,
        source=train.source,
        round=np.ones(len(lengths), np.int16),
        item_labels=train.item_labels,
        user_labels=train.user_labels,
    )

"""Generated sequences have times by one convention, and are drawn by a model that is told them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from rsir.config import AcquisitionConfig, FidelityConfig, GenerationConfig, ModelConfig
from rsir.data import Sequences
from rsir.data.ragged import Timed
from rsir.generation.enrich import enrich
from rsir.generation.times import times_at, with_times
from rsir.models import Ensemble, build, encode_sequences
from tests.models.timed import ITEMS, MAX_LEN, sequences, timed_model

GENERATION = GenerationConfig(m=2, p=0.5, k=1, min_length=2)
FREE = FidelityConfig(policy="off")


def test_a_place_has_the_time_of_its_source():
    sources = Sequences.from_lists(
        [[1, 2, 3], [4], [5, 6]], 9, times=[10, 20, 40, 7, 100, 101], source=[0, 1, 0], round=[0, 0, 1]
    )
    places = np.arange(5)
    assert times_at(sources, np.array([[0], [1]]), places).tolist() == [[10, 20, 40, 55, 70], [7, 7, 7, 7, 7]]
    assert times_at(sources, np.array([2]), places).tolist() == [10, 20, 40, 55, 70]  # of the real one
    made = Sequences.from_lists([[9, 8, 7, 6], [2, 1]], 9, source=[0, 1], round=[1, 1])
    assert with_times(made, sources).times.tolist() == [10, 20, 40, 55, 7, 7]


def test_times_do_not_leave_int64():
    year = 365 * 86_400 * 10**9  # in nanoseconds
    times = [40 * year, 54 * year, -(2**63), 2**63 - 1]
    sources = Sequences.from_lists([[1, 2], [3, 4]], 9, times=times)
    made = Sequences.from_lists([[1, 2] + [3] * 48] * 2, 9, source=[0, 1], round=[1, 1])
    found = with_times(made, sources).times.reshape(2, 50)
    assert (np.diff(found[0]) >= 0).all()
    assert found[0, :18].tolist() == [(40 + 14 * place) * year for place in range(18)]
    assert found[0, 18] == found[0, 49]
    assert found[1, 1:].tolist() == [2**63 - 1] * 49


class Encodes:
    """The model without ``step``: what generation encodes anew."""

    uses_times = True

    def __init__(self, model):
        self.num_items, self.max_len = model.num_items, model.max_len
        self.encode, self.item_embeddings = model.encode, model.item_embeddings


def everything(data, model, generation=GENERATION, fidelity=FREE, **options):
    return enrich(data, model, generation=generation, fidelity=fidelity, acquisition=AcquisitionConfig(), **options)


def test_items_are_drawn_by_their_times():
    """Every item is the best that the model knows after those before it, at the times of their places."""
    model, data = timed_model(), sequences()
    found = everything(data, model)
    generated = np.flatnonzero(~found.is_real)
    assert len(generated) > 20
    assert np.array_equal(found.times, with_times(found, data).times)
    drawn = 0
    for row in generated:
        a, b = found.offsets[row : row + 2]
        items, times, own = found.items[a:b], found.times[a:b], set(data[found.source[row]].tolist())
        for end in range(1, len(items)):
            history = Timed(items[:end], np.array([0, end]), times[:end], times[end : end + 1])
            logits = (encode_sequences(model, history) @ model.item_embeddings().T)[0].detach()
            logits[[0, *items[:end]]] = -torch.inf
            unused = sorted(own - set(items[:end].tolist()))
            best = {int(logits.argmax()), unused[int(logits[unused].argmax())]} if unused else {int(logits.argmax())}
            assert int(items[end]) in best
            drawn += 1
    assert drawn > 50


@pytest.mark.parametrize("make", [Encodes, lambda model: Ensemble([model, build(OTHER, ITEMS).eval()])])
def test_other_ways_to_step(make):
    """Without a step of its own, and beside a network that uses no times: the same times, in any number of slots."""
    model, data = make(timed_model()), sequences()
    few = GenerationConfig(m=2, p=0.5, k=1, min_length=2, slots=3)
    first, second = everything(data, model), everything(data, model, generation=few)
    assert first.fingerprint() == second.fingerprint()
    assert np.array_equal(first.times, with_times(first, data).times)
    if isinstance(model, Encodes):
        assert first.fingerprint() == everything(data, timed_model()).fingerprint()


OTHER = ModelConfig(name="sasrec", dim=8, max_len=MAX_LEN)


def test_times_change_what_is_generated():
    model, data = timed_model(), sequences()
    later = Sequences(items=data.items, offsets=data.offsets, num_items=ITEMS, times=data.times * 1000)
    first, second = everything(data, model), everything(later, model)
    assert not np.array_equal(first.items, second.items)


def test_without_times_there_are_none():
    """Of data without, and of a model that uses none, whose trajectories are what they were."""
    assert everything(sequences(timed=False), timed_model()).times is None
    off = build(OTHER, ITEMS, seed=1).eval()
    with_, without = everything(sequences(), off), everything(sequences(timed=False), off)
    assert with_.times is None
    assert with_.fingerprint() == without.fingerprint()


def test_every_trajectory_keeps_rising_times():
    found = everything(sequences(), timed_model(), fidelity=FidelityConfig(tau=5))
    for a, b in pairwise(found.offsets):
        assert (np.diff(found.times[a:b]) >= 0).all()

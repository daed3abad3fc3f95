"""What every registered backbone must do; one test body for all of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.config import ModelConfig
from rsir.data import Sequences
from rsir.data.batches import Batches
from rsir.data.ragged import Ragged
from rsir.data.sequences import offsets_of
from rsir.errors import BackboneError
from rsir.models import (
    Backbone,
    Ensemble,
    IncrementalBackbone,
    ItemKnn,
    PrefixBackbone,
    TrainableBackbone,
    WithItemKnn,
    build,
    checkpoint,
    encode_sequences,
    encoding,
    names,
    register,
    require,
)
from rsir.models.encoding import encode_prefixes, width_buckets
from tests.harness.toys import ToyBackbone

NUM_ITEMS = 60
MAX_LEN = 21  # not a multiple of a bucket


@pytest.fixture(params=names())
def model(request):
    """Small, with weights large enough for queries to differ a lot."""
    config = ModelConfig(name=request.param, dim=16, heads=2, feedforward=24, max_len=MAX_LEN)
    built = build(config, NUM_ITEMS, seed=3).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.2 / parameter.std())  # ten times what most begin with
    return built


def histories(count, seed=0, longest=MAX_LEN + 9):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, count)
    return generator.integers(1, NUM_ITEMS + 1, lengths.sum()).astype(np.int32), offsets_of(lengths)


def test_prefixes_are_encoded_in_one_pass(model):
    """Every backbone of the package, ensembles of them, and beside a count; in evaluation mode, which is restored."""
    rng = np.random.default_rng(4)
    lengths = [1, MAX_LEN, 3, 2, MAX_LEN - 1, 7, 7]
    rows = Ragged.from_lists([rng.integers(1, NUM_ITEMS + 1, length) for length in lengths])
    prefixes = Ragged.from_lists([row[: end + 1] for row in rows for end in range(len(row))])
    other = build(ModelConfig(name="sasrec", dim=8, max_len=MAX_LEN), NUM_ITEMS, seed=1)
    knn = ItemKnn.fit(Sequences.from_lists([[1, 2, 3]], NUM_ITEMS))
    model.train()
    for one in (model, Ensemble([model, other]), WithItemKnn(Ensemble([model]), knn, 2.0)):
        assert isinstance(one, PrefixBackbone)
        found, expected = encode_prefixes(one, rows), encode_sequences(one, prefixes)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-4, atol=2e-5)
    assert expected.std() > 0.1
    with pytest.MonkeyPatch.context() as patch:  # a few sequences at a time
        patch.setattr(encoding, "_PREFIXES", 5)
        assert torch.allclose(encode_prefixes(model.train(), rows), encode_sequences(model, prefixes), atol=2e-5)
    assert model.training


def test_without_a_causal_pass_there_is_none():
    assert encode_prefixes(ToyBackbone(9), Ragged.from_lists([[1, 2]])) is None
    assert not isinstance(Ensemble([ToyBackbone(9)]), PrefixBackbone)


def padded(rows):
    lengths = torch.tensor([len(row) for row in rows])
    items = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row).long() for row in rows], batch_first=True)
    return items, lengths


def training_stream(train, *, batch_size=64, negatives=32, seed=0, weights=None):
    return Batches(
        train,
        batch_size,
        MAX_LEN,
        negatives,
        seed=seed,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(seed),
        weights=weights,
    )


class TestContract:
    def test_has_what_the_protocols_ask_for(self, model):
        for protocol in (Backbone, IncrementalBackbone, TrainableBackbone):
            require(model, protocol)
            assert isinstance(model, protocol)
        assert (model.num_items, model.max_len) == (NUM_ITEMS, MAX_LEN)
        assert model.item_embeddings().shape == (NUM_ITEMS + 1, 16)

    def test_equal_seeds_give_equal_weights(self, model):
        first, second, other = (build(model.config, NUM_ITEMS, seed=seed) for seed in (5, 5, 6))
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)
        assert not torch.equal(first.item_embeddings(), other.item_embeddings())

    @torch.no_grad()
    def test_step_equals_encode(self, model):
        items, offsets = histories(40, longest=MAX_LEN)
        state = model.new_state(40)
        rows = [torch.tensor(items[a:b]).long() for a, b in pairwise(offsets)]
        for place in range(MAX_LEN):
            slots = torch.tensor([slot for slot, row in enumerate(rows) if len(row) > place])
            queries = model.step(state, slots, torch.stack([rows[slot][place] for slot in slots]))
            expected = model.encode(*padded([rows[slot][: place + 1] for slot in slots]))
            torch.testing.assert_close(queries, expected, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_a_reset_slot_forgets(self, model):
        state = model.new_state(3)
        everyone = torch.arange(3)
        for item in (1, 2, 3):
            model.step(state, everyone, torch.full((3,), item))
        state.reset(torch.tensor([1]))
        queries = model.step(state, everyone, torch.tensor([4, 4, 4]))
        expected = model.encode(*padded([[1, 2, 3, 4], [4], [1, 2, 3, 4]]))
        torch.testing.assert_close(queries, expected, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_a_copied_slot_goes_its_own_way(self, model):
        state = model.new_state(4)
        for item in (1, 2):
            model.step(state, torch.tensor([0, 3]), torch.tensor([item, 9]))
        model.step(state, torch.tensor([1]), torch.tensor([5]))
        state.copy(torch.tensor([0, 3]), torch.tensor([1, 2]))
        queries = model.step(state, torch.arange(4), torch.tensor([3, 4, 5, 6]))
        expected = model.encode(*padded([[1, 2, 3], [1, 2, 4], [9, 9, 5], [9, 9, 6]]))
        torch.testing.assert_close(queries, expected, rtol=0, atol=1e-5)

    def test_step_refuses_a_full_slot_and_a_slot_named_twice(self, model):
        state = model.new_state(2)
        for _ in range(MAX_LEN):
            model.step(state, torch.tensor([1]), torch.tensor([7]))
        with pytest.raises(ValueError, match=f"slot 1 holds max_len = {MAX_LEN} items"):
            model.step(state, torch.tensor([0, 1]), torch.tensor([7, 7]))
        with pytest.raises(ValueError, match="each slot once"):
            model.step(state, torch.tensor([0, 0]), torch.tensor([7, 7]))

    @torch.no_grad()
    def test_future_items_and_padding_do_not_matter(self, model):
        items, lengths = padded([[5, 6, 7], [8], [9, 10]])
        queries = model.encode(items, lengths)
        noise = torch.where(items == 0, torch.randint(1, NUM_ITEMS, items.shape), items)
        torch.testing.assert_close(model.encode(noise, lengths), queries, rtol=0, atol=1e-6)
        wider = torch.nn.functional.pad(items, (0, 4))
        torch.testing.assert_close(model.encode(wider, lengths), queries, rtol=0, atol=1e-6)

    @torch.no_grad()
    def test_what_was_just_read_matters(self, model):
        a, b = model.encode(*padded([[5, 6, 7], [5, 6, 8]]))
        assert not torch.allclose(a, b, atol=1e-3)
        a, b = model.encode(*padded([[5, 6, 7], [6, 5, 7]]))
        assert not torch.allclose(a, b, atol=1e-3)

    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_bits_of_a_query_do_not_depend_on_its_company(self, model, threads):
        """Alone, shuffled, or doubled: the same bits; for a number of rows that fills several tiles and none."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            items, offsets = histories(700, seed=threads)
            queries = encode_sequences(model, Ragged(items, offsets))
            order = np.random.default_rng(1).permutation(700)
            rows = [items[offsets[r] : offsets[r + 1]] for r in order]
            shuffled = encode_sequences(model, Ragged.from_lists(rows))
            assert torch.equal(shuffled, queries[order])
            for r in (0, 699):
                row = items[offsets[r] : offsets[r + 1]]
                assert torch.equal(encode_sequences(model, Ragged.from_lists([row]))[0], queries[r])
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_bits_of_a_step_do_not_depend_on_its_company(self, model, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            generator = np.random.default_rng(threads)
            items = torch.from_numpy(generator.integers(1, NUM_ITEMS + 1, (150, MAX_LEN)))
            together, apart = model.new_state(150), model.new_state(150)
            for place in range(0, MAX_LEN, threads):  # fewer with threads: on a busy machine these wait for each other
                queries = model.step(together, torch.arange(150), items[:, place])
                alone = torch.empty_like(queries)
                for part in np.array_split(generator.permutation(150), [1, 9, 140]):
                    slots = torch.from_numpy(part)
                    alone[slots] = model.step(apart, slots, items[slots, place])
                assert torch.equal(queries, alone)
        finally:
            torch.set_num_threads(before)

    def test_only_the_newest_items_of_a_long_history_are_encoded(self, model):
        items = np.arange(1, 41, dtype=np.int32)
        whole = encode_sequences(model, Ragged.from_lists([items]))
        tail = encode_sequences(model, Ragged.from_lists([items[-MAX_LEN:]]))
        assert torch.equal(whole, tail)
        with pytest.raises(ValueError, match="at most max_len"):
            model.encode(torch.ones(1, MAX_LEN + 1, dtype=torch.int64), torch.tensor([MAX_LEN + 1]))

    def test_encoding_restores_the_mode_and_ignores_dropout(self, model):
        items, offsets = histories(20)
        queries = encode_sequences(model, Ragged(items, offsets))
        model.train()
        assert torch.equal(encode_sequences(model, Ragged(items, offsets)), queries)
        assert model.training

    @pytest.mark.parametrize("negatives", [NUM_ITEMS, 0])  # both take all items
    def test_loss_of_packed_sequences_is_that_of_the_sequences_alone(self, model, negatives):
        """Packing changes nothing: the loss is the weighted mean of full softmax cross-entropies, one by one."""
        model.double()
        lists = [[3, 9, 4], [7, 7], [1, 2, 3, 4, 5, 6], list(range(1, 40)), [8]]
        train = Sequences.from_lists(lists, NUM_ITEMS)
        weights = np.array([1.0, 0.5, 2.0, 0.25, 1.0])
        stream = iter(training_stream(train, negatives=negatives, weights=weights))
        batch, negatives = next(stream)
        assert negatives.tolist() == list(range(1, NUM_ITEMS + 1))
        stream.close()
        loss = model.loss(batch, negatives)
        total, weight = 0.0, 0.0
        for row, w in zip(lists, weights, strict=True):
            row = row[-MAX_LEN - 1 :]
            for end in range(1, len(row)):
                query = model.encode(*padded([row[:end]]))
                logits = query @ model.item_embeddings()[1:].T
                total += w * torch.nn.functional.cross_entropy(logits, torch.tensor([row[end] - 1]))
                weight += w
        torch.testing.assert_close(loss, total / weight)
        # What only training reads, as the mask of CL4SRec, takes no part in either.
        ours = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        theirs = torch.autograd.grad(total / weight, list(model.parameters()), allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)

    def test_gradients_reach_every_weight_and_come_from_the_generator(self, model):
        generator = np.random.default_rng(0)
        rows = [generator.integers(1, NUM_ITEMS + 1, length) for length in generator.integers(2, 2 * MAX_LEN, 40)]
        stream = iter(training_stream(Sequences.from_lists(rows, NUM_ITEMS)))
        batch, negatives = next(stream)
        stream.close()
        model.train()

        def gradients(seed):
            batch.generator.manual_seed(seed)
            return torch.autograd.grad(model.loss(batch, negatives), list(model.parameters()))

        first, again, other = (gradients(seed) for seed in (1, 1, 2))
        for (name, _), a, b in zip(model.named_parameters(), first, again, strict=True):
            assert a.isfinite().all(), name
            assert a.any(), name
            assert torch.equal(a, b), name
        assert not torch.equal(first[0], other[0])

    @torch.no_grad()
    def test_a_checkpoint_gives_the_same_queries(self, model, tmp_path):
        checkpoint.save(model, model.config, tmp_path)
        lists = Ragged(*histories(20))
        loaded = checkpoint.load(tmp_path)
        assert torch.equal(encode_sequences(loaded, lists), encode_sequences(model, lists))

    def test_loss_falls_on_a_toy(self, model):
        """Everyone walks round a circle of items."""
        model = build(model.config, NUM_ITEMS, seed=0).train()
        starts = np.random.default_rng(0).integers(0, NUM_ITEMS, 300)
        train = Sequences.from_lists([[(s + i) % NUM_ITEMS + 1 for i in range(8)] for s in starts], NUM_ITEMS)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        stream = iter(training_stream(train))
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = model.loss(*next(stream))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        stream.close()
        assert losses[-1] < 0.7 * losses[0]
        assert not model.item_embeddings()[0].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 300))
def test_width_buckets_rise_to_max_len(max_len):
    widths = width_buckets(max_len)
    assert widths == sorted(set(widths))
    assert widths[-1] == max_len
    for small, large in zip([0, *widths], widths, strict=False):
        assert large - small <= max(8, large / 3)


def test_encode_names_an_empty_history():
    model = build(ModelConfig(dim=8), 5)
    with pytest.raises(ValueError, match="history 1 is empty"):
        encode_sequences(model, Ragged.from_lists([[1], [], [2]]))
    assert encode_sequences(model, Ragged.from_lists([])).shape == (0, 8)


def test_require_names_all_that_is_missing():
    class Half:
        num_items, max_len = 3, 5

        def encode(self, items, lengths): ...

    with pytest.raises(BackboneError, match="Half is no Backbone: it lacks item_embeddings"):
        require(Half(), Backbone)
    with pytest.raises(BackboneError, match="item_embeddings, new_state, step"):
        require(Half(), IncrementalBackbone)


def test_registry():
    with pytest.raises(BackboneError, match=r"expected one of .*sasrec.*, got 'sasrek'"):
        build(ModelConfig(name="sasrek"), 5)
    with pytest.raises(BackboneError, match="registered already"):
        register("sasrec")(lambda config, num_items, generator: None)
    with pytest.raises(BackboneError, match="at least 1"):
        build(ModelConfig(), 0)

"""The batched engine against the plain loop of benchmarks/oracle.py: same randomness, same trajectories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.oracle import all_trajectories
from rsir import ops
from rsir.config import FidelityConfig, GenerationConfig, ModelConfig, SimulationConfig, TrainingConfig
from rsir.data import leave_one_out, simulate
from rsir.data.sequences import Sequences
from rsir.errors import ConfigError
from rsir.evaluation import evaluate
from rsir.generation.decoding import Engine
from rsir.generation.fidelity import Off, Rank, build
from rsir.generation.generate import generate
from rsir.generation.neighbours import CandidateIndex
from rsir.models import pack_items
from rsir.models.itemknn import ItemKnn, Unseen
from rsir.ops import Ragged, SparseScores
from rsir.training.fit import fit
from tests.harness.toys import IncrementalToyBackbone, ToyBackbone
from tests.models.unseen import Recounted

NUM_ITEMS = 40


def some_sources(seed: int = 0, rows: int = 25, longest: int = 9) -> Sequences:
    generator = np.random.default_rng(seed)
    # Rows may be empty, of one item, or repeat an item.
    return Sequences.from_lists(
        [generator.integers(1, NUM_ITEMS + 1, generator.integers(0, longest + 1)).tolist() for _ in range(rows)],
        num_items=NUM_ITEMS,
    )


def as_pairs(trajectories: Sequences) -> list[tuple[int, list[int]]]:
    return [(int(trajectories.source[i]), trajectories[i].tolist()) for i in range(len(trajectories))]


def check_against_oracle(
    model: ToyBackbone, sources: Sequences, config: GenerationConfig, fidelity: FidelityConfig, seed: int, round_: int
) -> int:
    unseen = Unseen(ItemKnn.fit(sources), sources)
    policy = build(fidelity, model.item_embeddings(), round_, unseen=lambda: unseen)
    found = generate(model, sources, config, policy, seed=seed, round_=round_)
    truth, within = Recounted(sources), getattr(policy, "within", 0)

    def judge(user: int, trajectory: list[int], targets: list[int]) -> bool:
        return truth.rank(user, trajectory, targets, within) <= within

    near = getattr(policy, "neighbours", policy)
    graph = near.graph.numpy() if hasattr(near, "graph") else None
    expected = all_trajectories(
        model,
        sources,
        config,
        seed=seed,
        round_=round_,
        tau=policy.tau,
        on_fail=fidelity.on_fail,
        graph=graph,
        hits=fidelity.hits,
        judge=judge if policy.judges else None,
    )
    assert as_pairs(found.trajectories) == expected
    assert (found.trajectories.round == round_).all()
    dropped = found.stats.too_short + found.stats.copies + found.stats.duplicates
    assert found.stats.decoded == dropped + len(expected)
    return len(expected)


configs = st.builds(
    GenerationConfig,
    p=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    m=st.integers(1, 3),
    k=st.sampled_from([1, 2, 5, 100]),
    temperature=st.sampled_from([0.3, 1.0, 4.0]),
    start=st.sampled_from(["first", "prefix"]),
    min_length=st.integers(2, 4),
    keep_copies=st.booleans(),
    slots=st.sampled_from([1, 7, 64]),
)
policies = st.builds(
    FidelityConfig,
    policy=st.sampled_from(["rank", "neighbours", "both", "itemknn", "rank-itemknn", "off"]),
    tau=st.sampled_from([1, 3, 10, 1000]),
    neighbours=st.sampled_from([2, 8]),
    hits=st.integers(1, 2),
    on_fail=st.sampled_from(["drop", "keep"]),
)


@given(configs, policies, st.booleans(), st.integers(0, 5), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_engine_equals_oracle(
    config: GenerationConfig, fidelity: FidelityConfig, incremental: bool, seed: int, round_: int
) -> None:
    kind = IncrementalToyBackbone if incremental else ToyBackbone
    check_against_oracle(kind(NUM_ITEMS, seed=seed), some_sources(seed), config, fidelity, seed, round_)


@pytest.mark.parametrize("policy", ["rank", "neighbours", "both", "itemknn", "rank-itemknn", "off"])
def test_each_policy_keeps_something_and_refuses_something(policy: str) -> None:
    model, sources = ToyBackbone(NUM_ITEMS), some_sources(rows=60)
    fidelity = FidelityConfig(policy=policy, tau=10, neighbours=8)  # type: ignore[arg-type]
    made = build(fidelity, model.item_embeddings(), 1, unseen=lambda: Unseen(ItemKnn.fit(sources), sources))
    found = generate(model, sources, GenerationConfig(), made, seed=3, round_=1)
    assert len(found.trajectories) > 0
    assert (found.stats.refused > 0) == (policy != "off")


def test_results_do_not_depend_on_slots_or_on_other_sources() -> None:
    model, sources = IncrementalToyBackbone(NUM_ITEMS), some_sources(rows=40)
    policy = build(FidelityConfig(), model.item_embeddings(), 1)

    def run(rows: Sequences, slots: int) -> list[tuple[int, list[int]]]:
        config = GenerationConfig(k=5, slots=slots)
        return as_pairs(generate(model, rows, config, policy, seed=9, round_=1).trajectories)

    expected = run(sources, 1000)
    assert expected
    for slots in (1, 13, 200):
        assert run(sources, slots) == expected
    # The first half alone gives the first half's trajectories.
    half = sources.select(np.arange(20))
    assert run(half, 64) == [(row, items) for row, items in expected if row < 20]


def test_trajectories_that_are_equal_so_far_share_one_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def counted(op):  # type: ignore[no-untyped-def]
        def scan(queries: torch.Tensor, *arguments, **more):  # type: ignore[no-untyped-def]
            rows.append(len(queries))
            return op(queries, *arguments, **more)

        return scan

    def together(engine: Engine, slots: torch.Tensor, own: torch.Tensor):  # type: ignore[no-untyped-def]
        before, answer = sum(rows), draw(engine, slots, own)
        prefixes = {tuple(engine.items[slot, : engine.length[slot]].tolist()) for slot in slots}
        assert sum(rows) - before == len(prefixes)
        return answer

    for name in ("rank_within", "rank_and_topk"):
        monkeypatch.setattr(ops, name, counted(getattr(ops, name)))
    draw = Engine._draw_together
    monkeypatch.setattr(Engine, "_draw_together", together)
    model = IncrementalToyBackbone(NUM_ITEMS)
    sources = Sequences.from_lists([[3, 1, 4, 15, 9, 2, 6]], num_items=NUM_ITEMS)
    policy = build(FidelityConfig(tau=20), model.item_embeddings(), 1)
    found = generate(model, sources, GenerationConfig(m=30, k=3), policy, seed=9, round_=1)
    assert len(found.trajectories) > 5
    assert 0 < sum(rows) < found.stats.scanned


def test_rounds_and_seeds_draw_differently() -> None:
    model, sources = IncrementalToyBackbone(NUM_ITEMS), some_sources(rows=40)
    policy = build(FidelityConfig(), model.item_embeddings(), 1)
    config = GenerationConfig(k=5)
    runs = [
        as_pairs(generate(model, sources, config, policy, seed=seed, round_=round_).trajectories)
        for seed, round_ in [(0, 1), (0, 1), (1, 1), (0, 2)]
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert runs[0] != runs[3]


@pytest.mark.parametrize(
    ("given", "num_items", "by_round"),
    [
        ([20, 10, 5], 50, [20, 10, 5, 5]),
        (7, 50, [7, 7, 7, 7]),
        (None, 1000, [50, 20, 10, 10]),
        (None, 300, [15, 15, 10, 10]),
        (None, 19, [1, 1, 1, 1]),
    ],
)
def test_a_schedule_gives_each_round_its_threshold(given, num_items: int, by_round: list[int]) -> None:
    fidelity, embeddings = FidelityConfig(tau=given), torch.randn(num_items + 1, 4)
    assert [build(fidelity, embeddings, round_).tau for round_ in (1, 2, 3, 4)] == by_round


def test_screening_by_an_index_changes_nothing() -> None:
    model, sources = ToyBackbone(NUM_ITEMS), some_sources(rows=60)
    index = CandidateIndex(model.item_embeddings(), method="ivf")
    scanned, screened = (
        generate(model, sources, GenerationConfig(k=3), policy, seed=1, round_=1)
        for policy in (Rank(5), Rank(5, index))
    )
    assert scanned.stats.refused == screened.stats.refused > 0
    assert as_pairs(screened.trajectories) == as_pairs(scanned.trajectories)


def test_what_is_trusted_is_not_checked() -> None:
    class Trusting(Rank):
        def screen(self, queries: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
            all_of_them = torch.ones(len(queries), dtype=torch.bool)
            return ~all_of_them, all_of_them

    model, sources = ToyBackbone(NUM_ITEMS), some_sources(rows=60)
    trusting, off = (
        generate(model, sources, GenerationConfig(), policy, seed=1, round_=1) for policy in (Trusting(1), Off())
    )
    assert trusting.stats.refused == off.stats.refused == 0
    assert as_pairs(trusting.trajectories) == as_pairs(off.trajectories)


def test_sources_without_two_items_generate_nothing() -> None:
    model = ToyBackbone(NUM_ITEMS)
    sources = Sequences.from_lists([[], [3], [4, 4, 4]], num_items=NUM_ITEMS)
    policy = build(FidelityConfig(policy="off"), model.item_embeddings(), 1)
    found = generate(model, sources, GenerationConfig(), policy, seed=0, round_=1)
    assert found.stats.decoded == 0
    assert len(found.trajectories) == 0


def test_another_catalogue_is_refused() -> None:
    model = ToyBackbone(NUM_ITEMS)
    policy = build(FidelityConfig(), model.item_embeddings(), 1)
    sources = Sequences.from_lists([[1, 2, 3]], num_items=7)
    with pytest.raises(ValueError, match=r"expected a catalogue of 40 items .* got 7"):
        generate(model, sources, GenerationConfig(), policy, seed=0, round_=1)


def test_a_whole_recursion_comes_out_the_same_on_every_backend() -> None:
    """Base, two rounds of trajectories and the models trained on them, every op on the backend named."""
    data = simulate(SimulationConfig(num_users=30, num_items=60)).sequences
    parts = leave_one_out(data)
    model_config = ModelConfig(dim=8, layers=1, heads=1, feedforward=8, dropout=0.0, max_len=10)
    training = TrainingConfig(batch_size=16, negatives=16, max_evaluations=1, learning_rate=1e-2)

    def recursion(backend: str) -> list[object]:
        outcome: list[object] = []
        train = parts.train
        for round_ in (0, 1, 2):
            model = fit(model_config, training, train, parts.validation, seed=round_).model
            outcome.append(evaluate(model, parts.test, table=pack_items(model, backend=backend)).metrics)
            policy = Rank(20)
            config = GenerationConfig(k=3, m=2)
            table = pack_items(model, backend=backend)
            found = generate(model, parts.train, config, policy, seed=0, round_=round_ + 1, table=table)
            outcome.append(as_pairs(found.trajectories))
            train = Sequences.concat(parts.train, found.trajectories)
        return outcome

    expected = recursion("reference")
    assert all(len(trajectories) > 5 for trajectories in expected[1::2])  # type: ignore[arg-type]
    assert recursion("cpp") == expected
    pytest.importorskip("triton", minversion="3.5")
    assert recursion("triton") == expected


@pytest.mark.parametrize("on_fail", ["drop", "keep"])
@pytest.mark.parametrize("policy", ["neighbours", "both"])
def test_the_item_that_fills_a_trajectory_is_checked_as_well(policy: str, on_fail: str) -> None:
    model, sources = ToyBackbone(NUM_ITEMS, max_len=4), some_sources(rows=80, longest=12)
    fidelity = FidelityConfig(policy=policy, tau=30, neighbours=12, on_fail=on_fail)  # type: ignore[arg-type]
    assert check_against_oracle(model, sources, GenerationConfig(p=0.3, k=5), fidelity, 0, 1) > 20


class AddingToy(IncrementalToyBackbone):
    """Adds whole numbers, some below 0, to a few items by the sum of the history."""

    def added_scores(self, histories: Ragged) -> SparseScores:
        rows = [part.tolist() for part in histories.ids.tensor_split(histories.offsets[1:-1])]
        ids = [sorted({(7 * sum(row) + 11 * place) % NUM_ITEMS + 1 for place in range(len(row) + 1)}) for row in rows]
        offsets = torch.tensor([0, *np.cumsum([len(row) for row in ids])])
        listed = torch.tensor([item for row in ids for item in row], dtype=torch.int32)
        return SparseScores(listed, offsets, (listed % 13 - 4).float())


@pytest.mark.parametrize("on_fail", ["drop", "keep"])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("policy", ["rank", "both", "itemknn", "off"])
def test_what_a_model_adds_to_its_logits_draws_and_verifies(policy: str, k: int, on_fail: str) -> None:
    model, sources = AddingToy(NUM_ITEMS), some_sources(rows=40)
    fidelity = FidelityConfig(policy=policy, tau=10, neighbours=12, on_fail=on_fail)  # type: ignore[arg-type]
    for generator in ("recommender", "itemknn"):
        config = GenerationConfig(k=k, generator=generator)  # type: ignore[arg-type]
        assert check_against_oracle(model, sources, config, fidelity, 3, 1) > 10
    plain = generate(
        IncrementalToyBackbone(NUM_ITEMS), sources, GenerationConfig(k=k), Rank(10), seed=3, round_=1
    ).trajectories
    networks = generate(model, sources, GenerationConfig(k=k), Rank(10), seed=3, round_=1).trajectories
    assert as_pairs(networks) == as_pairs(plain)
    together = generate(model, sources, config, Rank(10), seed=3, round_=1).trajectories
    assert as_pairs(together) != as_pairs(plain)


@pytest.mark.parametrize("policy", ["itemknn", "rank-itemknn"])
def test_a_judge_needs_a_count(policy: str) -> None:
    with pytest.raises(ConfigError, match=f"fidelity.policy {policy}: expected an item-kNN of all users"):
        build(FidelityConfig(policy=policy), ToyBackbone(NUM_ITEMS).item_embeddings(), 1)


def test_generated_sources_are_judged_without_their_user() -> None:
    """What leaves the user out is the number of the real row, also where trajectories start from generated ones."""
    model, real = ToyBackbone(NUM_ITEMS), some_sources(rows=40)
    unseen = Unseen(ItemKnn.fit(real), real)
    policy = build(FidelityConfig(policy="itemknn", tau=10), model.item_embeddings(), 1, unseen=lambda: unseen)
    first = generate(model, real, GenerationConfig(m=2), policy, seed=1, round_=1).trajectories
    asked: list[tuple[int, set[int]]] = []

    def ranks(users, histories, targets, tau, threads):  # type: ignore[no-untyped-def]
        for user, begin, end in zip(users, targets.offsets[:-1], targets.offsets[1:], strict=True):
            asked.append((int(user), set(targets.ids[begin:end].tolist())))
        return np.ones(len(users), np.int64)

    unseen.ranks = ranks  # type: ignore[method-assign]
    generate(model, first, GenerationConfig(m=2), policy, seed=1, round_=2)
    by_user = {user: set(np.concatenate([row for at, row in as_pairs(first) if at == user])) for user, _ in asked}
    assert len(by_user) > 5
    assert all(open_ <= by_user[user] for user, open_ in asked)


def test_a_step_without_a_state_is_no_incremental_decoding() -> None:
    class Stepper(ToyBackbone):
        def step(self) -> None:
            raise AssertionError("not meant for decoding")

    plain, stepper = (
        generate(kind(NUM_ITEMS), some_sources(), GenerationConfig(), Rank(10), seed=0, round_=1)
        for kind in (ToyBackbone, Stepper)
    )
    assert as_pairs(plain.trajectories) == as_pairs(stepper.trajectories) != []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"round_": 0}, r"round_: expected in 1\.\.32767, got 0"),
        ({"round_": 2**15}, r"round_: expected in 1\.\.32767, got 32768"),
        ({"seed": -1}, r"seed: expected in 0\.\.2\*\*64 - 1, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(
            ToyBackbone(NUM_ITEMS), some_sources(), GenerationConfig(), Off(), **{"seed": 0, "round_": 1, **changes}
        )


def test_a_policy_that_does_not_know_what_to_do_with_failures_is_refused() -> None:
    policy = Off()
    policy.on_fail = "kep"
    with pytest.raises(ConfigError, match="on_fail: expected one of drop, keep, got 'kep'"):
        generate(ToyBackbone(NUM_ITEMS), some_sources(), GenerationConfig(), policy, seed=0, round_=1)

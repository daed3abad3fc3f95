"""fit: determinism, early stopping, weights, errors; on a toy catalogue with a planted order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rsir.config import ModelConfig, TrainingConfig
from rsir.data import Sequences, leave_one_out
from rsir.errors import BackboneError, DataError, TrainingError
from rsir.evaluation import evaluate
from rsir.metrics import CRITERION
from rsir.models import BSARec, SASRec, build, registry
from rsir.ops import network
from rsir.ops.backend import load
from rsir.runtime.runtime import Runtime
from rsir.training.adam import TableAdam, table_adam
from rsir.training.fit import fit

MODEL = ModelConfig(dim=16, feedforward=16, max_len=10, dropout=0.2)
SETTINGS = TrainingConfig(
    batch_size=32,
    negatives=20,
    learning_rate=5e-3,
    patience=2,
    max_evaluations=6,
    synthetic_weight=1.0,
    real_last=0,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def parts():
    """Users walk round a circle of 60 items, sometimes skipping one."""
    generator = np.random.default_rng(0)
    rows = [
        (np.cumsum(generator.integers(1, 3, generator.integers(4, 12))) + generator.integers(60)) % 60 + 1
        for _ in range(300)
    ]
    return leave_one_out(Sequences.from_lists(rows, 60))


def fit_toy(parts, *, seed=0, config=SETTINGS, **changes):
    return fit(MODEL, config, changes.pop("train", parts.train), parts.validation, seed=seed, **changes)


def weights_of(trained):
    return torch.cat([value.flatten() for value in trained.model.state_dict().values()])


def test_learns_and_reports(parts):
    calls = []
    settings = dataclasses.replace(SETTINGS, max_evaluations=15, patience=15)
    trained = fit_toy(parts, config=settings, runtime=Runtime(progress=lambda *call: calls.append(call)))
    per_pass = -(-int((parts.train.lengths >= 2).sum()) // 32)
    assert [entry.step for entry in trained.history] == [per_pass * (i + 1) for i in range(15)]
    assert trained.best.metrics[CRITERION] == max(entry.metrics[CRITERION] for entry in trained.history)
    assert trained.best.metrics["recall@10"] > 0.5  # chance is 0.17
    assert trained.history[-1].loss < trained.history[0].loss
    assert evaluate(trained.model, parts.validation).metrics[CRITERION] == trained.best.metrics[CRITERION]
    assert not trained.model.training
    assert trained.steps == per_pass * 15
    assert trained.tokens == 15 * int((parts.train.lengths[parts.train.lengths >= 2] - 1).sum())
    assert 0 < trained.evaluation_seconds < trained.seconds
    assert trained.tokens_per_second > 0
    assert [call[:4] for call in calls if not call[1] % per_pass][-1] == (
        "train",
        trained.steps,
        trained.steps,
        "steps",
    )
    assert "validation ndcg@20" in calls[-1][4]


@pytest.mark.parametrize("lookup", [True, False])
@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_no_negatives_are_all_of_them(parts, name, lookup, monkeypatch):
    """The full softmax trains as one over as many negatives as there are items, with or without Adam by rows."""
    if not lookup:
        monkeypatch.setattr("rsir.training.loop.table_adam", lambda *_: None)
    config = dataclasses.replace(SETTINGS, max_evaluations=1, evaluate_every=6)
    model = dataclasses.replace(MODEL, name=name)
    whole, full = (
        fit(model, dataclasses.replace(config, negatives=negatives), parts.train, parts.validation, seed=0)
        for negatives in (60, 0)
    )
    assert full.history[0].loss == pytest.approx(whole.history[0].loss, rel=1e-6)
    for (key, value), other in zip(whole.model.state_dict().items(), full.model.state_dict().values(), strict=True):
        assert (value - other).abs().max() < 2e-4, key  # of steps of 5e-3: rounding that Adam enlarges
    assert not full.model.item_embeddings()[0].any()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_seed_decides_every_bit_and_nothing_global_does(parts, threads):
    torch.set_num_threads(threads)
    config = dataclasses.replace(SETTINGS, max_evaluations=2, evaluate_every=4)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit_toy(parts, config=config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = fit_toy(parts, config=config)
    assert torch.equal(weights_of(first), weights_of(second))
    assert [entry.metrics for entry in first.history] == [entry.metrics for entry in second.history]
    assert not torch.equal(weights_of(first), weights_of(fit_toy(parts, config=config, seed=1)))


def scripted(monkeypatch, values):
    """Let validation report these values in turn."""
    values = iter(values)

    def report(*args, **keywords):
        return dataclasses.replace(evaluate(*args, **keywords), metrics={CRITERION: next(values)})

    monkeypatch.setattr("rsir.training.loop.evaluate", report)


def test_stops_when_patience_runs_out_and_keeps_the_best(parts, monkeypatch):
    scripted(monkeypatch, [0.1, 0.3, 0.3, 0.2])  # an equal value is no better
    trained = fit_toy(parts)
    per_pass = trained.history[0].step
    assert (trained.best_step, trained.steps, len(trained.history)) == (2 * per_pass, 4 * per_pass, 4)
    scripted(monkeypatch, [0.1, 0.3])
    short = fit_toy(parts, config=dataclasses.replace(SETTINGS, max_evaluations=2))
    assert torch.equal(weights_of(trained), weights_of(short))


def test_stops_at_the_most_evaluations_and_where_nothing_is_ever_found(parts, monkeypatch):
    scripted(monkeypatch, [0.0] * 6)
    trained = fit_toy(parts)
    assert (trained.best_step, len(trained.history)) == (trained.history[0].step, 3)
    scripted(monkeypatch, [0.1 * i for i in range(6)])
    assert len(fit_toy(parts).history) == 6


def enriched(parts, count):
    lists = [[1 + i % 58, 2 + i % 58, 3 + i % 58] for i in range(count)]
    return Sequences.concat(
        parts.train, Sequences.from_lists(lists, 60, source=np.zeros(count, int), round=np.ones(count, int))
    )


def test_validates_after_as_many_steps_whatever_is_generated(parts, monkeypatch):
    for train in (parts.train, enriched(parts, 400)):
        scripted(monkeypatch, [0.1, 0.0, 0.0])
        trained = fit_toy(parts, train=train)
        assert trained.history[0].step == -(-int((parts.train.lengths >= 2).sum()) // 32)
    scripted(monkeypatch, [0.1, 0.0, 0.0])
    trained = fit_toy(parts, config=dataclasses.replace(SETTINGS, evaluate_every=3))
    assert [entry.step for entry in trained.history] == [3, 6, 9]


def test_synthetic_sequences_of_weight_0_change_nothing(parts, monkeypatch):
    config = dataclasses.replace(SETTINGS, synthetic_weight=0.0)
    assert torch.equal(weights_of(fit_toy(parts, train=enriched(parts, 50), config=config)), weights_of(fit_toy(parts)))
    config = dataclasses.replace(SETTINGS, synthetic_weight=0.5)
    assert not torch.equal(
        weights_of(fit_toy(parts, train=enriched(parts, 50), config=config)),
        weights_of(fit_toy(parts, train=enriched(parts, 50))),
    )


def test_ends_on_real_sequences_alone(parts):
    """The last stretch is a training of its own, from the best weights; without dropout, which goes on where it was."""
    model = dataclasses.replace(MODEL, dropout=0.0)
    off = dataclasses.replace(SETTINGS, learning_rate=2e-3)
    on = dataclasses.replace(off, real_last=2, real_rate=1e-2)
    train = enriched(parts, 200)
    first, both = (fit(model, config, train, parts.validation, seed=0) for config in (off, on))
    apart = dataclasses.replace(off, learning_rate=1e-2, max_evaluations=2, patience=9)
    seed = int(np.random.SeedSequence([0, 1]).generate_state(1, np.uint64)[0]) >> 1
    further = fit(model, apart, parts.train, parts.validation, seed=seed, init=first.model)
    found = [[(entry.loss, entry.metrics) for entry in one.history] for one in (first, further, both)]
    assert found[0] + found[1] == found[2]
    assert both.steps == first.steps + further.steps
    assert both.tokens == first.tokens + further.tokens
    assert further.best.metrics[CRITERION] > first.best.metrics[CRITERION]  # so that the two are told apart
    assert both.best_step == first.steps + further.best_step
    assert torch.equal(weights_of(both), weights_of(further))


@pytest.mark.parametrize("fused", [True, False])
def test_the_rate_falls_along_half_a_cosine(parts, monkeypatch, fused):
    """Over the most validations, then the last stretch has a rate of its own; no validation changes nothing."""
    rates = []

    def recorded(cls):
        step = cls.step

        def stepping(self, *arguments):
            rates.append(self.param_groups[0]["lr"])
            return step(self, *arguments)

        monkeypatch.setattr(cls, "step", stepping)

    recorded(TableAdam if fused else torch.optim.Adam)
    if not fused:
        monkeypatch.setattr("rsir.training.loop.table_adam", lambda *_: None)
    falling = dataclasses.replace(SETTINGS, schedule="cosine", patience=9, real_last=1, real_rate=1e-4)
    trained = fit_toy(parts, train=enriched(parts, 50), config=falling)
    every = trained.history[0].step
    steps = 6 * every
    want = [5e-3 * (0.505 + 0.495 * np.cos(np.pi * step / steps)) for step in range(steps)]
    np.testing.assert_allclose(rates, want + [1e-4] * every)
    if fused:
        rates.clear()
        ended = fit_toy(parts, config=falling)
        again = fit(MODEL, falling, parts.train, None, seed=0, steps=(ended.best_step, 0))
        assert torch.equal(weights_of(again), weights_of(ended))
        assert not torch.equal(
            weights_of(again), weights_of(fit(MODEL, SETTINGS, parts.train, None, seed=0, steps=(ended.best_step, 0)))
        )


def test_keeps_the_weights_of_before_where_the_last_stretch_is_no_better(parts, monkeypatch):
    scripted(monkeypatch, [0.1, 0.3, 0.2, 0.2, 0.3, 0.1])
    trained = fit_toy(parts, train=enriched(parts, 50), config=dataclasses.replace(SETTINGS, real_last=2))
    assert (len(trained.history), trained.best_step) == (6, trained.history[1].step)


def test_real_sequences_alone_have_no_last_stretch(parts):
    on = dataclasses.replace(SETTINGS, real_last=2)
    assert torch.equal(weights_of(fit_toy(parts, config=on)), weights_of(fit_toy(parts)))
    nothing = dataclasses.replace(on, synthetic_weight=0.0)
    assert torch.equal(weights_of(fit_toy(parts, train=enriched(parts, 9), config=nothing)), weights_of(fit_toy(parts)))


def test_fused_ops_learn_what_plain_torch_learns(parts, monkeypatch):
    """The losses of a hundred steps, dropout included."""
    config = dataclasses.replace(SETTINGS, evaluate_every=1, max_evaluations=100, patience=100)
    losses = []
    for name in ("cpp", "reference"):
        monkeypatch.setattr(network, "resolve", lambda *_, name=name: load(name))
        losses.append([entry.loss for entry in fit_toy(parts, config=config).history])
    assert losses[0][-1] < 0.9 * losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_threads_leave_no_trace(parts):
    """The fused ops add in one order, and torch's own run on one thread meanwhile."""
    trained = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        trained.append(fit_toy(parts))
        assert torch.get_num_threads() == threads
        assert trained[-1].model.threads is None
    assert torch.equal(*map(weights_of, trained))


@pytest.mark.parametrize("negatives", [0, 30])
def test_loss_precision(parts, negatives):
    """Factors of the softmax's products in bfloat16: other weights, as good a model."""
    settings = dataclasses.replace(SETTINGS, negatives=negatives)
    rounded = dataclasses.replace(settings, loss_precision="bfloat16")
    exact, close = (fit_toy(parts, config=config) for config in (settings, rounded))
    assert not torch.equal(weights_of(exact), weights_of(close))
    assert close.history[0].loss == pytest.approx(exact.history[0].loss, rel=1e-3)
    assert close.best.metrics[CRITERION] == pytest.approx(exact.best.metrics[CRITERION], abs=0.03)


def test_loss_precision_of_a_loss_of_its_own(parts, monkeypatch):
    def make(*arguments, **keywords):
        model = SASRec(MODEL, 60, torch.Generator())
        del model.loss_precision
        return model

    monkeypatch.setattr("rsir.training.fit.build", make)
    with pytest.raises(TrainingError, match="SASRec computes its loss by itself"):
        fit_toy(parts, config=dataclasses.replace(SETTINGS, negatives=0, loss_precision="bfloat16"))


def test_starts_from_given_weights(parts):
    first = fit_toy(parts)
    once = dataclasses.replace(SETTINGS, max_evaluations=1)
    further, afresh = fit_toy(parts, config=once, init=first.model), fit_toy(parts, config=once)
    assert further.history[0].loss < afresh.history[0].loss
    assert torch.equal(weights_of(further), weights_of(fit_toy(parts, config=once, init=first.model.state_dict())))
    with pytest.raises(TrainingError, match="do not fit this backbone and catalogue"):
        fit_toy(parts, init=build(MODEL, 61))


def test_names_the_step_of_a_loss_that_is_not_finite(parts, monkeypatch):
    real, calls = torch.Tensor.backward, []

    def poison(self, *args, **keywords):
        real(self, *args, **keywords)
        calls.append(self)
        if len(calls) == 4:
            parameter = next(iter(model.parameters()))
            parameter.grad = torch.full_like(parameter, torch.nan)

    model = None

    def remember(*args, **keywords):
        nonlocal model
        model = build(*args, **keywords)
        return model

    monkeypatch.setattr("rsir.training.fit.build", remember)
    monkeypatch.setattr(torch.Tensor, "backward", poison)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 5: .* lower training.learning_rate"):
        fit_toy(parts)


def test_weights_that_are_not_finite_are_never_the_best(parts):
    """The loss of the last step was finite, and its step led out of the numbers: the model would not be read back."""
    with pytest.raises(
        TrainingError, match=r"items.weight holds nan or infinite weights after step 1: .* lower training"
    ):
        fit_toy(parts, config=TrainingConfig(learning_rate=1e39, max_evaluations=1, evaluate_every=1))


def test_bad_input(parts, monkeypatch):
    with pytest.raises(BackboneError, match="got 'none'"):
        fit(ModelConfig(name="none"), SETTINGS, parts.train, parts.validation, seed=0)
    with pytest.raises(DataError, match="nothing to learn from"):
        fit_toy(parts, train=Sequences.from_lists([[1], []], 60))
    monkeypatch.setitem(registry.BACKBONES.makers, "bare", lambda config, num_items, generator: torch.nn.Linear(1, 1))
    with pytest.raises(BackboneError, match=r"Linear is no TrainableBackbone: it lacks num_items, .* loss"):
        fit(ModelConfig(name="bare"), SETTINGS, parts.train, parts.validation, seed=0)


def test_the_moving_average_of_the_weights_is_validated_and_kept(parts, monkeypatch):
    """One step a validation: the kept weights are the average after the best step, written out."""
    config = dataclasses.replace(SETTINGS, ema=0.9, evaluate_every=1, max_evaluations=6)
    seen = []

    def spied(model, *arguments):
        stepping = table_adam(model, *arguments)
        step = stepping.step

        def spy():
            step()
            seen.append([value.detach().clone() for value in model.parameters()])

        stepping.step = spy
        return stepping

    monkeypatch.setattr("rsir.training.loop.table_adam", spied)
    trained = fit_toy(parts, config=config)
    assert len(seen) == trained.steps
    average, averages = seen[0], []
    for number, weights in enumerate(seen):
        decay = min(0.9, (1 + number) / (10 + number))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
        averages.append(average)
    kept = dict(trained.model.named_parameters())
    for value, expected in zip(kept.values(), averages[trained.best_step - 1], strict=True):
        assert torch.allclose(value, expected, atol=1e-6)
    assert evaluate(trained.model, parts.validation).metrics[CRITERION] == trained.best.metrics[CRITERION]
    # It follows the training and does not take part in it.
    last = seen[-1]
    seen.clear()
    without = fit_toy(parts, config=dataclasses.replace(config, ema=0.0, patience=99, max_evaluations=trained.steps))
    assert without.steps == trained.steps
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], last, strict=True))


def test_averages_are_of_parameters_and_buffers_stay_as_they_are(parts, monkeypatch):
    """An integer cannot be averaged, and the mean of two infinities is not a number."""

    class WithBuffers(BSARec):
        def __init__(self, config, num_items, generator):
            super().__init__(config, num_items, generator)
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
            self.register_buffer("mask", torch.full((2,), -torch.inf))

        def loss(self, batch, negatives):
            self.steps += 1
            assert bool((self.mask == -torch.inf).all())
            return super().loss(batch, negatives)

    monkeypatch.setitem(registry.BACKBONES.makers, "with buffers", WithBuffers)
    plain = fit_toy(parts)
    buffered = fit(dataclasses.replace(MODEL, name="with buffers"), SETTINGS, parts.train, parts.validation, seed=0)
    assert plain.curves == buffered.curves
    assert int(buffered.model.steps) == buffered.best_step
    assert bool((buffered.model.mask == -torch.inf).all())

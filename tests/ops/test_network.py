"""Losses with gradients and the Transformer layer: one body over all backends that train."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional

from rsir import _core, ops
from rsir.errors import BackendUnavailable
from rsir.ops import backend

BACKENDS = [("reference", None), *(("cpp", name) for name in ("base", "avx2", "avx512"))]
SHAPES = [(1, 1, 1), (1, 9, 3), (7, 5, 100), (64, 33, 64), (200, 300, 20), (65, 1, 16), (3, 0, 4)]  # T, S, d


@pytest.fixture(params=BACKENDS, ids=lambda pair: "-".join(part for part in pair if part))
def how(request):
    """Keywords that choose a backend and its instruction set."""
    backend, instruction_set = request.param
    if instruction_set is not None and instruction_set not in _core.instruction_sets():
        pytest.skip(f"this CPU or build does not offer {instruction_set}")
    return {"backend": backend, "instruction_set": instruction_set}


def case(shape, seed=0, items=40):
    """Arguments of sampled_softmax: ids that collide and repeat, weights of which some are 0."""
    positions, columns, dim = shape
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(items + 1, dim, generator=generator)
    ids = torch.randint(1, items + 1, (columns,), generator=generator)
    targets = torch.randint(1, items + 1, (positions,), generator=generator)
    if positions > 2 and columns:
        targets[:2] = ids[0]
    weights = torch.rand(positions, generator=generator) * (torch.rand(positions, generator=generator) > 0.2)
    queries = torch.randn(positions, dim, generator=generator)
    offsets = torch.randn(positions, generator=generator), torch.randn(columns, generator=generator)
    return (queries, table[targets], table[ids], targets, ids, weights), offsets


def plain(arguments, offsets=None):
    """Loss and gradients by autograd, in double precision."""
    queries, positives, negatives = leaves = [value.double().requires_grad_() for value in arguments[:3]]
    targets, ids, weights = arguments[3:]
    own, logits = (queries * positives).sum(1, keepdim=True), queries @ negatives.T
    if offsets is not None:
        own, logits = own + offsets[0][:, None], logits + offsets[1]
    logits = torch.cat([own, logits.masked_fill(targets[:, None] == ids, -torch.inf)], 1)
    loss = (weights * functional.cross_entropy(logits, torch.zeros_like(targets), reduction="none")).sum()
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def assert_all_close(got, want, tolerance=2e-6):
    for a, b in zip(got, want, strict=True):
        largest = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * largest)


class TestSampledSoftmax:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("corrected", [False, True])
    def test_against_double_precision(self, how, shape, corrected):
        arguments, offsets = case(shape)
        keywords = dict(zip(("target_offsets", "negative_offsets"), offsets, strict=True)) if corrected else {}
        got = ops.sampled_softmax(*arguments, **keywords, **how)
        assert_all_close(got, plain(arguments, offsets if corrected else None))

    @pytest.mark.parametrize(("columns", "tolerance"), [(5000, 2e-6), (33000, 9e-5)])
    def test_more_negatives_than_a_tile_holds(self, how, columns, tolerance):
        """They come in slices then, whose shares are kept, or in blocks whose logits are computed twice.

        The error of a sum in single precision is about eps times the root of the number of its terms: 2.2e-5 of 33,000.
        """
        arguments, offsets = case((70, columns, 8))
        got = ops.sampled_softmax(*arguments, target_offsets=offsets[0], negative_offsets=offsets[1], **how)
        assert_all_close(got, plain(arguments, offsets), tolerance)

    @pytest.mark.parametrize("columns", [1000, 5000, 33000])
    def test_threads_leave_no_trace(self, how, columns):
        arguments, _ = case((600, columns, 64), items=9000)
        first, *others = (ops.sampled_softmax(*arguments, threads=threads, **how) for threads in (1, 2, 3, 8))
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))

    @pytest.mark.parametrize("columns", [9, 5000, 33000])
    def test_weight_0_takes_no_part(self, how, columns):
        (queries, positives, negatives, targets, ids, weights), _ = case((70, columns, 8))
        weights[3] = 0
        without = ops.sampled_softmax(queries, positives, negatives, targets, ids, weights, **how)
        queries[3], positives[3] = torch.nan, torch.inf
        got = ops.sampled_softmax(queries, positives, negatives, targets, ids, weights, **how)
        assert all(torch.equal(a, b) for a, b in zip(got, without, strict=True))
        assert not got.queries[3].any()
        assert not got.positives[3].any()
        nothing = ops.sampled_softmax(queries, positives, negatives, targets, ids, torch.zeros(70), **how)
        assert not any(bool(part.any()) for part in nothing)

    @pytest.mark.parametrize("columns", [9, 5000, 33000])
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_a_logit_that_is_not_finite_shows(self, how, columns, value):
        arguments, _ = case((5, columns, 4))
        arguments[2][4] = value
        arguments[0].abs_()
        assert ops.sampled_softmax(*arguments, **how).loss.isnan()

    @pytest.mark.parametrize("columns", [9, 5000, 33000])
    def test_a_logit_of_minus_infinity_counts_as_no_negative(self, how, columns):
        arguments, (_, offsets) = case((5, columns, 4))
        offsets[2] = -torch.inf
        got = ops.sampled_softmax(*arguments, negative_offsets=offsets, **how)
        tolerance = 2e-6 if columns <= 5000 else 9e-5
        assert_all_close(got, plain(arguments, (torch.zeros(5), offsets)), tolerance)
        assert not got.negatives[2].any()

    @pytest.mark.parametrize("size", [30.0, 1e4])
    def test_large_logits(self, how, size):
        arguments, _ = case((20, 30, 8))
        scaled = (arguments[0] * size, *arguments[1:])
        assert_all_close(ops.sampled_softmax(*scaled, **how), plain(scaled), tolerance=1e-5 * size**0.5)

    def test_exponential_is_within_its_bound(self, how):
        """One position, one dimension: the negatives' gradients are their shares. Relative error at most 4e-7."""
        logits = torch.linspace(-80, 0, 4001)
        queries, ones = torch.ones(1, 1), torch.ones(1)
        got = ops.sampled_softmax(
            queries, torch.zeros(1, 1), logits[:, None], torch.ones(1).long(), torch.full((4001,), 2), ones, **how
        )
        exact = logits.double().exp()
        exact /= 1 + exact.sum()
        assert ((got.negatives[:, 0].double() - exact) / exact).abs().max() < 4e-7

    def test_gradcheck(self):
        (queries, positives, negatives, *rest), _ = case((7, 9, 5))
        rest[-1] = rest[-1].double()

        class Loss(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *leaves):
                loss, *gradients = ops.sampled_softmax(*leaves, *rest, backend="reference")
                ctx.save_for_backward(*gradients)
                return loss

            @staticmethod
            def backward(ctx, upstream):
                return tuple(gradient * upstream for gradient in ctx.saved_tensors)

        leaves = [value.double().requires_grad_() for value in (queries, positives, negatives)]
        assert torch.autograd.gradcheck(Loss.apply, leaves)

    @pytest.mark.parametrize("shape", [(1, 1, 1), (70, 51, 7), (130, 5000, 64), (3, 1025, 100), (5, 0, 4), (0, 3, 4)])
    @pytest.mark.parametrize("corrected", [False, True])
    def test_factors_of_bfloat16(self, how, shape, corrected):
        """Against the reference that rounds the same factors; shares are rounded over other tops, by 2^-9 each."""
        arguments, offsets = case(shape)
        arguments = (*(0.5 * value for value in arguments[:3]), *arguments[3:])
        keywords = dict(zip(("target_offsets", "negative_offsets"), offsets, strict=True)) if corrected else {}
        got = ops.sampled_softmax(*arguments, **keywords, bfloat16=True, **how)
        double = [value.double() if value.is_floating_point() else value for value in arguments]
        exact = {name: value.double() for name, value in keywords.items()}
        want = ops.sampled_softmax(*double, **exact, bfloat16=True, backend="reference")
        queries, positives, negatives, _, _, weights = arguments
        most = float(torch.cat([positives, negatives]).abs().max())
        bound = 2**-8 * most * float(weights.max()) if len(weights) else 0.0
        for got_part, want_part, limit in (
            (got.queries, want.queries, bound),
            (got.positives, want.positives, 1e-5 * float(want.positives.abs().max()) if len(weights) else 0.0),
            (got.negatives, want.negatives, 2**-8 * float(weights @ queries.abs().amax(1))),
        ):
            assert not got_part.numel() or (got_part - want_part).abs().max() <= limit
        assert float((got.loss - want.loss).abs()) <= 1e-5 * max(1.0, float(want.loss))
        plain = ops.sampled_softmax(*arguments, **keywords, **how)
        if shape[1] > 1 and len(weights) > 1:
            assert not torch.equal(got.queries, plain.queries)
        if len(weights):
            assert (got.queries - plain.queries).abs().max() <= 4 * shape[2] * bound
        for threads in (2, 3):
            again = ops.sampled_softmax(*arguments, **keywords, bfloat16=True, threads=threads, **how)
            assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))

    def test_bfloat16_keeps_what_is_not_finite(self, how):
        arguments, (_, offsets) = case((5, 9, 4))
        offsets[2] = -torch.inf
        assert not ops.sampled_softmax(*arguments, negative_offsets=offsets, bfloat16=True, **how).negatives[2].any()
        arguments[2][4] = torch.nan
        assert ops.sampled_softmax(*arguments, bfloat16=True, **how).loss.isnan()


class TestFullSoftmax:
    @pytest.mark.parametrize(
        "shape", [(1, 1, 1), (7, 5, 3), (70, 50, 64), (130, 5000, 10), (3, 4097, 100), (3, 33000, 5)]
    )
    def test_against_double_precision(self, how, shape):
        positions, num_items, dim = shape
        generator = torch.Generator().manual_seed(0)
        queries, items = (torch.randn(n, dim, generator=generator) for n in (positions, num_items + 1))
        targets = torch.randint(1, num_items + 1, (positions,), generator=generator)
        weights = torch.rand(positions, generator=generator)
        if positions > 1:
            weights[0], targets[0] = 0, 0
            targets[1:3] = 1
        leaves = [value.double().requires_grad_() for value in (queries, items)]
        entropy = functional.cross_entropy(leaves[0] @ leaves[1][1:].T, (targets - 1).clamp(0), reduction="none")
        loss = (weights * entropy).sum()
        got = ops.full_softmax(queries, items, targets, weights, **how)
        # A logit's error is at most d * eps / 2 times its terms' absolute sum, whatever the order of the sum; a share's
        # relative error is that of its logit and that of the largest one that it is divided by.
        tolerance = dim * torch.finfo(torch.float32).eps * float((queries.abs() @ items.abs().T).max())
        assert_all_close(got, [loss.detach(), *torch.autograd.grad(loss, leaves)], max(tolerance, 2e-6))
        assert not got.items[0].any()
        again = ops.full_softmax(queries, items, targets, weights, threads=3, **how)
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))

    @pytest.mark.parametrize("shape", [(1, 1, 1), (70, 51, 7), (130, 5000, 64), (3, 1025, 100)])
    def test_factors_of_bfloat16(self, how, shape):
        """Against the reference that rounds the same factors; shares are rounded over other tops, by 2^-9 each."""
        positions, num_items, dim = shape
        generator = torch.Generator().manual_seed(0)
        queries, items = (0.5 * torch.randn(n, dim, generator=generator) for n in (positions, num_items + 1))
        targets = torch.randint(1, num_items + 1, (positions,), generator=generator)
        weights = torch.rand(positions, generator=generator)
        weights[1:2] = 0
        got = ops.full_softmax(queries, items, targets, weights, bfloat16=True, **how)
        double = (queries.double(), items.double(), targets, weights.double())
        want = ops.full_softmax(*double, bfloat16=True, backend="reference")
        bound = 2**-8 * float(weights.max()) * float(items.abs().max())
        assert (got.queries - want.queries).abs().max() <= bound
        assert (got.items - want.items).abs().max() <= 2**-8 * float(weights @ queries.abs().amax(1))
        assert float((got.loss - want.loss).abs()) <= 1e-5 * max(1.0, float(want.loss))
        assert not got.items[0].any()
        if dim > 1:
            plain = ops.full_softmax(queries, items, targets, weights, **how)
            assert not torch.equal(got.queries, plain.queries)
            assert (got.queries - plain.queries).abs().max() <= 4 * dim * bound
        for threads in (2, 3):
            again = ops.full_softmax(queries, items, targets, weights, bfloat16=True, threads=threads, **how)
            assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))

    def test_refuses_a_target_out_of_range(self, how):
        arguments = torch.ones(3, 2), torch.ones(5, 2), torch.tensor([1, 5, 0]), torch.ones(3)
        with pytest.raises(ValueError, match=r"position 1 holds id 5, expected ids in 1\.\.4"):
            ops.full_softmax(*arguments, **how)


LAYERS = [
    (1, 1, 3, 1, 1),
    (3, 7, 6, 3, 5),
    (2, 21, 16, 2, 24),
    (9, 50, 64, 2, 128),
    (2, 30, 100, 1, 20),
]  # R, W, d, h, f


def layer_case(shape, seed=0, dropped=0, dtype=torch.float32, filtered=False):
    rows, width, dim, heads, feedforward = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return (0.5 * torch.randn(size, generator=generator)).to(dtype).requires_grad_()

    lengths = torch.randint(1, 9, (rows, width), generator=generator)
    segments = torch.repeat_interleave(torch.arange(1, width + 1).repeat(rows), lengths.flatten()).view(-1)
    segments = torch.stack([segments[row * width : (row + 1) * width] for row in range(rows)])
    segments = torch.where(torch.arange(width) >= max(1, width - 2), 0, segments) if width > 2 else segments
    d, f = dim, feedforward
    shapes = ((3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (f, d), (f,), (d, f), (d,), (d,), (d,))
    parameters = ops.LayerParameters(*(draw(*size) for size in shapes))
    if filtered:
        own = ops.LayerFilter(draw(heads, width + 3), draw(d), draw(d), draw(d), 0.7, 0.8)
        parameters = parameters._replace(filter=own)
    byte_shapes = [(rows, heads, width, width), (rows, width, d), (rows, width, f), (rows, width, d)]
    byte_shapes += [(rows, width, d)] if filtered else []
    random = [torch.randint(0, 256, size, generator=generator, dtype=torch.uint8) for size in byte_shapes]
    dropout = ops.LayerDropout(dropped, *random) if dropped else None
    upstream = draw(rows, width, dim).detach() * (segments > 0)[:, :, None]
    return draw(rows, width, dim), segments, parameters, {"heads": heads, "dropout": dropout}, upstream


def run_layer(arguments, **how):
    x, segments, parameters, keywords, upstream = arguments
    y = ops.transformer_layer(x, segments, parameters, **keywords, **how)
    gradients = torch.autograd.grad(y, [x, *parameters.tensors], upstream)
    return [torch.where((segments > 0)[:, :, None], y, 0).detach(), *gradients]


@pytest.mark.parametrize("filtered", [False, True])
class TestTransformerLayer:
    @pytest.mark.parametrize("shape", LAYERS)
    @pytest.mark.parametrize("dropped", [0, 128])
    def test_against_double_precision(self, how, shape, dropped, filtered):
        got = run_layer(layer_case(shape, dropped=dropped, filtered=filtered), **how)
        exact = layer_case(shape, dropped=dropped, dtype=torch.float64, filtered=filtered)
        assert_all_close(got, run_layer(exact, backend="reference"), tolerance=5e-5)

    def test_threads_leave_no_trace(self, how, filtered):
        arguments = layer_case((30, 50, 64, 2, 128), dropped=100, filtered=filtered)
        first, *others = (run_layer(arguments, threads=threads, **how) for threads in (1, 2, 8))
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))

    def test_segments_are_alone(self, how, filtered):
        """A sequence gives the same whatever shares its row, and what comes later does not matter to it."""
        x, _, parameters, keywords, _ = layer_case((1, 12, 16, 2, 24), filtered=filtered)
        segments = torch.tensor([[1] * 5 + [2] * 4 + [0] * 3])
        y = ops.transformer_layer(x, segments, parameters, **keywords, **how)
        alone = ops.transformer_layer(x[:, 5:8], torch.ones(1, 3).long(), parameters, **keywords, **how)
        torch.testing.assert_close(y[:, 5:8], alone, rtol=1e-5, atol=1e-5)

    def test_what_is_not_filled_leaves_no_trace(self, how, filtered):
        """Whatever stands there: the gradients of all else are the same."""
        x, segments, parameters, keywords, upstream = layer_case((3, 21, 16, 2, 24), dropped=60, filtered=filtered)
        assert (segments == 0).any()
        first = run_layer((x, segments, parameters, keywords, upstream), **how)
        other = torch.where((segments == 0)[:, :, None], 3.0, x.detach()).requires_grad_()
        again = run_layer((other, segments, parameters, keywords, upstream), **how)
        assert_all_close(again, [value.double() for value in first])

    def test_gradcheck(self, filtered):
        case = layer_case((2, 5, 4, 2, 3), dropped=60, dtype=torch.float64, filtered=filtered)
        x, segments, parameters, keywords, _ = case

        def run(x, *tensors):
            own = parameters.filter and ops.LayerFilter(*tensors[12:], *parameters.filter[4:])
            layer = ops.LayerParameters(*tensors[:12], own)
            y = ops.transformer_layer(x, segments, layer, **keywords, backend="reference")
            return y * (segments > 0)[:, :, None]

        assert torch.autograd.gradcheck(run, [x, *parameters.tensors])


class TestChecks:
    def test_auto_takes_cpp_for_float32_only(self, monkeypatch):
        (*values, weights), _ = case((3, 4, 2))
        chosen = []
        monkeypatch.setattr(backend, "load", lambda name: chosen.append(name) or pytest.fail("unused"))
        for dtype in (torch.float32, torch.float64):
            with pytest.raises(pytest.fail.Exception):
                ops.sampled_softmax(*(v.to(dtype) if v.is_floating_point() else v for v in (*values, weights)))
        assert chosen == ["cpp", "reference"]

    def test_choices_that_cannot_run_say_why(self):
        (*values, weights), _ = case((3, 4, 2))
        with pytest.raises(BackendUnavailable, match="'triton' has no full_softmax: use backend='reference'"):
            ops.full_softmax(values[0], values[1], torch.ones_like(values[3]), weights, backend="triton")
        doubles = [v.double() if v.is_floating_point() else v for v in (*values, weights)]
        with pytest.raises(
            ValueError, match=r"trains in float32 on cpu, got torch.float64 on cpu; convert with \.float"
        ):
            ops.sampled_softmax(*doubles, backend="cpp")
        with pytest.raises(ValueError, match="has no instruction sets"):
            ops.sampled_softmax(*values, weights, backend="reference", instruction_set="avx2")
        with pytest.raises(ValueError, match=r"expected one of .* got 'neon'"):
            ops.sampled_softmax(*values, weights, instruction_set="neon")

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            (0, torch.ones(3), r"queries: expected shape \(any, any\), got \(3,\)"),
            (1, torch.ones(2, 2), r"positives: expected shape \(3, 2\), got \(2, 2\)"),
            (2, torch.ones(4, 5), r"negatives: expected shape \(any, 2\), got \(4, 5\)"),
            (3, torch.ones(3), r"targets: expected \(3,\) int64 on cpu, got \(3,\) torch.float32"),
            (4, torch.ones(5).long(), r"negative_ids: expected \(4,\) int64 on cpu, got \(5,\)"),
            (5, torch.ones(3).double(), "weights: expected floats like the first argument's, torch.float32"),
        ],
    )
    def test_wrong_arguments_of_the_losses(self, place, value, message):
        arguments = list(case((3, 4, 2))[0])
        arguments[place] = value
        with pytest.raises(ValueError, match=message):
            ops.sampled_softmax(*arguments)

    def test_wrong_arguments_of_the_layer(self):
        x, segments, parameters, keywords, _ = layer_case((2, 5, 4, 2, 3), dropped=9)
        with pytest.raises(ValueError, match="heads: expected a divisor of 4, got 3"):
            ops.transformer_layer(x, segments, parameters, heads=3)
        with pytest.raises(ValueError, match=r"segments: expected \(2, 5\) int64"):
            ops.transformer_layer(x, segments[:1], parameters, heads=2)
        with pytest.raises(ValueError, match=r"up_bias: expected shape \(3\), got \(4,\)"):
            ops.transformer_layer(x, segments, parameters._replace(up_bias=torch.ones(4)), heads=2)
        wrong = keywords["dropout"]._replace(hidden=torch.ones(2, 5, 3))
        with pytest.raises(ValueError, match=r"dropout.hidden: expected \(2, 5, 3\) uint8"):
            ops.transformer_layer(x, segments, parameters, heads=2, dropout=wrong)
        with pytest.raises(ValueError, match="x: expected"):
            ops.transformer_layer(x[0], segments, parameters, heads=2)

    def test_wrong_filters(self):
        x, segments, parameters, keywords, _ = layer_case((2, 5, 4, 2, 3), dropped=9, filtered=True)
        own, dropout = parameters.filter, keywords["dropout"]
        for changed, random, message in (
            (own._replace(beta=torch.ones(3)), None, r"filter.beta: expected shape \(4\), got \(3,\)"),
            (own._replace(distances=torch.ones(3, 9)), None, r"filter.distances: expected shape \(2, any\)"),
            (own._replace(distances=torch.ones(2, 4)), None, "filter.distances: expected at least 5 columns, got 4"),
            (own._replace(decay=1.0), None, r"expected a share in \[0, 1\] and a decay in \[0, 1\), got 0.7 and 1.0"),
            (None, dropout, "dropout.low: expected for a layer with a filter, and only then"),
            (own, dropout._replace(low=None), "dropout.low: expected for a layer with a filter, and only then"),
            (own, dropout._replace(low=torch.ones(2, 5, 3)), r"dropout.low: expected \(2, 5, 4\) uint8"),
        ):
            with pytest.raises(ValueError, match=message):
                ops.transformer_layer(x, segments, parameters._replace(filter=changed), heads=2, dropout=random)


def test_every_kind_of_nan_is_one(how):
    """Also one that a file holds, with bits of its own."""
    arguments, _ = case((7, 5, 20))
    queries, positives, negatives, *rest = arguments
    negatives = negatives.clone()
    negatives.view(torch.int32)[2, 3] = 0x7FFFFFFF
    assert ops.sampled_softmax(queries, positives, negatives, *rest, **how).loss.isnan()

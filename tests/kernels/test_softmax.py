"""The sampled softmax in the interpreter, through the public op, against the reference in float64."""

import pytest
import torch

from rsir import ops

pytest.importorskip("triton", minversion="3.5")

# positions, negatives, dimensions: none, one, not a multiple of a tile, several tiles and parts
SHAPES = [(1, 1, 1), (5, 0, 3), (7, 5, 20), (33, 65, 16), (300, 40, 8)]


def case(shape, seed=0, items=20):
    """Ids that collide and repeat, weights of which some are 0, offsets."""
    positions, columns, dim = shape
    make = torch.Generator(torch.get_default_device()).manual_seed(seed)
    table = torch.randn(items + 1, dim, generator=make)
    ids = torch.randint(1, items + 1, (columns,), generator=make)
    targets = torch.randint(1, items + 1, (positions,), generator=make)
    weights = torch.rand(positions, generator=make) * (torch.rand(positions, generator=make) > 0.2)
    queries = torch.randn(positions, dim, generator=make)
    offsets = {
        "target_offsets": torch.randn(positions, generator=make),
        "negative_offsets": torch.randn(columns, generator=make),
    }
    return (queries, table[targets], table[ids], targets, ids, weights), offsets


def double(values):
    return [value.double() if value.is_floating_point() else value for value in values]


def assert_equals_the_reference(arguments, offsets, tolerance=2e-6):
    got = ops.sampled_softmax(*arguments, **offsets, backend="triton")
    exact = {name: value.double() for name, value in offsets.items()}
    want = ops.sampled_softmax(*double(arguments), **exact, backend="reference")
    for name, a, b in zip(want._fields, got, want, strict=True):
        largest = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * largest, msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("corrected", [False, True])
def test_equals_the_reference(shape, corrected):
    arguments, offsets = case(shape)
    assert_equals_the_reference(arguments, offsets if corrected else {})


def test_gradients_are_those_of_the_loss():
    """Central differences of the reference's loss in float64, along a random direction of each argument."""
    arguments, _ = case((9, 12, 6))
    got = ops.sampled_softmax(*arguments, backend="triton")
    exact = double(arguments)
    for place, gradient in enumerate((got.queries, got.positives, got.negatives)):
        direction = torch.randn(gradient.shape, generator=torch.Generator(gradient.device).manual_seed(place)).double()

        def loss(step, place=place, direction=direction):
            moved = [value + step * direction if i == place else value for i, value in enumerate(exact)]
            return ops.sampled_softmax(*moved, backend="reference").loss

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        torch.testing.assert_close((gradient.double() * direction).sum(), slope, rtol=1e-5, atol=1e-6)


def test_weight_0_takes_no_part():
    arguments, _ = case((9, 12, 6))
    arguments[5][3] = 0
    without = ops.sampled_softmax(*arguments, backend="triton")
    arguments[0][3], arguments[1][3] = torch.nan, torch.inf
    got = ops.sampled_softmax(*arguments, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(got, without, strict=True))
    assert not got.queries[3].any()
    assert not got.positives[3].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_logit_that_is_not_finite_shows(value):
    arguments, _ = case((5, 9, 4))
    arguments[5][:] = 1
    arguments[2][4] = value
    arguments[0].abs_()
    assert ops.sampled_softmax(*arguments, backend="triton").loss.isnan()


def test_a_logit_of_minus_infinity_counts_as_no_negative():
    arguments, offsets = case((5, 9, 4))
    offsets["negative_offsets"][2] = -torch.inf
    assert_equals_the_reference(arguments, offsets)


def test_large_logits():
    arguments, _ = case((6, 9, 4))
    assert_equals_the_reference((arguments[0] * 1e3, *arguments[1:]), {}, tolerance=1e-4)


def test_more_dimensions_than_a_program_holds():
    arguments, _ = case((2, 3, 300))
    with pytest.raises(ValueError, match="at most 256 dimensions, got 300; use backend='reference'"):
        ops.sampled_softmax(*arguments, backend="triton")


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_of_bfloat16(shape):
    """Against the reference that rounds the same factors; shares are rounded over other tops, by 2^-9 each."""
    arguments, offsets = case(shape)
    queries, positives, negatives, _, _, weights = arguments
    got = ops.sampled_softmax(*arguments, **offsets, backend="triton", bfloat16=True)
    exact = {name: value.double() for name, value in offsets.items()}
    want = ops.sampled_softmax(*double(arguments), **exact, backend="reference", bfloat16=True)
    bound = 2**-8 * float(torch.cat([positives, negatives]).abs().max()) * float(weights.max())
    assert (got.queries - want.queries).abs().max() <= bound
    torch.testing.assert_close(got.positives.double(), want.positives, rtol=1e-5, atol=1e-5)
    if len(negatives):
        most = 2**-8 * float(weights @ queries.abs().amax(1))
        assert (got.negatives - want.negatives).abs().max() <= most
    torch.testing.assert_close(got.loss.double(), want.loss, rtol=1e-5, atol=1e-5)
    plain = ops.sampled_softmax(*arguments, **offsets, backend="triton")
    assert torch.equal(got.queries, plain.queries) == (len(negatives) == 0)


def test_bfloat16_keeps_what_is_not_finite():
    arguments, offsets = case((5, 9, 4))
    offsets["negative_offsets"][2] = -torch.inf
    assert not ops.sampled_softmax(*arguments, **offsets, backend="triton", bfloat16=True).negatives[2].any()
    arguments[5][:], arguments[2][4] = 1, torch.nan
    assert ops.sampled_softmax(*arguments, backend="triton", bfloat16=True).loss.isnan()


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
def test_torchs_default_dtype_does_not_matter(default):
    arguments, _ = case((9, 12, 6))
    want = ops.sampled_softmax(*arguments, backend="triton")
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        got = ops.sampled_softmax(*arguments, backend="triton")
    finally:
        torch.set_default_dtype(before)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)

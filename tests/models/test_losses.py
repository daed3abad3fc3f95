"""The losses that autograd differentiates, against the formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.models.losses import full_softmax, sampled_softmax
from rsir.ops import reference


def case(seed, positions, negatives, items=12, dim=5):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(items + 1, dim, dtype=torch.float64, generator=generator)
    ids = torch.randint(1, items + 1, (negatives,), generator=generator).sort().values
    targets = torch.randint(0, items + 1, (positions,), generator=generator)
    weights = torch.rand(positions, dtype=torch.float64, generator=generator) * (targets > 0)
    queries = torch.randn(positions, dim, dtype=torch.float64, generator=generator)
    leaves = [x.clone().requires_grad_() for x in (queries, table[targets], table[ids])]
    return leaves, (targets, ids, weights)


def plain(queries, positives, negatives, targets, ids, weights):
    logits = (queries @ negatives.T).masked_fill(targets[:, None] == ids, -torch.inf)
    logits = torch.cat([(queries * positives).sum(1, keepdim=True), logits], 1)
    return (weights * torch.nn.functional.cross_entropy(logits, torch.zeros_like(targets), reduction="none")).sum()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 30), st.sampled_from([3, 16, 4096]))
def test_loss_and_gradient(seed, positions, negatives, chunk):
    leaves, rest = case(seed, positions, negatives)
    before, reference._CHUNK = reference._CHUNK, chunk
    try:
        loss = sampled_softmax(*leaves, *rest)
    finally:
        reference._CHUNK = before
    expected = plain(*leaves, *rest)
    torch.testing.assert_close(loss, expected)
    ours, theirs = torch.autograd.grad(3 * loss, leaves), torch.autograd.grad(3 * expected, leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_gradcheck():
    leaves, rest = case(0, 7, 9)
    assert torch.autograd.gradcheck(lambda *x: sampled_softmax(*x, *rest), leaves)


def test_a_position_of_weight_0_gets_no_gradient():
    leaves, (targets, ids, weights) = case(1, 6, 8)
    weights[2] = 0
    gradient = torch.autograd.grad(sampled_softmax(*leaves, targets, ids, weights), leaves)
    assert not gradient[0][2].any()
    assert not gradient[1][2].any()


def test_every_negative_is_the_target():
    leaves, (_, _, weights) = case(2, 4, 5)
    targets, ids = torch.full((4,), 3), torch.full((5,), 3)
    loss = sampled_softmax(*leaves, targets, ids, weights)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_large_logits_stay_finite():
    leaves, rest = case(3, 5, 6)
    scaled = [1000 * leaf for leaf in leaves]
    torch.testing.assert_close(sampled_softmax(*scaled, *rest), plain(*scaled, *rest))


def test_float32_takes_the_fused_op():
    leaves, (targets, ids, weights) = case(4, 30, 20)
    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    loss = sampled_softmax(*single, targets, ids, weights.float())
    expected = plain(*leaves, targets, ids, weights)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    ours, theirs = torch.autograd.grad(3 * loss, single), torch.autograd.grad(3 * expected, leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_full_softmax():
    generator = torch.Generator().manual_seed(5)
    queries, items = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (6, 10))
    targets, weights = torch.tensor([1, 9, 3, 3, 0, 2]), torch.tensor([1.0, 0.5, 1, 1, 0, 2]).double()
    leaves = [queries.requires_grad_(), items.requires_grad_()]
    assert torch.autograd.gradcheck(lambda *x: full_softmax(*x, targets, weights), leaves)
    entropy = torch.nn.functional.cross_entropy(queries @ items[1:].T, (targets - 1).clamp(0), reduction="none")
    torch.testing.assert_close(full_softmax(queries, items, targets, weights), (weights * entropy).sum())

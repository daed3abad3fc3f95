"""Adam on the rows that steps look up, against torch's over the whole table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsir import _core, ops

BACKENDS = ["reference", "cpp"]


def skip_without(instruction_set: str | None) -> None:
    if instruction_set is not None and instruction_set not in _core.instruction_sets():
        pytest.skip(f"no {instruction_set} here")


def lookups(rows: int, dim: int, steps: int, scale: float) -> list[tuple[Tensor, Tensor]]:
    """Ids, some of them twice, and gradients of each step; the first tenth of the rows comes up most often."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for step in range(steps):
        often = torch.randint(0, max(1, rows // 10), (6,), generator=generator)
        ids = torch.cat([often, torch.randint(0, rows, (step % 3,), generator=generator)])
        made.append((ids, torch.randn(len(ids), dim, generator=generator) * scale))
    return made


def moments_of(table: Tensor) -> ops.AdamMoments:
    return ops.AdamMoments(torch.zeros_like(table), torch.zeros_like(table), torch.zeros(len(table), dtype=torch.int32))


def whole(
    table: Tensor, steps: list[tuple[Tensor, Tensor]], rate: float, decay: float = 0.0
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The table after Adam over all of it, what each step found in the rows it looked up, and the table's average."""
    weights = table.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=rate)
    found, average = [], table.double()
    for number, (ids, gradients) in enumerate(steps, 1):
        found.append(weights.detach()[ids])
        weights.grad = torch.zeros_like(table).index_add_(0, ids, gradients)
        optimizer.step()
        kept = min(decay, number / (9 + number)) if number > 1 else 0.0
        average = kept * average + (1 - kept) * weights.detach().double()
    return weights.detach(), found, average.float()


def by_rows(
    table: Tensor, steps: list[tuple[Tensor, Tensor]], rate: float, backend: str, threads: int = 1, **average: object
) -> tuple[Tensor, list[Tensor], ops.AdamMoments]:
    weights, moments, found = table.clone(), moments_of(table), []
    options = {"learning_rate": rate, "backend": backend, "threads": threads, **average}
    for number, (ids, gradients) in enumerate(steps, 1):
        if number > 1:
            ops.adam_rows(weights, moments, number - 1, ids, **options)
        found.append(weights[ids])
        ops.adam_rows(weights, moments, number, ids, gradients, **options)
    ops.adam_rows(weights, moments, len(steps), **options)
    return weights, found, moments


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rows", "dim", "steps"), [(1, 1, 5), (40, 7, 80), (200, 64, 20)])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-7])
def test_rows_are_where_adam_over_the_whole_table_takes_them(
    backend: str, rows: int, dim: int, steps: int, scale: float
) -> None:
    table = torch.randn(rows, dim, generator=torch.Generator().manual_seed(1)) * 0.02
    taken = lookups(rows, dim, steps, scale)
    expected, expected_found, _ = whole(table, taken, 1e-3)
    weights, found, moments = by_rows(table, taken, 1e-3, backend)
    # cpp averages what epsilon amounts to over the steps it makes up for, which shows where gradients are about as
    # small as epsilon is: a few elements of 1e-4, all of 1e-7
    tolerance = 1e-6 if backend == "reference" else {1.0: 1e-6, 1e-4: 3e-5, 1e-7: 2e-4}[scale]
    torch.testing.assert_close(weights, expected, rtol=0, atol=tolerance)
    for ours, theirs in zip(found, expected_found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    assert set(moments.last.tolist()) <= {0, steps}


@pytest.mark.parametrize("instruction_set", [None, "base", "avx2", "avx512"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (40, 7), (600, 64), (3, 0), (0, 4)])
def test_steps_of_all_rows_are_those_of_torch(backend: str, instruction_set: str | None, rows: int, dim: int) -> None:
    if backend == "cpp":
        skip_without(instruction_set)
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(rows, dim, generator=generator) * 0.02
    taken = lookups(rows, dim, 12, 1.0) if rows else [(torch.empty(0, dtype=torch.int64), torch.empty(0, dim))] * 3
    expected, _, expected_average = whole(table, taken, 1e-3, 0.9)
    found = []
    for threads in (1, 3):
        weights, average = table.clone(), table.clone()
        moments = moments_of(table)._replace(last=None)
        for number, (ids, gradients) in enumerate(taken, 1):
            options = {"backend": backend, "instruction_set": instruction_set, "threads": threads}
            if number % 3 == 0:  # the same, given for all rows
                ids, gradients = None, torch.zeros_like(table).index_add_(0, ids, gradients)
            ops.adam_rows(
                weights, moments, number, ids, gradients, learning_rate=1e-3, average=average, decay=0.9, **options
            )
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(average, expected_average, rtol=0, atol=1e-6)
        found.append((weights, average, moments.first, moments.second))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_steps_of_all_rows_have_the_bits_of_the_fused_adam_of_torch() -> None:
    """Where torch multiplies and adds in one rounding, as it does with AVX2 and AVX-512, and to rounding elsewhere."""
    skip_without("avx2")
    fuses = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    table = torch.randn(300, 64, generator=torch.Generator().manual_seed(1)) * 0.02
    weights, moments, theirs = table.clone(), moments_of(table)._replace(last=None), table.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=1e-3, fused=True)
    for number, (ids, gradients) in enumerate(lookups(300, 64, 20, 1e-2), 1):
        ops.adam_rows(weights, moments, number, ids, gradients, learning_rate=1e-3, backend="cpp")
        theirs.grad = torch.zeros_like(table).index_add_(0, ids, gradients)
        optimizer.step()
        # else a moment is off by some roundings of each of the about 10 steps it holds, a weight by one a step, too
        rounding = torch.finfo().eps * number * (theirs.detach().abs().max() + 100 * 1e-3)
        assert torch.equal(weights, theirs) or (not fuses and (weights - theirs).abs().max() <= rounding), number


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lazy", [True, False])
def test_padding_takes_no_gradient(backend: str, lazy: bool) -> None:
    weights = torch.ones(3, 2)
    moments = moments_of(weights) if lazy else moments_of(weights)._replace(last=None)
    gradients = torch.full((4, 2), torch.nan)
    gradients[1:3] = 1.0
    options = {"learning_rate": 0.1, "padding": 1, "backend": backend}
    ops.adam_rows(weights, moments, 1, torch.tensor([1, 0, 2, 1]), gradients, **options)
    assert weights[1].tolist() == [1.0, 1.0]
    torch.testing.assert_close(weights[[0, 2]], torch.full((2, 2), 0.9))
    if not lazy:
        of_all = torch.ones(3, 2)
        of_all[1] = torch.nan
        ops.adam_rows(weights, moments, 2, None, of_all, **options)
        assert weights[1].tolist() == [1.0, 1.0]
        torch.testing.assert_close(weights[[0, 2]], torch.full((2, 2), 0.8))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])  # reached in the first step, in steps 9 and 81, and never
@pytest.mark.parametrize("steps", [1, 2, 130])
def test_an_average_of_the_rows_is_that_of_the_whole_table(backend: str, decay: float, steps: int) -> None:
    table = torch.randn(40, 7, generator=torch.Generator().manual_seed(1)) * 0.02
    taken = lookups(40, 7, steps, 1.0)
    taken += [(torch.tensor([3]), torch.ones(1, 7))] * (700 if steps > 2 else 0)  # the others then rest for long
    _, _, expected = whole(table, taken, 1e-3, decay)
    average = table.clone()
    weights, _, _ = by_rows(table, taken, 1e-3, backend, average=average, decay=decay)
    torch.testing.assert_close(average, expected, rtol=0, atol=1e-6)
    assert torch.equal(average, weights) == (decay == 0 or steps == 1)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(9000, 64, generator=generator)
    taken = [
        (torch.randint(0, 9000, (6000,), generator=generator), torch.randn(6000, 64, generator=generator))
        for _ in range(4)
    ]
    first, second = (by_rows(table, taken, 1e-2, "cpp", threads) for threads in (1, 3))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[2], second[2], strict=True))


def test_a_row_that_decayed_for_long_keeps_still() -> None:
    table = torch.zeros(2, 3)
    weights, moments = table.clone(), moments_of(table)
    ops.adam_rows(weights, moments, 1, torch.tensor([1]), torch.ones(1, 3), learning_rate=0.1)
    ops.adam_rows(weights, moments, 1_000, learning_rate=0.1)
    rested = weights.clone()
    ops.adam_rows(weights, moments, 1_000_000_000, learning_rate=0.1)
    assert torch.equal(weights, rested)
    assert moments.last.tolist() == [0, 1_000_000_000]
    assert weights.isfinite().all()
    assert not weights[0].any()


def test_no_ids_are_no_rows() -> None:
    table = torch.ones(3, 2)
    weights, moments = table.clone(), moments_of(table)
    none = torch.empty(0, dtype=torch.int64)
    ops.adam_rows(weights, moments, 1, none, torch.empty(0, 2), learning_rate=0.1)
    assert torch.equal(weights, table)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": torch.tensor([3])}, r"ids: expected 0\.\.2, got 3\.\.3"),
        ({"ids": torch.tensor([-1])}, r"ids: expected 0\.\.2, got -1\.\.-1"),
        ({"ids": None}, "gradients: expected ids"),
        ({"gradients": torch.ones(2, 2)}, r"gradients: expected shape \(1, 2\)"),
        ({"step": 0}, r"step: expected 1\.\.2\*\*31 - 1, got 0"),
        ({"betas": (0.99, 0.9)}, "betas: expected"),
        ({"moments": moments_of(torch.ones(4, 2))}, r"moments.first: expected shape \(3, 2\)"),
        ({"moments": moments_of(torch.ones(3, 2))._replace(last=torch.zeros(3))}, r"moments.last: .* int32"),
        ({"weights": torch.ones(2, 3).T}, "expected contiguous"),
        ({"moments": moments_of(torch.ones(3, 2))._replace(last=None), "gradients": None}, "gradients: expected some"),
        ({"padding": 3}, r"padding: expected a row in 0\.\.2, got 3"),
        ({"average": torch.ones(2, 3).T}, "expected contiguous"),
        ({"average": torch.ones(2, 2)}, r"average: expected shape \(3, 2\)"),
        ({"decay": 1.0}, r"decay: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_refuses(backend: str, changes: dict[str, object], message: str) -> None:
    table = torch.ones(3, 2)
    arguments = {"weights": table, "moments": moments_of(table), "step": 1, "ids": torch.tensor([1])}
    arguments |= {"gradients": torch.ones(1, 2), **changes}
    with pytest.raises(ValueError, match=message):
        ops.adam_rows(**arguments, learning_rate=0.1, backend=backend)


def test_a_table_that_changed_must_be_packed_again() -> None:
    table = torch.ones(3, 2)
    packed = ops.pack(table)
    ops.adam_rows(table, moments_of(table), 1, torch.tensor([1]), torch.ones(1, 2), learning_rate=0.1)
    with pytest.raises(ValueError, match="pack them again"):
        ops.topk(torch.ones(1, 2), packed, 1)


def test_a_table_packed_of_the_average_is_out_of_date() -> None:
    weights, average = torch.randn(9, 4), torch.randn(9, 4)
    packed = ops.pack(average, backend="cpp")
    ids, gradients = torch.tensor([1, 2]), torch.randn(2, 4)
    ops.adam_rows(
        weights, moments_of(weights), 1, ids, gradients, learning_rate=0.1, average=average, decay=0.9, backend="cpp"
    )
    with pytest.raises(ValueError, match="changed in place after they were packed"):
        ops.topk(torch.randn(1, 4), packed, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_negative_decay_of_the_gradient_is_refused(backend: str) -> None:
    weights = torch.randn(9, 4)
    with pytest.raises(ValueError, match=r"betas: expected a first one in \[0, 1\)"):
        ops.adam_rows(weights, moments_of(weights), 1, learning_rate=0.1, betas=(-0.5, 0.999), backend=backend)

"""One test body over all backends: ``scorer`` is each backend and instruction set in turn."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from rsir import ops


@dataclass(frozen=True)
class Scorer:
    """A backend as the tests use it; packing checks that the one asked for is the one that runs."""

    backend: str
    instruction_set: str | None = None

    @property
    def name(self) -> str:
        return self.backend if self.instruction_set is None else f"{self.backend}-{self.instruction_set}"

    @property
    def device(self) -> str:
        return "cuda" if self.backend == "triton" and torch.cuda.is_available() else "cpu"

    @property
    def whole(self) -> str:
        """A backend of tables of all items: what sharded ones are joined of, or the scorer's own."""
        return "cpp" if self.backend == "sharded" else self.backend

    @property
    def interpreted(self) -> bool:
        return self.backend == "triton" and self.device == "cpu"

    def pack(self, items: torch.Tensor, dtype: torch.dtype | None = None) -> ops.ItemTable:
        if self.backend == "sharded":
            count = min(3, len(items) - 1)
            parts = [ops.pack(ops.table_part(items, rank, count), dtype=dtype) for rank in range(count)]
            return ops.join_tables(parts)
        table = ops.pack(items.to(self.device), backend=self.backend, instruction_set=self.instruction_set, dtype=dtype)
        assert table.backend.name == self.backend
        assert table.dtype == (dtype or items.dtype)
        if self.instruction_set is not None:
            assert table.instruction_set == self.instruction_set
            made = table.handle[0]
            assert (made.precision if self.backend == "triton" else made.instruction_set) == self.instruction_set
        return table


SCORERS = [
    Scorer("reference"),
    Scorer("cpp", "base"),
    Scorer("cpp", "avx2"),
    Scorer("cpp", "avx512"),
    Scorer("cpp", "avx512vnni"),
    Scorer("triton"),
    Scorer("triton", "bfloat16"),
    Scorer("sharded"),
]
SHAPES = [  # rows, items, dimensions
    (1, 1, 1),
    (7, 5, 3),
    (1, 5000, 64),
    (7, 1000, 100),
    (256, 33, 64),
    (256, 1200, 3),
]
INTERPRETED_SHAPES = [(1, 1, 1), (7, 5, 3), (3, 70, 20)]


def _require(scorer: Scorer) -> None:
    if scorer.backend == "triton":
        pytest.importorskip("triton", minversion="3.5")
    if scorer.backend == "cpp":
        from rsir import _core

        if scorer.instruction_set not in _core.instruction_sets():
            pytest.skip(f"this CPU or build does not offer {scorer.instruction_set}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scorer" not in metafunc.fixturenames:
        return
    if "shape" in metafunc.fixturenames:
        pairs = [
            pytest.param(s, shape, id=f"{s.name}-{'x'.join(map(str, shape))}")
            for s in SCORERS
            for shape in (INTERPRETED_SHAPES if s.interpreted else SHAPES)
        ]
        metafunc.parametrize(("scorer", "shape"), pairs, indirect=["scorer"])
    else:
        metafunc.parametrize("scorer", SCORERS, ids=lambda s: s.name, indirect=True)


@pytest.fixture
def scorer(request: pytest.FixtureRequest) -> Scorer:
    _require(request.param)
    return request.param

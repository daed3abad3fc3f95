"""A catalogue in several tables: what is refused, and several processes. The ops themselves: test_ops.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rsir import ops
from rsir.config import FidelityConfig
from rsir.generation.fidelity import build
from rsir.generation.neighbours import CandidateIndex
from rsir.models import pack_items
from rsir.runtime.world import World
from tests.harness.toys import ToyBackbone


def test_parts_make_the_whole():
    items = torch.arange(24.0).reshape(12, 2)
    for size in (1, 2, 3, 11):
        parts = [ops.table_part(items, rank, size) for rank in range(size)]
        assert torch.equal(torch.cat([part[1:] for part in parts]), items[1:])
        assert all(torch.equal(part[0], items[0]) for part in parts)
        assert ops.join_tables([ops.pack(part) for part in parts]).num_items == 11
    with pytest.raises(ValueError, match=r"one of 0..11, each with an item of 11, got 0"):
        ops.table_part(items, 0, 12)
    with pytest.raises(ValueError, match=r"one of 0..1, each with an item of 11, got 2"):
        ops.table_part(items, 2, 2)


def test_parts_that_differ_are_refused():
    part = ops.pack(torch.ones(3, 2))
    with pytest.raises(ValueError, match="at least one table"):
        ops.join_tables([])
    with pytest.raises(ValueError, match="expected one dim, got 2 and 4"):
        ops.join_tables([part, ops.pack(torch.ones(3, 4))])
    with pytest.raises(ValueError, match=r"expected one dtype, got torch.float32 and torch.float16"):
        ops.join_tables([part, ops.pack(torch.ones(3, 2), dtype=torch.float16)])
    with pytest.raises(ValueError, match="expected one backend, got cpp and reference"):
        ops.join_tables([part, ops.pack(torch.ones(3, 2), backend="reference")])
    with pytest.raises(ValueError, match="parts of parts"):
        ops.join_tables([ops.join_tables([part])])


def test_a_sharded_table_has_no_index(monkeypatch):
    monkeypatch.setattr("rsir.generation.fidelity.INDEX_FLAT_LIMIT", 2)
    items = torch.randn(9, 2)
    table = ops.join_tables([ops.pack(ops.table_part(items, rank, 2)) for rank in range(2)])
    with pytest.raises(ValueError, match="expected one table, got a sharded one"):
        CandidateIndex(table)
    assert build(FidelityConfig(tau=3), items, 1).index is not None
    assert build(FidelityConfig(tau=3), items, 1, table).index is None


def test_two_processes_give_the_answers_of_one_table(tmp_path):
    command = [sys.executable, "-m", "tests.harness.sharing_ranks"]
    running = [
        subprocess.Popen(
            [*command, str(rank), "2", str(tmp_path / "store")],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in running:
        shown, wrong = process.communicate(timeout=300)
        assert process.returncode == 0, wrong
        assert shown == "all as on one table\n"


def test_processes_divide_the_table_or_the_work():
    table = ops.join_tables([ops.pack(torch.ones(3, 6))])
    model = ToyBackbone(2)
    assert pack_items(model, table) is table
    world = World()
    world.size = 2
    with pytest.raises(ValueError, match="expected a world of one"):
        pack_items(model, table, world=world)


def test_a_catalogue_beyond_32_bits_is_refused(monkeypatch):
    part = ops.pack(torch.ones(11, 2))
    monkeypatch.setattr("rsir.ops.sharded._Handle.gather", lambda *_: torch.tensor([2**31, 10]))
    with pytest.raises(ValueError, match=r"fewer than 2\*\*31 - 64 items together, got 2,147,483,658"):
        ops.join_tables([part])

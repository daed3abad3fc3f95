"""Choosing a backend: the one asked for, or an error that lists the choices and the cause."""

from __future__ import annotations

import sys

import pytest
import torch

from rsir import _core, ops
from rsir.errors import BackendUnavailable
from rsir.ops import backend, cpp

ITEMS = torch.ones(4, 2)


def test_auto_takes_the_compiled_core_and_its_best_instruction_set():
    table = ops.pack(ITEMS)
    assert table.backend == "cpp"
    assert table.instruction_set == table.handle[0].instruction_set == _core.instruction_sets()[0]


def test_every_path_this_cpu_offers_is_selectable():
    offered = _core.instruction_sets()
    assert offered[-1] == "base"
    assert [ops.pack(ITEMS, instruction_set=name).instruction_set for name in offered] == offered


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match=r"expected 'auto' or one of \['cpp', 'reference', 'triton'\], got 'mkl'"):
        ops.pack(ITEMS, backend="mkl")
    with pytest.raises(ValueError, match=r"expected one of \['avx512', 'avx2', 'base'\] or None, got 'neon'"):
        ops.pack(ITEMS, backend="cpp", instruction_set="neon")


def test_an_instruction_set_the_cpu_lacks_says_what_is_usable(monkeypatch):
    monkeypatch.setattr(cpp, "_usable", lambda: ["base"])
    with pytest.raises(BackendUnavailable, match=r"'avx512' is not offered .* usable: \['base'\]"):
        ops.pack(ITEMS, backend="cpp", instruction_set="avx512")


def test_a_missing_compiled_module_says_how_to_build_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "rsir.ops.cpp", raising=False)
    monkeypatch.delattr("rsir._core")
    monkeypatch.setitem(sys.modules, "rsir._core", None)
    with pytest.raises(BackendUnavailable, match=r"pip install -e \..*Others: \['reference', 'triton'\]"):
        backend.load("cpp")

"""Choosing a backend: the one asked for, or an error that lists the choices and the cause."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace

import pytest
import torch

from rsir import _core, ops
from rsir.errors import BackendUnavailable
from rsir.ops import backend, cpp

ITEMS = torch.ones(4, 2)


def test_auto_takes_the_compiled_core_and_its_best_instruction_set():
    table = ops.pack(ITEMS)
    assert table.backend.name == "cpp"
    assert table.instruction_set == table.handle[0].instruction_set == _core.instruction_sets()[0]


def test_every_path_this_cpu_offers_is_selectable():
    offered = _core.instruction_sets()
    assert offered[-1] == "base"
    assert [ops.pack(ITEMS, instruction_set=name).instruction_set for name in offered] == offered


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match=r"expected 'auto' or one of \['cpp', 'reference', 'triton'\], got 'mkl'"):
        ops.pack(ITEMS, backend="mkl")
    choices = r"\['avx512vnni', 'avx512', 'avx2', 'base'\]"
    with pytest.raises(ValueError, match=rf"expected one of {choices} or None, got 'neon'"):
        ops.pack(ITEMS, backend="cpp", instruction_set="neon")


def test_an_instruction_set_the_cpu_lacks_says_what_is_usable(monkeypatch):
    monkeypatch.setattr(cpp, "_usable", lambda: ["base"])
    with pytest.raises(BackendUnavailable, match=r"'avx512' is not offered .* usable: \['base'\]"):
        ops.pack(ITEMS, backend="cpp", instruction_set="avx512")


def test_a_missing_compiled_module_says_how_to_build_it(monkeypatch):
    for name in ("rsir.ops.cpp", "rsir.runtime.core"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("rsir._core")
    monkeypatch.setitem(sys.modules, "rsir._core", None)
    with pytest.raises(BackendUnavailable, match=r"pip install -e \..*Others: \['reference', 'triton'\]"):
        backend.load("cpp")


OPS = sorted(backend.ops_of(backend.Backend))


@pytest.mark.parametrize("name", sorted(backend._MODULES))
def test_every_backend_has_every_op_or_refuses_it_by_name(name):
    if name == "triton":
        pytest.importorskip("triton", minversion="3.5")
    assert len(OPS) == 18
    chosen = backend.load(name)
    assert chosen.name == name
    for op in OPS:
        method = getattr(chosen, op)
        if op in backend._LACKS.get(name, ()):
            with pytest.raises(BackendUnavailable, match=f"backend '{name}' has no {op}: use backend='reference'"):
                method(ITEMS)
        else:
            wanted = list(inspect.signature(getattr(backend.Backend, op)).parameters)[1:]
            assert list(inspect.signature(method).parameters) == wanted


@pytest.mark.parametrize("op", sorted(backend._LACKS["triton"]))
def test_a_backend_without_an_op_is_refused_before_it_is_imported(op, monkeypatch):
    monkeypatch.setitem(sys.modules, "rsir.ops.triton", None)
    with pytest.raises(BackendUnavailable, match=f"backend 'triton' has no {op}: use backend='reference'"):
        backend.resolve("triton", op, ITEMS)


def test_auto_goes_by_device_dtype_and_op(monkeypatch):
    monkeypatch.setattr(backend, "load", lambda name: name)
    cuda = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    double = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float64)
    meta = ITEMS.to("meta")
    assert [backend.resolve("auto", op, ITEMS) for op in ("pack", "adam_rows")] == ["cpp", "cpp"]
    assert [backend.resolve("auto", op, cuda) for op in ("pack", "sampled_softmax")] == ["triton", "triton"]
    assert backend.resolve("auto", "transformer_layer", cuda) == "reference"
    assert backend.resolve("auto", "sampled_softmax", double) == "reference"
    assert backend.resolve("auto", "adam_rows", meta) == "reference"
    with pytest.raises(BackendUnavailable, match="no default backend for device 'meta'"):
        backend.resolve("auto", "pack", meta)

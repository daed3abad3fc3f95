"""The Triton backend refuses, with a way out, what it cannot do."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", minversion="3.5")


def test_cpu_tensors_need_the_interpreter():
    code = (
        "import torch, rsir.errors, rsir.ops as ops\n"
        "try:\n    ops.topk(torch.ones(1, 2), torch.ones(3, 2), 1, backend='triton')\n"
        "except rsir.errors.BackendUnavailable as refusal:\n    print(refusal)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "TRITON_INTERPRET=1" in done.stdout
    assert "cpp" in done.stdout


def test_missing_triton_names_the_extra():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, rsir.errors, rsir.ops as ops\n"
        "try:\n    ops.topk(torch.ones(1, 2), torch.ones(3, 2), 1, backend='triton')\n"
        "except rsir.errors.BackendUnavailable as refusal:\n    print(refusal)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "rsir[triton]" in done.stdout


def test_unknown_precision():
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the kernels are not interpreted in this process")
    from rsir import ops

    with pytest.raises(ValueError, match="precision"):
        ops.pack(torch.ones(3, 2), backend="triton", instruction_set="avx2")


def test_a_rounded_copy_of_embeddings_that_changed_is_refused():
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the kernels are not interpreted in this process")
    from rsir import ops

    items = torch.randn(20, 4)
    rounded, exact = (ops.pack(items, backend="triton", instruction_set=name) for name in ("float16", "ieee"))
    items.neg_()
    with pytest.raises(ValueError, match="changed in place after they were packed"):
        ops.topk(torch.randn(1, 4), rounded, 1)
    query = torch.randn(1, 4)
    assert torch.equal(ops.topk(query, exact, 3).ids, ops.topk(query, items, 3, backend="reference").ids)


def test_a_margin_of_embeddings_that_changed_is_refused():
    """Rounding items of float16 to float16 copies nothing, but their norms and what rounding lost are of before."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the kernels are not interpreted in this process")
    from rsir import ops

    items = torch.randn(20, 4).half()
    table = ops.pack(items, backend="triton", instruction_set="float16", dtype=torch.float16)
    items.mul_(100)
    with pytest.raises(ValueError, match="changed in place after they were packed"):
        ops.topk(torch.randn(1, 4), table, 1)

"""Everything that a GPU would compute, on a device that only pretends to be one (:mod:`tests.pretend.device`)."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", minversion="3.5")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
ROOT = Path(__file__).parents[2]
MODELS = ["sasrec", "cl4srec", "esasrec", "hstu", "gru4rec", "bsarec"]


def run(name, folder):
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.pretend.cases", name, str(folder)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def answer(name, folder):
    done = run(name, folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", MODELS)
def test_the_recursion(name, tmp_path):
    found = answer(name, tmp_path)
    for kind in ("loss", "ndcg", "decoded"):
        assert math.isclose(found["cuda"][kind], found["cpu"][kind], rel_tol=1e-4), found
    assert found["launches"] > 1000
    assert found["recommended"] == 3
    assert found["enriched"] >= 12  # the real sequences among them
    environment = found["environment"]
    assert (environment["device"], environment["gpu"], environment["cuda"]) == ("cuda", "Pretended", "13.0")
    assert environment["triton"][0].isdigit()


def test_export(tmp_path):
    assert answer("exported", tmp_path) == "cuda:0"
    query = torch.export.load(tmp_path / "model.pt2").module()(torch.tensor([[1, 2, 0]]), torch.tensor([2]))
    assert query.shape == (1, 8)
    assert query.device.type == "cpu"
    assert (tmp_path / "model.faiss").exists()


def test_resuming_on_another_kind_of_device_is_refused(tmp_path):
    found = answer("resumed", tmp_path)
    assert found["cuda on cuda"] == found["cpu on cpu"] == "resumed"
    assert "stopped on cuda and cannot be resumed on cpu" in found["cuda on cpu"]
    assert "stopped on cpu and cannot be resumed on cuda" in found["cpu on cuda"]


def test_the_acceptance_script_compares_cpu_and_gpu(tmp_path):
    assert all(answer("accepted", tmp_path).values())


def test_the_parts_of_the_acceptance_script():
    """But for compilation, which tests/kernels/test_compile.py does, and the comparison above."""
    command = [sys.executable, "-m", "benchmarks", "gpu_acceptance", "--rehearse", "--parts", "tests", "ops", "run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("| part | passed |") :].splitlines()
    assert table[2:] == ["| tests | yes |", "| ops | yes |", "| run | yes |"]


def test_a_planted_fault_is_found_with_its_line(tmp_path):
    done = run("mixed", tmp_path)
    assert done.returncode != 0
    assert "MixedDevices" in done.stderr
    assert "cuda:0 and cpu [(4,)] at tests/pretend/cases.py:" in done.stderr


def test_launches_and_waits_of_a_step(tmp_path):
    """Bounds are what was counted, with a little room: lower them with every step that asks less."""
    found = answer("counted", tmp_path)
    total = {step: {kind: sum(each.values()) for kind, each in kinds.items()} for step, kinds in found.items()}
    assert total["train"]["waits"] == 0, found["train"]["waits"]
    assert total["train"]["copies"] <= 1, found["train"]["copies"]
    assert total["train"]["launches"] <= 178, total
    assert total["decode"]["waits"] <= 2, found["decode"]["waits"]
    assert total["decode"]["launches"] <= 48, total
    assert total["decode"]["copies"] <= 4, found["decode"]["copies"]


def test_training_steps_as_graphs(tmp_path):
    """A graph of the pretended device records a step, computes nothing meanwhile, and repeats it."""
    found = answer("captured", tmp_path)
    for name in ("sasrec", "hstu", "bsarec"):
        (plain, launches), (weights, host) = found[f"{name} False"], found[f"{name} True"]
        assert math.isclose(plain, weights, rel_tol=1e-5), (name, found)
        assert launches > 100
        assert host <= 6, (name, found)
    assert found["cl4srec False"] == found["cl4srec True"]  # which says that it cannot be captured


def test_decode_steps_as_graphs(tmp_path):
    assert answer("decoded", tmp_path)

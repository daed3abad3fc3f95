"""What a GPU shows in eight minutes: do the kernels compile and answer right, and how far is the CPU behind?

``python -m benchmarks gpu_acceptance --data amazon-toys.txt`` runs the parts one after the other, each within its own
limit, in all within eight minutes: compilation for this GPU, the tests of kernels and ops on it, the ops beside the
roofline, the same training, evaluation and generation on CPU and GPU, and one run. Ends with a table of what passed.
"""

from __future__ import annotations

import argparse
import copy
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from rsir.config import RecursionConfig, from_dict, to_dict
from rsir.data import leave_one_out
from rsir.data.load import load_data
from rsir.evaluation import evaluate
from rsir.generation.fidelity import build
from rsir.generation.generate import generate
from rsir.models import pack_items
from rsir.runtime.runtime import Runtime
from rsir.training.fit import fit

SMALL: dict[str, Any] = {
    "simulation": {"num_users": 6, "num_items": 10},
    "model": {"dim": 8, "feedforward": 8, "max_len": 8},
    "training": {"evaluate_every": 4, "batch_size": 64, "negatives": 8, "learning_rate": 0.02},
    "generation": {"min_length": 2},
    "fidelity": {"tau": 5},
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu_acceptance", description=__doc__)
    parser.add_argument("--data", type=Path, help="interactions to learn from (default: simulated users)")
    parser.add_argument("--epochs", type=int, default=8, help="validations that CPU and GPU train for")
    parser.add_argument("--rehearse", action="store_true", help="small parts on the pretended device of tests/pretend")
    parser.add_argument("--parts", nargs="+", help="these parts alone: compile, tests, ops, compare, run")
    parser.add_argument("--only", choices=["compare"], help="this part alone, in this process")
    options = parser.parse_args(arguments)
    if not (torch.cuda.is_available() or options.rehearse):
        print("benchmarks gpu_acceptance: needs a GPU, and torch.cuda.is_available() is False", file=sys.stderr)
        return 1
    data = None if options.data is None else str(options.data)
    if options.only:
        checks = compare(data, options.epochs, options.rehearse)
        print(
            "\n".join(
                f"{name}: {'as it should be' if right else 'NOT as it should be'}" for name, right in checks.items()
            )
        )
        return 0 if all(checks.values()) else 1
    with tempfile.TemporaryDirectory() as folder:
        parts = _rehearsal(folder) if options.rehearse else _parts(folder, data, options.epochs)
        names = options.parts or list(parts)
        if unknown := sorted(set(names) - set(parts)):
            parser.error(f"--parts: expected some of {list(parts)}, got {unknown}")
        passed = {name: _part(name, *parts[name]) for name in names}
    print("\n| part | passed |\n|---|---|")
    for name, right in passed.items():
        print(f"| {name} | {'yes' if right else '**no**'} |")
    return 0 if all(passed.values()) else 1


Parts = dict[str, tuple[float, list[str]]]
"""Seconds that each part may take, in all under eight minutes, and its command after ``python -m``."""


def _parts(folder: str, data: str | None, epochs: int) -> Parts:
    major, minor = torch.cuda.get_device_capability()
    own = [] if data is None else ["--data", data]
    commands = {
        "compile": (60, f"rsir kernels inspect --precisions ieee tf32 bfloat16 --architectures sm_{major}{minor}"),
        "tests": (110, "pytest -q -n 8 tests/kernels tests/ops --deselect tests/kernels/test_compile.py"),
        "ops": (90, "benchmarks gpu --items 12000 1000000 --rounds 7"),
        "compare": (120, f"benchmarks gpu_acceptance --only compare --epochs {epochs}"),
        "run": (90, f"rsir run --gpu --rounds 1 --seed 0 --out {folder}/run"),
    }
    more = {"tests": ["-k", "triton or kernels"], "compare": own, "run": own}
    return {name: (limit, command.split() + more.get(name, [])) for name, (limit, command) in commands.items()}


def _rehearsal(folder: str) -> Parts:
    """The same with little work, and but for compilation on the pretended device."""
    small = "--simulation.num_users 12 --simulation.num_items 12 --training.max_evaluations 1 --model.max_len 8"
    commands = {
        "compile": "rsir kernels inspect --precisions ieee --architectures sm_90",
        "tests": "tests.pretend pytest -q -p no:cacheprovider tests/kernels/test_random_words.py",
        "ops": "tests.pretend benchmarks gpu --items 200 --rows 20 --dim 16 --rounds 1 --precisions ieee bfloat16",
        "compare": "tests.pretend benchmarks gpu_acceptance --only compare --rehearse --epochs 1",
        "run": f"tests.pretend rsir run --gpu --rounds 1 --seed 0 --out {folder}/run --generation.m 1 {small}",
    }
    return {name: (300, command.split()) for name, command in commands.items()}


def _part(name: str, limit: float, command: list[str]) -> bool:
    """Run ``python -m`` of a command and print its last lines; whether it ended well within its limit of seconds."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=_environment(command),
    )
    try:
        text, _ = process.communicate(timeout=limit)
        right = process.returncode == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
        text, right = f"{process.communicate()[0]}\nnot done within {limit:.0f} s", False
    print(f"== {name}: {time.perf_counter() - began:.0f} s\n" + "\n".join(text.splitlines()[-30:]), flush=True)
    return right


def _environment(command: list[str]) -> dict[str, str]:
    """Kernels are interpreted on the pretended device alone."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return kept | ({"TRITON_INTERPRET": "1"} if command[0] == "tests.pretend" else {})


def compare(path: str | None, epochs: int, small: bool = False) -> dict[str, bool]:
    """Train, evaluate and generate on CPU and GPU, print times and differences; which of them are small enough."""
    settings: dict[str, Any] = {name: dict(section) for name, section in (SMALL if small else {}).items()}
    settings.setdefault("training", {}).update({"max_evaluations": epochs, "patience": 99})
    settings.setdefault("generation", {})["m"] = 1 if small else 2
    settings |= {"seed": 0, "data": {"path": path}}
    config = from_dict(RecursionConfig, settings)
    parts = leave_one_out(load_data(config))
    once = from_dict(type(config.training), to_dict(config.training) | {"max_evaluations": 1})

    def train(device: str, training: Any = config.training) -> Any:
        return fit(config.model, training, parts.train, parts.validation, seed=1, runtime=Runtime(device=device))

    def made(model: Any) -> Any:
        table = pack_items(model)
        policy = build(config.fidelity, model.item_embeddings().detach(), 1, table)
        return generate(model, parts.train, config.generation, policy, seed=0, round_=1, table=table).trajectories

    rounded = from_dict(type(config.training), to_dict(config.training) | {"loss_precision": "bfloat16"})
    cpu, on_cpu = _timed(lambda: train("cpu"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        _, first = _timed(lambda: train("cuda", once))
        gpu, on_gpu = _timed(lambda: train("cuda"))
    refused = [str(each.message) for each in warned if "without a CUDA graph" in str(each.message)]
    with mock.patch.object(torch.backends.cuda, "is_built", return_value=False):
        plain, launched = _timed(lambda: train("cuda"))
    half, on_half = _timed(lambda: train("cuda", rounded))
    ways = cpu, gpu, plain, half
    best = [max(each.metrics["ndcg@20"] for each in one.history) for one in ways]
    losses = [one.history[0].loss for one in ways]
    print(f"training: CPU {on_cpu:.2f} s, GPU {on_gpu:.2f} s, first with compilation {first:.2f} s, without graphs")
    print(f"{launched:.2f} s, with the loss in bfloat16 {on_half:.2f} s; {' '.join(refused) or 'no graph was refused'}")
    print("first losses and best NDCG@20 in this order: " + ", ".join(map("{:.6f} {:.4f}".format, losses, best)))

    model = cpu.model
    there = _on_gpu(model)
    ranks_cpu, on_cpu = _timed(lambda: evaluate(model, parts.test).ranks)
    evaluate(there, parts.test)
    ranks_gpu, on_gpu = _timed(lambda: evaluate(there, parts.test).ranks)
    differ = float(np.mean(np.asarray(ranks_cpu) != np.asarray(ranks_gpu)))
    print(f"evaluation: CPU {on_cpu:.3f} s, GPU {on_gpu:.3f} s, ranks that differ {differ:.3%}")

    one, on_cpu = _timed(lambda: _rows(made(model)))
    _, first = _timed(lambda: made(there))
    two, on_gpu = _timed(lambda: _rows(made(there)))
    same = len(one & two) / max(1, len(one | two))
    print(f"generation: CPU {on_cpu:.2f} s, GPU {on_gpu:.2f} s, first with compilation {first:.2f} s")
    print(f"equal trajectories {same:.4f}; most memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    return {
        "loss": abs(losses[0] - losses[1]) < 1e-3 * losses[0],
        "quality": max(abs(best[0] - other) for other in best[1:]) < 0.05 * best[0],
        "graphs": not refused and abs(losses[1] - losses[2]) < 1e-3 * losses[2],
        "ranks": differ < 0.01,
        "trajectories": same > 0.99,
        "the same twice": _rows(made(there)) == two,
    }


def _on_gpu(model: Any) -> Any:
    there = copy.deepcopy(model).to("cuda")
    return there.eval()


def _rows(found: Any) -> set[tuple[int, ...]]:
    return {(int(source), *found[row].tolist()) for row, source in enumerate(found.source)}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    torch.cuda.synchronize()
    began = time.perf_counter()
    answer = work()
    torch.cuda.synchronize()
    return answer, time.perf_counter() - began

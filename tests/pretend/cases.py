"""``python -m tests.pretend.cases NAME FOLDER``: one case on the pretended device (:mod:`tests.pretend.test_pretend`).

Prints what came of it as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")

from tests.pretend import device

device.install()

import torch  # noqa: E402

import rsir  # noqa: E402
from benchmarks import gpu_acceptance  # noqa: E402
from rsir.config import RecursionConfig, from_dict  # noqa: E402
from rsir.data import leave_one_out  # noqa: E402
from rsir.data.load import load_data  # noqa: E402
from rsir.errors import TrainingError  # noqa: E402
from rsir.export.model import export  # noqa: E402
from rsir.generation.on_device import DeviceEngine  # noqa: E402
from rsir.runtime.runtime import Runtime  # noqa: E402
from rsir.training.fit import fit  # noqa: E402
from rsir.training.state import TrainingState  # noqa: E402

BASE: dict[str, dict[str, Any]] = {
    "simulation": {"num_users": 12, "num_items": 12},
    "model": {"dim": 8, "feedforward": 8, "max_len": 8},
    "training": {"evaluate_every": 4, "max_evaluations": 1, "batch_size": 64, "negatives": 8, "learning_rate": 0.02},
    "generation": {"m": 1, "min_length": 2},
    "fidelity": {"tau": 5},
}
# Each backbone, policy and option is in one of them.
RUNS: dict[str, dict[str, Any]] = {
    "sasrec": {"acquisition": {"policy": "capped", "cap": 1}, "generation": {"p": 1.0}, "training": {"ema": 0.0}},
    "cl4srec": {
        "retention": "all",
        "rounds": 2,
        "distillation": {"share": 0.5, "k": 5},
        "acquisition": {"policy": "disagreement", "cap": 1, "passes": 2},
    },
    "esasrec": {
        "generation": {"k": 1, "start": "prefix", "slots": 3},
        "fidelity": {"policy": "neighbours", "neighbours": 5},
    },
    "hstu": {
        "fidelity": {"policy": "both", "verify": "trust", "neighbours": 8, "on_fail": "keep"},
        "item_table": "float16",
        "training": {"proposal": "popularity"},
        "generation": {"p": 0.0, "keep_copies": True},
    },
    "gru4rec": {
        "model": {"layers": 1},
        "retention": "pair",
        "rounds": 2,
        "successor": "finetune",
        "sources": "all",
        "fidelity": {"policy": "off"},
    },
    "bsarec": {"training": {"negatives": 0}},
}


def config_of(name: str) -> RecursionConfig:
    settings: dict[str, Any] = {"seed": 3, "rounds": 1, "retention": "none"}
    settings |= {section: dict(values) for section, values in BASE.items()}
    settings["model"]["name"] = name
    for key, value in RUNS[name].items():
        settings[key] = settings.get(key, {}) | value if isinstance(value, dict) else value
    return from_dict(RecursionConfig, settings)


def run(name: str, folder: Path) -> dict[str, Any]:
    """The recursion on both devices, and recommendations, exports and more sequences from the one on the GPU."""
    config, found = config_of(name), {}
    for kind in ("cuda", "cpu"):
        result = rsir.run(config, out=folder / kind, device=kind)
        last = result.rounds[-1]
        found[kind] = {"ndcg": last.validation["ndcg@20"], "loss": last.history["loss"][-1], "decoded": last.generated}
        if kind == "cuda":
            assert all(value.is_cuda for value in result.model.state_dict().values())
            again = rsir.run(config, out=folder / kind, device=kind, resume=True)
            assert again.rounds[-1].validation == last.validation
            found["environment"] = json.loads((folder / kind / "env.json").read_text())
            loaded = rsir.load(folder / kind, device=kind)
            found["recommended"] = len(loaded.recommend([loaded.data.item_labels.to_pylist()[:3]], 3)[0])
            found["enriched"] = len(rsir.enrich(result.data, result.model, seed=1).source)
    found["launches"] = sum(device.COUNTS.launches.values())
    return found


CASES: dict[str, Callable[[Path], Any]] = {}


def case(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    CASES[function.__name__] = function
    return function


@case
def exported(folder: Path) -> Any:
    """A model on the device is written as a program that runs on the CPU."""
    result = rsir.run(config_of("sasrec"), device="cuda")
    export(result.model, result.data, folder / "model.faiss")
    export(result.model, result.data, folder / "model.pt2")
    return str(next(result.model.parameters()).device)  # the model itself stays where it is


@case
def resumed(folder: Path) -> Any:
    """A training that was stopped on one kind of device goes on there, and is refused on the other."""

    def training(kind: str) -> tuple[Any, ...]:
        model = torch.nn.Linear(3, 2).to(kind)
        return model, torch.optim.Adam(model.parameters(), fused=True), torch.Generator(kind)

    saved, answers = {}, {}
    for kind in ("cuda", "cpu"):
        model, optimizer, generator = training(kind)
        model(torch.ones(1, 3, device=kind)).sum().backward()
        optimizer.step()
        saved[kind] = TrainingState().save(model, optimizer, generator)
    for before in saved:
        for kind in saved:
            try:
                TrainingState.restore(saved[before], *training(kind))
                answers[f"{before} on {kind}"] = "resumed"
            except TrainingError as refused:
                answers[f"{before} on {kind}"] = str(refused)
    return answers


@case
def counted(folder: Path) -> Any:
    """Launches, waits and copies of the third step of a training and of a generation."""
    steps: dict[str, list[Any]] = {"train": [], "decode": []}

    def snapshot(kind: str) -> None:
        now = device.COUNTS
        steps[kind].append([now.launches.copy(), now.waits.copy(), now.copies.copy()])

    def progress(phase: str, done: int, total: int | None, unit: str, note: str = "") -> None:
        if unit == "steps":
            snapshot("train")

    plain = DeviceEngine._advance

    def advance(engine: DeviceEngine, slots: torch.Tensor) -> torch.Tensor:
        snapshot("decode")
        return plain(engine, slots)

    DeviceEngine._advance = advance  # type: ignore[method-assign]
    config = config_of("sasrec")
    training = {"batch_size": 8, "max_evaluations": 1}
    rsir.run(config, device="cuda", progress=progress, generation={"p": 0.5, "m": 4}, training=training)
    found = {}
    for kind, seen in steps.items():
        names = ("launches", "waits", "copies")
        found[kind] = {n: after - before for n, before, after in zip(names, seen[1], seen[2], strict=True)}
    return found


@case
def captured(folder: Path) -> Any:
    """A training whose steps are graphs, and one whose are not: losses, and launches of the last step of each."""
    found: dict[str, Any] = {}
    for name in ("sasrec", "hstu", "bsarec", "cl4srec"):
        for graphs in (False, True):
            torch.backends.cuda.is_built = lambda graphs=graphs: graphs  # type: ignore[misc]
            launches: list[int] = []

            def progress(*others: Any, launches: list[int] = launches) -> None:
                launches.append(sum(device.COUNTS.launches.values()))

            settings = {section: dict(values) for section, values in BASE.items()}
            settings["model"] |= {"name": name, "dropout": 0.0}
            settings["training"] |= {"evaluate_every": 8, "schedule": "cosine", "ema": 0.9, "batch_size": 8}
            if name == "bsarec":
                settings["training"]["loss_precision"] = "bfloat16"
            config = from_dict(RecursionConfig, settings)
            train = leave_one_out(load_data(config)).train
            made = fit(
                config.model,
                config.training,
                train,
                None,
                seed=1,
                steps=(8, 0),
                runtime=Runtime(device="cuda", progress=progress),
            )
            total = sum(float(value.detach().abs().sum()) for value in made.model.parameters())
            found[f"{name} {graphs}"] = [total, launches[-1] - launches[-2]]
    return found


@case
def decoded(folder: Path) -> Any:
    """Whether trajectories of decode steps that are graphs are those of steps that are not."""
    config = config_of("sasrec")
    model = rsir.run(config, device="cuda", rounds=0)
    found = []
    for graphs in (False, True):
        torch.backends.cuda.is_built = lambda graphs=graphs: graphs  # type: ignore[misc]
        made = rsir.enrich(model.data, model.model, generation=config.generation, fidelity=config.fidelity, seed=1)
        found.append([made.items.tolist(), made.offsets.tolist()])
    replays = sum(count for line, count in device.COUNTS.launches.items() if line.startswith("replay"))
    return found[0] == found[1] and len(found[0][1]) > len(model.data.offsets) and replays > 0


@case
def accepted(folder: Path) -> Any:
    """The comparison of the acceptance script."""
    return gpu_acceptance.compare(None, 1, small=True)


@case
def mixed(folder: Path) -> Any:
    """A planted fault: a mask that was made on the host."""
    weights = torch.ones(3, 4, device="cuda")
    return (weights * torch.ones(4)).sum().item()


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    found = run(name, folder) if name in RUNS else CASES[name](folder)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()

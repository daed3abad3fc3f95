"""The SHA-256 of every file that a matrix of runs writes, and whether it is that of an earlier record.

``--out FILE.json`` records, ``--compare FILE.json`` compares (exit status 1: something differs; it names case, file
and, in JSON files, the keys); both may be given. ``--quick`` runs the small cases alone, ``--only NAME`` those named
(patterns such as ``'tiny/*'``). It runs ``python -m rsir.recurse`` and what else users call, by the interpreter that
``--python`` names, and expects nothing else of rsir, so that two versions can be held against each other. What depends
on the clock is left out: timings, the log, the page. Weights depend on processor and libraries, too: compare on one
machine.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Steps = list[list[str]]
"""What a case does, one after the other: a module and its arguments, or a function of this file (``@name``)."""

TINY = [
    *("--stop_after", "9", "--guard", "false"),
    *("--simulation.num_users", "60", "--simulation.num_items", "40", "--simulation.mean_length", "6"),
    *("--model.dim", "8", "--model.layers", "1", "--model.feedforward", "8", "--model.max_len", "8"),
    *("--training.batch_size", "32", "--training.negatives", "16", "--training.evaluate_every", "3"),
    *("--training.max_evaluations", "3", "--training.learning_rate", "0.01"),
    *("--generation.m", "2", "--generation.slots", "48", "--fidelity.tau", "15"),
]
SMALL = ["--simulation.num_users", "300"]
BACKBONES = ("bsarec", "sasrec", "cl4srec", "esasrec", "gru4rec", "hstu")  # the default first
SETTINGS = {
    "neighbours": ["--fidelity.policy", "neighbours"],
    "both": ["--fidelity.policy", "both"],
    "off": ["--fidelity.policy", "off"],
    "capped": ["--acquisition.policy", "capped"],
    "disagreement": ["--acquisition.policy", "disagreement"],
    "finetune": ["--successor", "finetune"],
    "distillation": ["--distillation.share", "0.5"],
    "float16": ["--item_table", "float16"],
    "pair": ["--retention", "pair"],
    "none": ["--retention", "none"],
    "accumulate": ["--accumulate", "true", "--sources", "all"],
    "others": [
        *("--generation.start", "prefix", "--fidelity.on_fail", "keep", "--training.proposal", "popularity"),
        *("--training.synthetic_weight", "0.5", "--training.ema", "0", "--distillation.share", "0.3"),
        *("--distillation.targets", "synthetic", "--seed", "7"),
    ],
    "memory": ["--memory", "1GiB"],
    "no-vote": ["--itemknn.vote", "off"],
    "both-generate": ["--generation.generator", "recommender", "--fidelity.policy", "rank-itemknn"],
    "counted-teacher": ["--distillation.share", "0.5", "--distillation.teacher", "itemknn"],
    "full-softmax": ["--training.negatives", "0", "--training.loss_precision", "bfloat16"],
    "cosine": ["--training.schedule", "cosine"],
}
EXPORTS = ("parquet", "arrow", "csv", "inter", "txt", "faiss")
PUBLIC = {"toys": "amazon-toys.txt", "movielens": "ml-100k.inter"}
FREE = ("log.jsonl", "report.html", "timings.json")
KEPT = 65536  # bytes of a JSON file whose content is recorded, so that keys that differ can be named


def run(*options: str, threads: int | None = 1) -> list[str]:
    """A step: a run, in the folder ``run``."""
    return ["rsir.recurse", *options, *([] if threads is None else ["--threads", str(threads)]), "--out", "run"]


def together(step: list[str]) -> list[str]:
    """The same step by two processes."""
    return ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *step]


def uses(*kinds: str) -> Steps:
    """Steps: what a finished run is exported to and recommends."""
    return [*(["@export", f"export-{kind}.{kind}"] for kind in kinds), ["@recommend", "recommended.parquet"]]


def cases(data: Path) -> dict[str, Steps]:
    """Every case by name; those in ``tiny/`` are the quick ones."""
    log = ["--data.k_core", "2", "--fidelity.tau", "20"]
    by_time = ["--data.split", "global-time", "--data.target", "all", "--data.min_rating", "2"]
    some = ("--rounds", "2")
    tiny: dict[str, Steps] = {
        "default": [run(*TINY, *some), *uses(*EXPORTS)],
        "resumed": [run(*TINY, "--rounds", "1"), run("--rounds", "2", "--resume")],
        **{name: [run(*TINY, *some, "--model", name)] for name in BACKBONES[1:]},
        **{name: [run(*TINY, *some, *options)] for name, options in SETTINGS.items()},
        "text": [run(*TINY, *some, *log, "--data", "../inputs/log.txt"), *uses("txt")],
        "text-memory": [run(*TINY, *some, *log, "--data", "../inputs/log.txt", "--memory", "1GiB"), *uses("parquet")],
        "csv": [run(*TINY, *some, *log, *by_time, "--data", "../inputs/log.csv"), *uses("inter")],
        "update": [
            run(*TINY, "--rounds", "1", "--data.k_core", "2", "--fidelity.tau", "20", "--data", "../inputs/log.csv"),
            ["rsir", "update", "run", "--data", "../inputs/next.csv", "--rounds", "1", "--out", "updated"],
            ["rsir", "refit", "run", "--out", "refitted"],
        ],
        "enrich": [["@enrich", "enriched.json"]],
        "two-processes": [together(run(*TINY, *some))],
    }
    longer = [*SMALL, "--rounds", "2", "--stop_after", "9", "--guard", "false"]
    full: dict[str, Steps] = {
        "default": [run(), *uses("parquet", "faiss")],
        **{name: [run("--rounds", "1", *SMALL, "--model", name)] for name in BACKBONES},
        # what depends on the number of threads shows with two alone
        **{f"{name}-2-threads": [run("--rounds", "1", *SMALL, "--model", name, threads=2)] for name in BACKBONES},
        "threads-by-torch": [run("--rounds", "1", *SMALL, "--model", "gru4rec", threads=None)],
        **{name: [run("--rounds", "1", *SMALL, *options)] for name, options in SETTINGS.items()},
        **{name: [run(*longer, *SETTINGS[name])] for name in ("pair", "none", "accumulate")},
        "two-processes": [together(run("--rounds", "1", *SMALL))],
    }
    short = ("--rounds", "1", "--training.patience", "2", "--training.max_evaluations", "2")
    few = ("--generation.m", "2", "--training.evaluate_every", "20")
    for name, file in PUBLIC.items():
        if (data / file).exists():
            full[name] = [run(*short, *few, "--data", f"../inputs/{file}"), *uses("parquet")]
    return {f"tiny/{name}": steps for name, steps in tiny.items()} | full


def write_inputs(folder: Path, data: Path) -> None:
    """Files that cases read: two small ones made here, and the public data sets that are at hand."""
    folder.mkdir()
    draw = random.Random(1)
    rows = []
    for user in range(80):
        here = draw.sample(range(50), 4 + user % 7)
        rows.append([f"film {item}" if item % 3 else f"série {item}" for item in here])
    short = "".join(f"u{user} {' '.join(row)}\n" for user, row in enumerate(rows)).replace("film ", "f")
    (folder / "log.txt").write_text(short.replace("série ", "s"))
    lines = ["user_id,item_id,timestamp,rating"]
    lines += [
        f"u{user},{item},{1_600_000_000 + draw.randrange(100_000)},{draw.randrange(1, 6)}"
        for user, row in enumerate(rows)
        for item in row
    ]
    (folder / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    later = [f"u{user},film {draw.randrange(60)},{1_700_000_000 + user},{draw.randrange(1, 6)}" for user in range(20)]
    (folder / "next.csv").write_text("\n".join([lines[0], *later]) + "\n", encoding="utf-8")
    for file in PUBLIC.values():
        if (data / file).exists():
            (folder / file).symlink_to((data / file).resolve())


# What a forked process does, with the interpreter that is examined


def work(plan: Path) -> int:
    """Do the cases of a plan, each in a process forked from this one, so that libraries are loaded once."""
    sys.path.pop(0)  # this file's folder
    jobs = json.loads(plan.read_text())
    if len(jobs) > 1:
        _load_libraries()
    for job in jobs:
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            _in_child(Path(job["folder"]), job["steps"])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"case": job["case"], "status": status, "seconds": time.perf_counter() - began}), flush=True)
    return 0


def _load_libraries() -> None:
    import faiss  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch

    import rsir

    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    assert callable(rsir.load)  # which loads most of rsir


def _in_child(folder: Path, steps: Steps) -> None:
    status = 70
    try:
        os.chdir(folder)
        output = os.open("../output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for name, *arguments in steps:
            status = _FUNCTIONS[name[1:]](*arguments) if name.startswith("@") else _module(name, arguments)
            if status:
                break
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _module(name: str, arguments: list[str]) -> int:
    """``python -m NAME ARGUMENTS``; -> its exit status."""
    import runpy
    import warnings

    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ImportError as error:
        if error.name is not None and not name.startswith(error.name):
            raise
        print(f"no {name}: {error}", file=sys.stderr)
        return 127
    finally:
        sys.argv = before
    return 0


def _command(name: str, arguments: list[str], file: str) -> int:
    """``rsir NAME ...``, or ``python -m rsir.NAME ...``, as it was called before."""
    for module, more in (("rsir", [name, *arguments]), (f"rsir.{name}", arguments)):
        status = _module(module, more)
        if status == 0 and Path(file).exists():
            return 0
    return status or 70


def _export(file: str) -> int:
    return _command("export", ["run", file, *(["--round", "1"] if not file.endswith(".faiss") else [])], file)


def _recommend(file: str) -> int:
    return _command("recommend", ["run", "--out", file, "--k", "7"], file)


def _find(name: str) -> Any:
    """Something public of rsir, wherever it is; a module of that name holds it."""
    from importlib import import_module
    from types import ModuleType

    for place in ("rsir", "rsir.config", "rsir.data", f"rsir.data.{name}", "rsir.evaluation", "rsir.data.splits"):
        try:
            value = getattr(import_module(place), name, None)
        except ImportError:
            continue
        if value is not None and not isinstance(value, ModuleType):
            return value
    raise ImportError(f"rsir: expected {name} to be public, found it nowhere")


def _enrich(file: str) -> int:
    """As docs/models.md: a model of one's own generates, twice, and is evaluated."""
    import torch

    parts = _find("leave_one_out")(_find("simulate")().sequences.select(range(300)))

    class Recent:
        def __init__(self, table: Any) -> None:
            self.table = table
            self.num_items, self.max_len = len(table) - 1, 50

        def encode(self, items: Any, lengths: Any) -> Any:
            place = torch.arange(items.shape[1])
            recent = (place < lengths[:, None]) & (place >= lengths[:, None] - 3)
            return (self.table[items] * recent[..., None]).sum(1) / recent.sum(1, keepdim=True)

        def item_embeddings(self) -> Any:
            return self.table

    def fit(data: Any) -> Recent:
        hits = torch.zeros(len(data), data.num_items + 1)
        rows = torch.repeat_interleave(torch.tensor(data.lengths))
        hits[rows, torch.tensor(data.items, dtype=torch.int64)] = 1
        _, values, items = torch.linalg.svd(hits / hits.sum(0).clamp(min=1).sqrt(), full_matrices=False)
        return Recent((items[:32].T * values[:32].sqrt()).contiguous())

    model = fit(parts.train)
    generation, fidelity = _find("GenerationConfig")(m=3), _find("FidelityConfig")(tau=20)
    found = {}
    for policy in ("capped", "all"):
        acquisition = _find("AcquisitionConfig")(policy=policy, cap=2)
        more = _find("enrich")(parts.train, model, generation=generation, fidelity=fidelity, acquisition=acquisition)
        found[policy] = {
            "sequences": len(more),
            **{name: _digest(getattr(more, name).tobytes()) for name in ("items", "offsets", "source", "round")},
            "metrics": _find("evaluate")(fit(more), parts.validation).metrics,
        }
    Path(file).write_text(json.dumps(found, indent=1))
    return 0


_FUNCTIONS = {"enrich": _enrich, "export": _export, "recommend": _recommend}


# What a case wrote


def contents(folder: Path) -> dict[str, Any]:
    """Every file by its SHA-256, what depends on the clock left out; JSON files with their content."""
    hashes: dict[str, str] = {}
    values: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            hashes[name] = "folder"
            continue
        content = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(content)
            del manifest["checksum"]
            for files in manifest["rounds"].values():
                del files["timings.json"]
            content = json.dumps(manifest, sort_keys=True).encode()
        elif path.name == "env.json":
            content = json.dumps(sorted(json.loads(content))).encode()  # its names; what they say is the machine's
        elif path.suffix == ".json" and path.name not in FREE and len(content) < KEPT:
            values[name] = json.loads(content)
        hashes[name] = "" if path.name in FREE else _digest(content)
    return {"files": hashes, "values": values}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """A line for every file of a case that is not what it was."""
    files = before["files"], now["files"]
    for name in sorted(files[0].keys() | files[1].keys()):
        old, new = (each.get(name) for each in files)
        if old == new:
            continue
        if old is None or new is None:
            yield f"{name}: {'is new' if old is None else 'is missing'}"
        elif name in before["values"] and name in now["values"]:
            keys = list(_keys(before["values"][name], now["values"][name]))
            shown = "; ".join(keys[:6]) + (f"; {len(keys) - 6} more" if len(keys) > 6 else "")
            yield f"{name}: {shown or 'the same values, written in another way (order or layout)'}"
        else:
            yield f"{name}: other bytes" + (
                ", of its own or of what it lists" if name.endswith("manifest.json") else ""
            )


def _keys(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            name = f"{where}.{key}" if where else key
            if key not in new or key not in old:
                yield f"{name} {'is new' if key in new else 'is missing'}"
            else:
                yield from _keys(old[key], new[key], name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _keys(one, other, f"{where}[{place}]")
    elif old != new and not (old != old and new != new):
        yield f"{where} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


# The command


def record(python: str, chosen: dict[str, Steps], data: Path) -> tuple[dict[str, Any], bool]:
    """What every case wrote, and whether all ended well."""
    found: dict[str, Any] = {"environment": {}, "cases": {}}
    well = True
    with tempfile.TemporaryDirectory() as scratch:
        write_inputs(Path(scratch) / "inputs", data)
        tiny = [name for name in chosen if name.startswith("tiny/")]
        for batch in ([tiny] if tiny else []) + [[name] for name in chosen if name not in tiny]:
            for result, folder in _done(python, {name: chosen[name] for name in batch}, Path(scratch)):
                name, seconds = result["case"], result["seconds"]
                if result["status"]:
                    lines = (folder.parent / "output.txt").read_text(errors="replace").strip().splitlines()
                    print(f"{name}: FAILED with status {result['status']}\n  " + "\n  ".join(lines[-8:]), flush=True)
                    well = False
                else:
                    found["cases"][name] = {**contents(folder), "seconds": round(seconds, 1)}
                    written = found["cases"][name]["files"]
                    print(f"{name}: {seconds:.1f} s, {len(written)} files and folders", flush=True)
                    if (folder / "run" / "env.json").exists():
                        found["environment"] = json.loads((folder / "run" / "env.json").read_text())
                shutil.rmtree(folder)
    return found, well


def _done(python: str, batch: dict[str, Steps], scratch: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Run some cases in a process; -> each one's result and folder, as they end."""
    jobs = []
    folders = {name: scratch / name.replace("/", "-") for name in batch}
    for name, steps in batch.items():
        folders[name].mkdir()
        jobs.append({"case": name, "steps": steps, "folder": str(folders[name])})
    (scratch / "plan.json").write_text(json.dumps(jobs))
    threads = "2" if any("threads" in name for name in batch) else "1"
    numbers = {f"{name}_NUM_THREADS": threads for name in ("OMP", "MKL", "OPENBLAS")}
    environment = {**os.environ, **numbers}
    command = [python, os.path.abspath(__file__), "--work", str(scratch / "plan.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=scratch) as process:
        assert process.stdout is not None
        for line in process.stdout:
            result = json.loads(line)
            yield result, folders[result["case"]]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}; its error is above")


def compare(before: dict[str, Any], now: dict[str, Any], name_of_record: str) -> bool:
    """Print what differs; -> whether nothing does."""
    where = ("cpu", "instruction_set", "torch", "numpy", "python")
    other = [key for key in where if before["environment"].get(key) != now["environment"].get(key)]
    if other and now["environment"]:
        print(f"Note: {name_of_record} was made with another {', '.join(other)}: weights may differ for that alone")
    differing = 0
    for name, case in now["cases"].items():
        if name not in before["cases"]:
            lines = [f"is not in {name_of_record}; record it with the version that is to be compared with"]
        else:
            lines = list(differences(before["cases"][name], case))
        differing += bool(lines)
        if lines:
            print("\n  ".join([f"{name}: DIFFERS", *lines]))
    files = sum(len(case["files"]) for case in now["cases"].values())
    print(f"{len(now['cases']) - differing} of {len(now['cases'])} cases are the same, of {files} files and folders")
    return not differing


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0: all is recorded and the same, 1: something differs or failed."""
    above = (*Path(__file__).resolve().parents, *Path.cwd().parents)
    near = next((place for place in (folder / "shared" / "data" for folder in above) if place.is_dir()), Path("data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose rsir is run [this one]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with an earlier record")
    parser.add_argument("--quick", action="store_true", help="only the small cases")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these cases")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        default=Path(os.environ.get("RSIR_DATA", near)),
        help="of amazon-toys.txt and ml-100k.inter [RSIR_DATA, or ../shared/data]; without a file, no case of it",
    )
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        return work(options.work)
    chosen = cases(options.data)
    if options.quick:
        chosen = {name: steps for name, steps in chosen.items() if name.startswith("tiny/")}
    if options.only:
        unknown = [each for each in options.only if not fnmatch.filter(chosen, each)]
        if unknown:
            parser.error(f"--only: there is no case {', '.join(unknown)}; --list names them")
        chosen = {name: chosen[name] for name in chosen if any(fnmatch.fnmatch(name, each) for each in options.only)}
    if options.list:
        print("\n".join(chosen))
        return 0
    if options.out is None and options.compare is None:
        parser.error("expected --out FILE, --compare FILE, or both")
    if not options.quick and not options.only:
        for name, file in PUBLIC.items():
            if name not in chosen:
                print(f"{name}: left out, as {file} is not in {options.data}; --data or RSIR_DATA names its folder")
    before = json.loads(options.compare.read_text()) if options.compare else None
    found, well = record(options.python, chosen, options.data)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    same = before is None or compare(before, found, str(options.compare))
    return 0 if well and same else 1


if __name__ == "__main__":
    sys.exit(main())

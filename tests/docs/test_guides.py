"""The guides' code runs as it stands there, in an empty folder, and their commands are such as exist."""

from __future__ import annotations

import re
import shlex
from importlib import import_module

import pyarrow as pa
import pytest

import rsir
from rsir.cli import main as command
from rsir.cli.commands import COMMANDS
from rsir.cli.options import OPTIONS
from rsir.cli.studies import results_parser
from rsir.data import Sequences, leave_one_out, write
from tests.docs.pages import DOCS, ROOT, blocks

GUIDES = [
    *(
        "quickstart",
        "data",
        "objects",
        "serving",
        "updating",
        "models",
        "settings",
        "stronger",
        "gpu",
        "large",
        "machines",
        "distributed",
        "paper",
    ),
    "studies",
]
SMALLER = {"num_users=1500, num_items=900": "num_users=200, num_items=120", "patience=5": "max_evaluations=2"}
"""What of the code takes long, and what the tests run in its place."""


def check(line: str, run: bool) -> None:
    """Run a command of a guide, or, where that would take long or needs more than the tests have, its options alone."""
    words = shlex.split(line, comments=True)
    if words[:3] == ["python", "-m", "rsir.recurse"]:
        words[:3] = ["rsir"]
    if words[:3] == ["rsir", "studies", "results"]:
        results_parser().parse_args(words[3:])
    elif words[0] == "rsir" and words[1] in COMMANDS and words[1] != "run":
        import_module(f"rsir.cli.{words[1]}").parser().parse_known_args(words[2:])
        # fetching needs a network, tuning a GPU and studies hours; ONNX takes a while, and has tests of its own
        if (
            words[1] in ("inspect", "recommend", "similar", "refit", "update", "export", "report")
            and run
            and ".onnx" not in line
        ):
            assert command.main(words[1:]) == 0
    elif words[0] == "rsir":
        options = [word for word in words[1:] if word not in ("run", "--resume", "--gpu")]
        assert command.main(options if run else [*options, "--print-config"]) == 0
    elif words[0] == "torchrun":
        assert command.main([*words[words.index("rsir.recurse") + 1 :], "--print-config"]) == 0
    elif words[:2] == ["python", "-m"] and words[2] == "benchmarks":
        assert (ROOT / "benchmarks" / f"{words[3]}.py").exists()
    elif words[:2] == ["python", "-m"]:
        assert words[2] in ("tests.harness", "pytest", "venv"), line
    else:
        assert words[0] in ("python", "rectools/bin/python", "recbole/bin/python"), line
        script = next((word for word in words[1:] if word.endswith(".py")), None)
        assert script is None or (ROOT / script).exists()


@pytest.mark.parametrize(
    "page",
    GUIDES,
    ids=lambda page: page,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_guide(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    found = blocks(page)
    assert found
    for kind, code in found:
        if kind == "python":
            for old, new in SMALLER.items() if page == "settings" else ():
                assert old in code or "fit(" not in code
                code = code.replace(old, new)
            exec(compile(code, f"{page}.md", "exec", dont_inherit=True), names)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            check(line, run=page in ("quickstart", "data", "serving", "updating", "models"))


def test_readme(tmp_path, monkeypatch):
    """Its commands exist, and its Python runs, with a short training and a log of its own for what it leaves open."""
    monkeypatch.chdir(tmp_path)
    log = Sequences.from_lists(
        [[(user + step) % 25 + 1 for step in range(6)] for user in range(40)],
        item_labels=pa.array([f"item {number}" for number in range(25)]),
    )
    write(log, "interactions.csv")
    short = "rounds=1, training=TrainingConfig(max_evaluations=1), fidelity=FidelityConfig(tau=10)"
    names = {"__name__": "README"}
    exec("from rsir.config import FidelityConfig, TrainingConfig", names)
    python, shell = ([code for kind, code in blocks("README") if kind == wanted] for wanted in ("python", "bash"))
    first, second = python
    assert "rounds=2" in first
    exec(first.replace("rounds=2", short), names)
    names |= {"train": leave_one_out(log).train, "encoder": rsir.load("runs/mine").model}
    exec(second, names)
    assert {path.name for path in tmp_path.iterdir()} == {"interactions.csv", "runs", "enriched.parquet"}
    for line in "".join(shell).splitlines():
        if not line.startswith("pip install"):  # those two are run by .ci/run
            check(line, run=False)


def test_defaults_that_pages_name():
    """`generation.p` ... [0.5]: what stands in brackets behind a setting in a row of a table is its default."""
    row = re.compile(r"`(?:--)?([a-z_.]+)(?: [^`]+)?`[^|\[\n]*\[([a-z0-9.]+)\]")
    named = {
        (name, value)
        for page in ("README", "docs/settings", "docs/paper")
        for name, value in row.findall((ROOT / f"{page}.md").read_text("utf-8"))
        if name in OPTIONS
    }
    assert {"generation.p", "training.ema", "accumulate"} <= {name for name, _ in named}
    assert named == {(name, str(OPTIONS[name].default).lower()) for name, _ in named}


def test_every_page_has_its_place():
    """A page that is not in the menu is found by nobody, and code on it would not run."""
    menu = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    pages = [path for path in DOCS.rglob("*.md") if path.parent != DOCS / "results"]  # these are parts of results.md
    assert menu == {path.relative_to(DOCS).as_posix() for path in pages}
    with_code = {path.stem for path in DOCS.glob("*.md") if blocks(path.stem)}
    assert with_code - {"backbones", "extending", "robustness", "results", "shop"} == set(GUIDES)  # shop: test_shop.py

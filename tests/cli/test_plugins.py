"""--plugins: policies from a file outside the package, those of docs/extending.md, in a run by the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rsir
from rsir.cli import plugins
from rsir.cli.main import main
from rsir.data import Sequences, leave_one_out
from rsir.generation import acquisition, fidelity
from rsir.models import checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
OPTIONS = [
    *(
        "--rounds",
        "1",
        "--simulation.num_users",
        "150",
        "--simulation.num_items",
        "60",
        "--training.max_evaluations",
        "2",
    ),
    *("--model.dim", "8", "--model.layers", "1", "--model.feedforward", "8", "--generation.m", "3"),
    *("--fidelity.policy", "modest", "--acquisition.policy", "longest"),
]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    wanted = [block for block in blocks if "@fidelity.register" in block or "@acquisition.register" in block]
    assert len(wanted) == 2
    path = tmp_path / "mine.py"
    path.write_text("\n\n".join(wanted))
    return path


def rsir_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(Path(rsir.__file__).parents[1])}
    command = [sys.executable, "-m", "rsir", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)


def test_a_run_with_policies_from_a_file(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = rsir_command("--plugins", "mine.py", *OPTIONS, "--out", "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run = rsir.load(tmp_path / "run")  # reading takes no plugin
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (settings["fidelity"]["policy"], settings["acquisition"]["policy"]) == ("modest", "longest")
    assert "plugins" not in (tmp_path / "run" / "config.json").read_text()

    found = Sequences.load(tmp_path / "run" / "round-01" / "trajectories.parquet")
    assert len(found) > 20
    assert len(np.unique(found.source)) == len(found), "the longest of each source alone"
    embeddings = checkpoint.load(tmp_path / "run" / "round-00").item_embeddings().detach()  # type: ignore[operator]
    short = np.asarray(embeddings.norm(dim=1) <= embeddings.norm(dim=1)[1:].median())
    train = leave_one_out(run.data).train
    # a trajectory that has used up its source ends unchecked; a start comes from the source
    checked = [row for row in range(len(found)) if set(train[int(found.source[row])]) - set(found[row])]
    assert len(checked) > 10
    assert all(short[found[row][1:]].all() for row in checked)
    assert not short[run.data.items].all()

    assert main(["--out", str(tmp_path / "run"), "--resume", "--rounds", "2"]) == 2
    message = capsys.readouterr().err
    assert "fidelity.policy: expected one of both, itemknn, neighbours, off, rank, rank-itemknn, got 'm" in message
    assert "--plugins FILE.py" in message
    again = rsir_command("--out", "run", "--resume", "--rounds", "2", "--plugins=mine.py", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(rsir.load(tmp_path / "run").rounds) == 3


def test_registered_names_are_those_that_configurations_may_have() -> None:
    assert fidelity.POLICIES.names() == ["both", "itemknn", "neighbours", "off", "rank", "rank-itemknn"]
    assert acquisition.POLICIES.names() == ["all", "capped", "disagreement"]
    with pytest.raises(rsir.RsirError, match=r"fidelity\.policy 'rank' is registered already"):
        fidelity.register("rank")(fidelity.Off)


def test_an_unknown_acquisition_policy_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--acquisition.policy", "longst"]) == 2
    assert "acquisition.policy: expected one of all, capped, disagreement, got 'longst'" in capsys.readouterr().err
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\nx = nothing\n", "--plugins mine.py, line 2: NameError: name 'nothing' is not defined"),
        ("x = 1\n\nx = = 2\n", "--plugins mine.py, line 3: SyntaxError"),
        (
            "from rsir.generation import fidelity\nfidelity.register('off')(fidelity.Off)\n",
            "--plugins mine.py, line 2: fidelity.policy 'off' is registered already; choose another name",
        ),
        (None, "--plugins mine.py: expected a Python file, found none"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("mine.py").write_text(content)
    assert main(["--plugins", "mine.py", "--print-config"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_option_goes_with_every_command_and_a_file_is_imported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.chdir(tmp_path)
    Path("a mine.py").write_text("print('imported')\n")
    for _ in range(2):
        assert main(["completion", "bash", "--plugins", "a mine.py"]) == 0
    assert capsys.readouterr().out.count("imported\n") == 1
    assert plugins.as_options() == " --plugins 'a mine.py'"
    assert main(["--print-config", "--plugins"]) == 2
    assert "--plugins: expected a Python file, got nothing" in capsys.readouterr().err

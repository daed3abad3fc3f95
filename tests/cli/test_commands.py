"""The command tree: what it lists, how it is spelt, and what it answers to what is nearly right."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rsir.cli.commands import COMMANDS
from rsir.cli.main import main
from rsir.cli.parsing import Parser
from tests.cli.fake_loop import Loop

HELPS = [
    *([name, "--help"] for name in COMMANDS),
    ["--help"],
    ["--help-all"],
    ["studies", "results", "--help"],
    ["datasets", "fetch", "--help"],
]


def helped(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(["--help"], capsys)
    for name, what in COMMANDS.items():
        assert f"\n  {name} " in text
        assert what in text
    assert text == helped(["run", "--help"], capsys)


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_is_plain_text_that_fits(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(arguments, capsys)
    assert text.startswith("usage: rsir")
    assert "``" not in text
    assert "python -m rsir." not in text.replace("python -m rsir.recurse", "")
    assert max(map(len, text.splitlines())) <= 113


def test_the_kernels_name_their_commands(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton", minversion="3.5")
    for action in ("tune", "inspect"):
        text = helped(["kernels", action, "--help"], capsys)
        assert text.startswith(f"usage: rsir kernels {action} ")
        assert "``" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_with_a_parser(name: str) -> None:
    module = import_module(f"rsir.cli.{name}")
    made = module.parser()
    assert isinstance(made, Parser)
    assert made.prog == ("rsir" if name == "run" else f"rsir {name}")


@pytest.mark.parametrize(
    "given",
    [
        ["--stop-after", "3", "--seed", "5", "--data.path", "x.csv"],
        ["--stop_after=3", "--seed=5", "--data", "x.csv"],
        ["run", "--stop-after=3", "--seed=5", "--data=x.csv"],
    ],
)
def test_options_as_people_type_them(loop: Loop, given: list[str]) -> None:
    assert main(given) == 0
    assert (loop.config.stop_after, loop.config.seed, loop.config.data.path) == (3, 5, "x.csv")


def test_hyphens_and_underscores_are_the_same_in_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for spelt in ("--held-out", "--held_out"):
        assert main(["export", str(tmp_path), "x.csv", spelt]) == 2
        assert "holds no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("recomend runs/mine", "'recomend': unknown command; did you mean rsir recommend?"),
        ("xyzzy", "'xyzzy': unknown command; expected an option or one of run, inspect, recommend"),
        ("log.csv", "'log.csv': unexpected; options begin with --, as in --data log.csv"),
        ("runs/mine recommend", "recommend: the command comes first: rsir recommend runs/mine"),
        ("--out x.parquet recommend runs/mine", "recommend: the command comes first: rsir recommend --out x.parquet r"),
        ("--k 5 recommend runs/mine", "recommend: the command comes first: rsir recommend --k 5 runs/mine"),
        ("--completion bash", "--completion: unknown option; did you mean rsir completion?"),
        ("recommend", "rsir recommend: expected RUN; rsir recommend --help shows how"),
        ("recommend a --out b.parquet --repeet", "--repeet: unknown option; did you mean --repeats?"),
        ("recommend a b.csv --out b.parquet", "'b.csv': unexpected; rsir recommend --help shows what it takes"),
        ("recommend a --out b.parquet --k ten", "--k: invalid int value: 'ten'"),
        ("inspect", "rsir inspect: expected RUN"),
        ("inspect nothing", "nothing: holds no run: there is no manifest.json in it"),
        ("datasets fech yelp", "expected one of list, fetch, got 'fech'; did you mean fetch?"),
        ("studies sensitivty", "NAME: expected one of default, main, rounds,"),
        ("kernels tun", "expected one of tune, inspect, got 'tun'; did you mean tune?"),
        ("completion fish", "expected one of bash, zsh, got 'fish'"),
        ("report a b --plot c.svg", "--plot: draws one run and writes no page, got 2 runs"),
        ("report a --plot c.svg --out d.html", "--plot: draws one run and writes no page, got --out"),
    ],
)
def test_what_is_nearly_right_is_answered_in_one_line(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    assert main(given.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("rsir: error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_called_like_a_command_is_data(loop: Loop) -> None:
    assert main(["--data", "inspect"]) == 0
    assert loop.config.data.path == "inspect"


@pytest.mark.parametrize("module", ["rsir", "rsir.recurse"])
def test_both_modules_are_the_command(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--seed=4", "--print-config"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nseed: 4\n" in done.stdout

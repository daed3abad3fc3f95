"""Options and settings files of the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import rsir.recursion.loop
from rsir.cli.main import main
from rsir.cli.options import OPTIONS, configuration, dump, read_file, split_arguments
from rsir.config import DataConfig, FidelityConfig, GenerationConfig, ModelConfig, RecursionConfig, from_dict, to_dict
from rsir.errors import ConfigError
from tests.cli.fake_loop import Loop


def parsed(*arguments: str, base: RecursionConfig | None = None) -> RecursionConfig:
    options, given = split_arguments(list(arguments))
    return configuration(base or RecursionConfig(), options.config, given)


# options


def test_hyphens_do_for_underscores() -> None:
    assert parsed("--stop-after", "3", "--generation.min-length=4").stop_after == 3
    assert parsed("--generation.min-length=4").generation.min_length == 4
    assert parsed("--data", "a-file_name.csv").data.path == "a-file_name.csv"


def test_every_setting_is_an_option_with_its_text() -> None:
    assert len(OPTIONS) > 40
    for option in OPTIONS.values():
        assert len(option.text) > 10, option.name
        assert "  " not in option.text
    assert OPTIONS["generation.p"].help.endswith("[0.5]")
    assert OPTIONS["seed"].help.endswith("[0]")
    assert OPTIONS["accumulate"].help.endswith("[false]")
    assert OPTIONS["data.path"].help.endswith("[none]")


def test_without_options_the_defaults_hold() -> None:
    assert parsed() == RecursionConfig()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rounds", "3", "--seed=5"], RecursionConfig(rounds=3, seed=5)),
        (["--data", "my data.csv"], RecursionConfig(data=DataConfig(path="my data.csv"))),
        (["--data.path", "17"], RecursionConfig(data=DataConfig(path="17"))),
        (["--generation.temperature", "2e-1"], RecursionConfig(generation=GenerationConfig(temperature=0.2))),
        (["--generation.p", "1"], RecursionConfig(generation=GenerationConfig(p=1.0))),
        (["--fidelity.tau", "20,10,5"], RecursionConfig(fidelity=FidelityConfig(tau=[20, 10, 5]))),
        (["--fidelity.tau", "[20, 10]"], RecursionConfig(fidelity=FidelityConfig(tau=[20, 10]))),
        (["--fidelity.policy", "off"], RecursionConfig(fidelity=FidelityConfig(policy="off"))),
        (["--accumulate"], RecursionConfig(accumulate=True)),
        (["--accumulate", "false"], RecursionConfig()),
        (["--data.min_rating", "none"], RecursionConfig()),
        (["--data.min_rating", "-1"], RecursionConfig(data=DataConfig(min_rating=-1.0))),
    ],
)
def test_values_are_read_by_their_type(arguments: list[str], expected: RecursionConfig) -> None:
    assert parsed(*arguments) == expected


def test_a_backbone_brings_its_own_defaults(tmp_path: Path) -> None:
    assert parsed("--model", "esasrec").model == ModelConfig(name="esasrec", dropout=0.2)
    assert parsed("--model", "esasrec", "--model.dropout", "0.5").model == ModelConfig(name="esasrec", dropout=0.5)
    (tmp_path / "gru.yaml").write_text("model: {name: gru4rec, dim: 32}")
    assert parsed("--config", str(tmp_path / "gru.yaml")).model == ModelConfig(name="gru4rec", layers=1, dim=32)
    run = RecursionConfig(model=ModelConfig(name="esasrec", dropout=0.5))  # of a run that goes on
    assert parsed("--rounds", "3", base=run).model == run.model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--generation.q", "1"], r"--generation.q: unknown option; did you mean --generation.p\?"),
        (["--tau", "3"], r"--tau: unknown option; did you mean --fidelity.tau\?"),
        (["--stop-afte", "3"], r"did you mean --stop_after\?"),
        (["--round", "3"], r"--round: unknown option; did you mean --rounds\?"),
        (["--xyzzy"], "--xyzzy: unknown option; --help-all lists"),
        (["-v"], "-v: unknown option"),
        (["toys.txt"], "'toys.txt': unexpected; options begin with --, as in --data toys.txt"),
        (["--rounds"], "--rounds: expected one argument"),
        (["--rounds", "three"], "rounds: expected int, got 'three'"),
        (["--rounds", "1.5"], "rounds: expected int, got '1.5'"),
        (["--rounds", "-1"], r"rounds: expected in 0..32767, got -1"),
        (["--seed", ""], "seed: expected a value, got an empty text"),
        (["--data", ""], r"data.path: expected a value, got an empty text"),
        (["--generation.p", "1.5"], r"generation.p: expected a probability in \[0, 1\], got 1.5"),
        (["--generation.p", "nan"], r"generation.p: expected a probability"),
        (["--generation.k", "0"], r"generation.k: expected at least 1, got 0"),
        (["--fidelity.tau", "0"], r"fidelity.tau: expected a number of at least 1, or a list of them, got 0"),
        (["--fidelity.tau", "5,x"], r"fidelity.tau: expected .* got \[5, 'x'\]"),
        (
            ["--fidelity.policy", "strict"],
            r"fidelity.policy: expected one of both, itemknn, neighbours, off, rank, rank-itemknn, got 'strict'",
        ),
        (["--accumulate", "maybe"], "accumulate: expected bool, got 'maybe'"),
        (["--model.heads", "3"], r"model.heads: expected a divisor of dim 64, got 3"),
        (["--model", "sasrecc"], r"model.name: expected one of .*sasrec.*, got 'sasrecc'"),
        (["--threads", "0"], "--threads: expected at least 1, got 0"),
        (["--threads", "all"], "--threads: invalid int value: 'all'"),
        (["--config", "absent.yaml"], r"absent.yaml: no such file"),
        (["--config", "settings.toml"], r"settings.toml: expected a settings file that ends in .yaml, .yml or .json"),
        (["--resume"], "--resume: needs --out DIR, the folder of the run to resume"),
        (["--resume", "--out", "absent"], "absent: no run to resume, there is none"),
    ],
)
def test_bad_options_end_with_one_clear_line_and_nothing_written(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(rf"rsir: error: .*{message}.*\n", output.err)
    assert list(tmp_path.iterdir()) == []


def test_the_gpu_must_be_there(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--gpu"]) == 2
    assert "--gpu: torch finds no CUDA device (torch " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["--gpu"]) == 0
    assert loop.options["runtime"].device == "cuda"


def test_threads_are_limited(loop: Loop) -> None:
    before = torch.get_num_threads()
    try:
        assert main(["--threads", "1"]) == 0
        assert (torch.get_num_threads(), loop.options["runtime"].threads) == (1, 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("flag", ["--help", "-h", "--help-all"])
def test_help_fits_the_page(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([flag])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 112
    short = ["--data", "--model", "--rounds", "--seed", "--generation.m", "--generation.p", "--fidelity.tau"]
    # before Python 3.13 it is "--data FILE, --data.path FILE", from then on "--data, --data.path FILE"
    words = set(text.replace(",", " ").split())
    shown = [flag for option in OPTIONS.values() for flag in option.flags if flag in words]
    assert sorted(shown) == sorted(
        short if flag != "--help-all" else [flag for option in OPTIONS.values() for flag in option.flags]
    )
    assert len(text.splitlines()) < 60 or flag == "--help-all"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rsir {rsir.__version__}\n"


# settings files


def test_print_config_reads_back(loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--fidelity.policy", "off", "--fidelity.tau", "5,3", "--accumulate", "--data", "naïve: file.csv"]
    given += ["--training.learning_rate", "1e-5"]
    assert main([*given, "--print-config"]) == 0
    text = capsys.readouterr().out
    assert from_dict(RecursionConfig, yaml.safe_load(text)) == parsed(*given)
    for name, content in (("a.yaml", text), ("b.json", json.dumps(to_dict(parsed(*given))))):
        Path(name).write_text(content, encoding="utf-8")
        assert parsed("--config", name) == parsed(*given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml", "b.json"]


def test_options_override_the_file(loop: Loop) -> None:
    Path("a.yaml").write_text("rounds: 7\ngeneration: {m: 9, p: 1e-1}\nfidelity:\n  policy: off\n  tau: [9, 8]\n")
    expected = RecursionConfig(
        rounds=7, generation=GenerationConfig(m=2, p=0.1), fidelity=FidelityConfig(policy="off", tau=[9, 8])
    )
    assert main(["--config", "a.yaml", "--generation.m", "2"]) == 0
    assert loop.config == expected


def test_an_empty_file_changes_nothing(loop: Loop) -> None:
    Path("a.yaml").write_text("# nothing\n")
    Path("b.yaml").write_text("data:\n  path:\n")
    assert parsed("--config", "a.yaml") == parsed("--config", "b.yaml") == RecursionConfig()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("generation: {q: 3}", r"a.yaml: generation.q: unknown option; did you mean generation.p\?"),
        ("rouns: 3", r"a.yaml: rouns: unknown option; did you mean rounds\?"),
        ("tau: 3", r"a.yaml: tau: unknown option; did you mean fidelity.tau\?"),
        ("generation: 3", "a.yaml: generation: expected settings by name below it"),
        ("generation:", "a.yaml: generation: expected settings by name below it"),
        ("- rounds", "a.yaml: expected settings by name"),
        ("a: [", "a.yaml: is not YAML: "),
        ("generation: {p: 7}", r"a.yaml: generation.p: expected a probability in \[0, 1\], got 7.0"),
        ("rounds: [1, 2]", "a.yaml: rounds: expected int, got"),
        ("rounds: {a: {b: 1}}", "a.yaml: rounds.a: unknown option"),
        ("seed: !!python/object/apply:os.getcwd []", "a.yaml: seed: expected int"),
        ("1: 2", "a.yaml: 1: unknown option"),
    ],
)
def test_a_bad_file_is_named_with_the_option(loop: Loop, content: str, message: str) -> None:
    Path("a.yaml").write_text(content)
    with pytest.raises(ConfigError, match=f"^{message}"):
        parsed("--config", "a.yaml")


def test_a_bad_value_on_the_command_line_is_not_blamed_on_the_file(loop: Loop) -> None:
    Path("a.yaml").write_text("generation: {p: 0.3}")
    with pytest.raises(ConfigError, match=r"^generation.p: "):
        parsed("--config", "a.yaml", "--generation.p", "7")


def test_files_that_are_no_text(loop: Loop) -> None:
    Path("a.yaml").write_bytes(b"\xff\xfe\x00")
    Path("b.json").write_text("{")
    Path("c.json").mkdir()
    for name, message in (("a.yaml", "is not YAML"), ("b.json", "is not JSON"), ("c.json", "cannot be read")):
        with pytest.raises(ConfigError, match=f"{name}: {message}"):
            read_file(name)


def test_dump_is_yaml_of_every_setting() -> None:
    assert set(yaml.safe_load(dump(RecursionConfig()))) == set(to_dict(RecursionConfig()))

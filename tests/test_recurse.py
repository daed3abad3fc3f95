"""The command line, with a loop that computes nothing."""

from __future__ import annotations

import json
import re
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import rsir.recursion
from rsir.cli.bars import Bars
from rsir.cli.options import OPTIONS, configuration, dump, read_file, split_arguments
from rsir.cli.table import cut_short, line, rounds_table, verdict
from rsir.config import (
    ConfigError,
    DataConfig,
    FidelityConfig,
    GenerationConfig,
    ModelConfig,
    RecursionConfig,
    TrainingConfig,
    from_dict,
    to_dict,
)
from rsir.data.sequences import DataError
from rsir.partial import Interrupted
from rsir.recurse import main
from rsir.results import RoundResult, Run
from rsir.runs import RunDirectory


def result(number: int, value: float = 0.0711) -> RoundResult:
    metrics = {"ndcg@20": value, "recall@10": 1.5 * value, "ndcg@10": 0.8 * value}
    nan, base = float("nan"), number == 0
    return RoundResult(
        round=number,
        sequences=19_412 if base else 54_201,
        generated=0 if base else 97_060,
        verified=0 if base else 40_122,
        acquired=0 if base else 34_789,
        novel_share=nan if base else 0.6125,
        mean_length=nan if base else 7.43,
        leak=nan,
        validation=metrics,
        test={name: 0.9 * other for name, other in metrics.items()},
        steps=512,
        best_step=256,
        seconds={"train": 61.25} if base else {"generate": 30.0, "train": 1171.5},
    )


class Loop:
    """Stands for the recursion: keeps what it was called with, writes a run's folder, hands back given rounds."""

    def __init__(self) -> None:
        self.config = RecursionConfig()
        self.options: dict[str, Any] = {}
        self.values = [0.0711, 0.0733, 0.0720]
        self.error: BaseException | None = None
        self.work: Callable[[Callable[[], bool]], list[object]] | None = None

    def __call__(self, config: RecursionConfig, *, out: Path, resume: bool, **options: Any) -> Run:
        self.config, self.options = config, {**options, "out": out, "resume": resume}
        if isinstance(self.error, DataError):
            raise self.error
        with RunDirectory.create(out, config, "data", resume=resume):
            if self.error is not None:
                raise self.error
            if self.work is not None and self.work(options["stop"])[-1]:
                raise Interrupted
            if options["profile"]:
                (out / "profile").mkdir()
            options["progress"]("round 0 train", 3, None, "steps", "validation ndcg@20 0.0711")
            rounds = [result(number, value) for number, value in enumerate(self.values)]
            for each in rounds:
                options["on_round"](each)
        best = max(rounds, key=lambda each: each.validation["ndcg@20"]).round
        return Run(config=config, data=None, rounds=rounds, best=best, model=None, path=out)  # type: ignore[arg-type]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loop:
    """In an empty folder, with the recursion replaced."""
    fake = Loop()
    monkeypatch.setattr(rsir.recursion, "recurse", fake)
    monkeypatch.chdir(tmp_path)
    return fake


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
            r"fidelity.policy: expected one of rank, neighbours, both, off, got 'strict'",
        ),
        (["--accumulate", "maybe"], "accumulate: expected bool, got 'maybe'"),
        (["--model.heads", "3"], r"model.heads: expected a divisor of dim 64, got 3"),
        (["--model", "sasrecc"], r"model.name: expected one of .*sasrec.*, got 'sasrecc'"),
        (["--threads", "0"], "--threads: expected at least 1, got 0"),
        (["--threads", "all"], "--threads: invalid int value: 'all'"),
        (["--config", "absent.yaml"], r"absent.yaml: no such file"),
        (["--config", "settings.toml"], r"settings.toml: expected a settings file that ends in .yaml, .yml or .json"),
        (["--resume"], "--resume: needs --out DIR, the folder of the run to go on with"),
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
    assert loop.options["device"] == "cuda"


def test_threads_are_limited(loop: Loop) -> None:
    import numba

    before = torch.get_num_threads(), numba.get_num_threads()
    try:
        assert main(["--threads", "1"]) == 0
        assert (torch.get_num_threads(), numba.get_num_threads(), loop.options["threads"]) == (1, 1, 1)
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


@pytest.mark.parametrize("flag", ["--help", "-h", "--help-all"])
def test_help_fits_the_page(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([flag])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 112
    short = ["--data", "--model", "--rounds", "--seed", "--generation.m", "--generation.p", "--fidelity.tau"]
    shown = [flag for option in OPTIONS.values() for flag in option.flags if f"{flag} " in text]
    assert sorted(shown) == sorted(
        short if flag != "--help-all" else [flag for option in OPTIONS.values() for flag in option.flags]
    )
    assert len(text.splitlines()) < 45 or flag == "--help-all"


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


# runs


def test_a_run_ends_with_the_table(loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr()
    assert rounds_table([result(k, value) for k, value in enumerate(loop.values)], 1) in output.out
    assert "Best by validation NDCG@20: round 1" in output.out
    assert "Its model: runs/simulated-000/round-01" in output.out
    assert output.out.endswith("Go on:     rsir --out runs/simulated-000 --resume --rounds 4\n")
    assert output.err.splitlines() == [line(result(k, value), result(0)) for k, value in enumerate(loop.values)]
    assert loop.options["device"] == "cpu"
    assert RunDirectory.open(tmp_path / "runs" / "simulated-000").config == RecursionConfig()


def test_runs_are_numbered_by_their_data(loop: Loop) -> None:
    for expected in ("a-b-000", "a-b-001", "a-b-002"):
        assert main(["--data", "somewhere/a b.csv"]) == 0
        assert loop.options["out"] == Path("runs") / expected
    assert main(["--data", "..."]) == 0
    assert loop.options["out"] == Path("runs/data-000")


def test_resuming_takes_the_settings_of_the_run(loop: Loop) -> None:
    begun = ["--seed", "3", "--generation.m", "2", "--out", "x"]
    assert main(begun) == 0
    config = loop.config
    assert main(["--out", "x", "--resume"]) == 0
    assert (loop.config, loop.options["resume"]) == (config, True)
    assert main([*begun, "--resume", "--rounds", "5"]) == 0
    assert loop.config == replace(config, rounds=5)


def test_resuming_with_another_setting_is_refused(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", "x"]) == 0
    capsys.readouterr()
    assert main(["--out", "x", "--resume", "--fidelity.tau", "3"]) == 2
    assert "x: cannot resume with another fidelity.tau: the run has none, got 3" in capsys.readouterr().err
    assert main(["--out", "x"]) == 2
    assert "x: holds a run already; go on with it by --resume" in capsys.readouterr().err
    assert main(["--resume"]) == 2


def test_the_newest_run_is_named_when_out_is_missing(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    capsys.readouterr()
    assert main(["--resume"]) == 2
    assert "the newest run here is --out runs/simulated-000" in capsys.readouterr().err


def test_bad_data_ends_with_one_line_and_nothing_written(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.error = DataError("toys.txt: is empty, expected interactions")
    assert main(["--data", "toys.txt"]) == 2
    assert capsys.readouterr().err == "rsir: error: toys.txt: is empty, expected interactions\n"
    assert list(tmp_path.iterdir()) == []


def test_missing_data_end_with_one_line_and_nothing_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--data", "absent.csv"]) == 2
    assert capsys.readouterr().err.startswith("rsir: error: absent.csv: no such file")
    assert list(tmp_path.iterdir()) == []


def test_profiling_says_where_the_traces_are(
    loop: Loop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    assert main(["--out", "plain"]) == 0
    assert loop.options["profile"] is False
    assert "Traces" not in capsys.readouterr().out
    assert main(["--profile", "--out", "a run"]) == 0
    assert loop.options["profile"] is True
    assert "Traces:    a run/profile (chrome://tracing" in capsys.readouterr().out


def test_an_interruption_says_how_to_go_on(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    loop.error = KeyboardInterrupt()
    assert main(["--out", "my run"]) == 130
    assert capsys.readouterr().err == "\nInterrupted. Go on with: rsir --out 'my run' --resume\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_asks_the_loop_to_stop_and_a_second_one_ends_it(
    loop: Loop, capfd: pytest.CaptureFixture[str], number: int, status: int
) -> None:
    inherited = signal.signal(number, signal.SIG_DFL)  # a job in the background of a shell ignores SIGINT
    try:
        _stop_by(number, status, loop, capfd)
    finally:
        signal.signal(number, inherited)


def _stop_by(number: int, status: int, loop: Loop, capfd: pytest.CaptureFixture[str]) -> None:
    loop.work = lambda stop: [stop(), signal.raise_signal(number), stop()]
    assert main(["--out", "run"]) == status
    error = capfd.readouterr().err
    assert "Saving what has been computed; once more ends at once" in error
    assert error.endswith("Interrupted. Go on with: rsir --out run --resume\n")
    assert signal.getsignal(number) is signal.SIG_DFL
    loop.work = lambda stop: [stop(), signal.raise_signal(number), signal.raise_signal(number)]
    assert main(["--out", "other"]) == status


def test_an_ignored_signal_stays_ignored(loop: Loop) -> None:
    inherited = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        loop.work = lambda stop: [stop(), signal.raise_signal(signal.SIGINT), stop()]
        assert main(["--out", "run"]) == 0
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_a_signal_before_there_is_anything_to_save_ends_at_once(loop: Loop) -> None:
    loop.work = lambda stop: [signal.raise_signal(signal.SIGTERM), 1 / 0]
    assert main(["--out", "run"]) == 143


def test_an_interruption_before_the_run_began(
    loop: Loop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rsir.recursion, "recurse", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == "\nInterrupted before the run began; nothing was written.\n"
    assert list(tmp_path.iterdir()) == []


def test_the_unexpected_keeps_its_traceback(loop: Loop) -> None:
    loop.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main([])


def test_warnings_are_notes(loop: Loop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(*arguments: Any, **options: Any) -> Run:
        warnings.warn("toys.txt: dropped 3 of 9 events", UserWarning, stacklevel=1)
        return loop(*arguments, **options)

    monkeypatch.setattr(rsir.recursion, "recurse", warning)
    assert main([]) == 0
    assert capsys.readouterr().err.startswith("rsir: note: toys.txt: dropped 3 of 9 events\nround 0: ")


def test_bars_only_on_a_terminal(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([]) == 0
    assert not isinstance(loop.options["progress"], Bars)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main([]) == 0
    assert isinstance(loop.options["progress"], Bars)


def test_bars_show_phase_rate_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    for done in (0, 50, 100):
        bars("round 1 generate", done, 100, "trajectories")
    bars("round 1 train", 7, None, "steps", "validation ndcg@20 0.0711")
    bars.close()
    shown = capsys.readouterr().err
    assert "round 1 generate:   0%|" in shown
    assert "trajectories/s" in shown
    assert "round 1 train: 7 [" in shown or "round 1 train: 0 [" in shown


# the table


def test_the_table() -> None:
    rounds = [result(0), result(1, 0.0733), result(2, 0.0702)]
    table = rounds_table(rounds, 1)
    assert max(map(len, table.splitlines())) <= 100
    assert table == (
        """\
 round    sequences    generated   verified       kept   kept %    novel   length   seconds
     0       19,412            -          -          -        -        -        -      61.2
   * 1       54,201       97,060     40,122     34,789    35.8%    61.3%      7.4     1,202
     2       54,201       97,060     40,122     34,789    35.8%    61.3%      7.4     1,202

        validation                                         test
 round  NDCG@20          Recall@10        NDCG@10          Recall@10        NDCG@10
     0  0.0711           0.1066           0.0569           0.0960           0.0512
   * 1  0.0733   +3.1%   0.1100   +3.1%   0.0586   +3.1%   0.0990   +3.1%   0.0528   +3.1%
     2  0.0702   -1.3%   0.1053   -1.3%   0.0562   -1.3%   0.0948   -1.3%   0.0505   -1.3%
     *  best by validation NDCG@20; changes are against round 0"""
    )


def test_the_table_of_a_base_that_never_hits_and_a_round_that_generated_nothing() -> None:
    nothing = replace(result(1, 0.0), generated=0, acquired=0, novel_share=float("nan"), mean_length=float("nan"))
    table = rounds_table([result(0, 0.0), nothing], 0)
    assert "nan" not in table
    assert "%" not in table.splitlines()[-2]
    assert line(nothing, result(0, 0.0)).endswith("validation NDCG@20 0.0000, 1,202 s")


def test_the_verdict() -> None:
    rounds = [result(0), result(1, 0.0733), result(2, 0.0702)]
    assert verdict(rounds, 1, 2, guard=True) == (
        "Best by validation NDCG@20: round 1; validation NDCG@20 0.0733 (+3.1%), test Recall@10 0.0990 (+3.1%), "
        "test NDCG@10 0.0528 (+3.1%)."
    )
    assert verdict(rounds, 1, 5, guard=True).startswith(
        "Ended after round 2 of 5: no gain on validation since round 1.\n"
    )
    assert (
        verdict(rounds, 0, 2, guard=True)
        == "Best by validation NDCG@20: round 0, the base (0.0711; no later round beat it)."
    )
    assert verdict(rounds[:1], 0, 0, guard=True) == "Best by validation NDCG@20: round 0, the base (0.0711)."


def test_trainings_that_were_cut_short_are_named() -> None:
    """Four validations, ten steps apart; one that ended by patience, and ones that did not, or not yet for sure."""
    history = {"step": [10.0, 20.0, 30.0, 40.0], "loss": [1.0] * 4, "ndcg@20": [0.1] * 4}
    rounds = [replace(result(i), steps=40, best_step=best, history=history) for i, best in enumerate((20, 30, 40))]
    assert cut_short(rounds, TrainingConfig(patience=2, max_evaluations=5)) == ""
    assert cut_short(rounds, TrainingConfig(patience=2, max_evaluations=4)).startswith(
        "Note:      the 4 validations of a training (training.max_evaluations) ended round 1, 2 before its patience"
    )
    assert (
        cut_short([result(0)], TrainingConfig(max_evaluations=1)) == ""
    )  # a run of an older version, without a history


def test_a_refused_round_is_marked_and_explained() -> None:
    against = {"round": 1, "difference": -0.0102, "low": -0.0151, "high": -0.0053}
    rounds = [result(0), result(1, 0.0733), replace(result(2, 0.0631), against_best=against)]
    assert "\n   - 2       54,201" in rounds_table(rounds, 1)
    assert rounds_table(rounds, 1).endswith(
        "-  worse on validation than the best round before it, by more than the noise"
    )
    assert verdict(rounds, 1, 5, guard=True).startswith(
        "Ended after round 2 of 5: its model is refused, its validation NDCG@20 is 0.0102 below round 1's "
        "(95% interval 0.0053 to 0.0151); --resume --guard false goes on all the same.\nBest by validation"
    )
    assert verdict(rounds, 1, 5, guard=False).startswith(
        "Ended after round 2 of 5: no gain on validation since round 1.\n"
    )


def test_one_line_a_round() -> None:
    assert line(result(0), result(0)) == "round 0: 19,412 sequences, validation NDCG@20 0.0711, 61.2 s"
    assert line(result(1, 0.0733), result(0)) == (
        "round 1: 54,201 sequences, 34,789 of 97,060 generated kept, validation NDCG@20 0.0733 (+3.1%), 1,202 s"
    )


def test_dump_is_yaml_of_every_setting() -> None:
    assert set(yaml.safe_load(dump(RecursionConfig()))) == set(to_dict(RecursionConfig()))

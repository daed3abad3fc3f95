"""The page of a run and the page of several."""

from __future__ import annotations

import dataclasses
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from rsir.cli import main as command
from rsir.config import RecursionConfig, changed
from rsir.data import Sequences, simulate
from rsir.data.load import split
from rsir.data.sequences import item_popularity
from rsir.recursion.loop import recurse
from rsir.report.html import text
from rsir.runs.directory import RunDirectory
from rsir.runs.results import Run
from tests.harness.small import SMALL, small

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Refuses what is not well formed; collects tags, attributes and text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without its start"
        assert self.open.pop() == tag, f"</{tag}> in the wrong place"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def shown(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = simulate(SMALL.simulation).sequences
    labels = pa.array([f"{EVIL} {number} & 日本" for number in range(data.num_items)])
    users = pa.array([f"</h3><img src=x onerror=alert(1)> {number}" for number in range(len(data))])
    evil = dataclasses.replace(data, item_labels=labels, user_labels=users)
    return recurse(SMALL, data=evil, out=tmp_path_factory.mktemp("runs") / "run")


def written(run: Run) -> str:
    assert run.path is not None
    return (run.path / "report.html").read_text(encoding="utf-8")


def test_every_run_ends_with_a_page_about_all_of_it(run: Run) -> None:
    page = Page(written(run))
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert len(set(ids)) == len(ids)
    parts = ["gains", "training", "filter", "drift", "users", "time", "settings", "environment"]
    assert [name for name in ids if name in parts] == parts
    for result in run.rounds:
        for value in (result.validation["ndcg@20"], result.test["recall@10"], result.test["ndcg@10"]):
            assert f"{value:.4f}" in page.shown
        assert f"{result.sequences:,}" in page.shown or result.round == 0
    low, high = (
        100 * end / run.rounds[0].test["recall@10"] for end in run.rounds[2].against_base["test/recall@10"][1:]
    )
    assert f"({low:+.1f} to {high:+.1f})" in page.shown
    assert written(run).count('class="error') == 6  # three metrics in rounds 1 and 2
    for name in ("simulation.num_users", "torch", "fidelity.tau"):
        assert name in page.shown


def test_labels_are_shown_and_do_nothing(run: Run) -> None:
    page = Page(written(run))
    assert EVIL in page.shown
    assert "onerror=alert(1)" in page.shown
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, values in page.tags for name in values if name.startswith("on")]
    assert text("a\x00b\u202ec\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert len(text("x" * 500)) == 200


def test_the_page_loads_nothing_and_can_be_heard(run: Run) -> None:
    content = written(run)
    page = Page(content)
    assert not {"link", "script", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert not [values for _, values in page.tags if {"src", "href", "srcset"} & set(values)]
    assert "http://" not in content
    assert "https://" not in content
    assert set(re.findall(r"url\(([^)]*)\)", content)) <= {"#hatch1", "#hatch2"}
    assert "prefers-color-scheme:dark" in content
    charts = [values for tag, values in page.tags if tag == "svg" and values.get("role") == "img"]
    assert len(charts) == 8
    ids = {values["id"]: tag for tag, values in page.tags if "id" in values}
    for chart in charts:
        assert [ids[name] for name in str(chart["aria-labelledby"]).split()] == ["title", "desc"]
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == sum(tag == "caption" for tag, _ in page.tags) > 5
    assert all("scope" in values for tag, values in page.tags if tag == "th")


def test_a_page_made_again_is_the_same(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "again.html"
    assert command.main(["report", str(run.path), "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert file.read_text(encoding="utf-8") == written(run)


def test_an_interrupted_run_has_a_page_of_what_there_is(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        recurse(SMALL, out=tmp_path / "run", on_round=kill)
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "Unfinished: 0 of 2 rounds" in page.shown
    assert "users" not in [values.get("id") for _, values in page.tags]


def test_metrics_of_an_older_version_are_shown_without_intervals(run: Run) -> None:
    from rsir.report import charts

    old = [dataclasses.replace(result, against_base={}, history={}) for result in run.rounds]
    assert "error" not in charts.gains(old)
    assert "did not keep the history" in charts.training(old)


def test_rounds_that_kept_nothing_and_found_nothing(run: Run) -> None:
    from rsir.report import charts
    from rsir.report.examples import example_users

    nothing = dict.fromkeys(run.rounds[0].validation, 0.0)
    nan, none = float("nan"), Sequences.from_lists([], num_items=60)
    empty = [
        dataclasses.replace(
            result, verified=0, acquired=0, novel_share=nan, mean_length=nan, validation=nothing, test=nothing
        )
        for result in run.rounds
    ]
    train = split(run.data, SMALL.data).train
    made = charts.Made.of(none, item_popularity(train))
    drift = charts.drift(empty, charts.Made.of(train, item_popularity(train)), {1: made, 2: made})
    parts = [charts.gains(empty), charts.generated(empty), drift]
    for part in [*parts, example_users(run.data, none)]:
        assert "nan" not in Page(part).shown
        assert "nan" not in re.sub(r"<[^>]*>", "", part)
        assert not re.findall(r'="[^"]*\bnan\b', part)


def test_a_page_is_made_without_reading_a_round_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a round's file is read again")

    with monkeypatch.context() as patch:
        patch.setattr(Sequences, "load", refuse)
        again = recurse(SMALL, out=tmp_path / "run")
    written = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert command.main(["report", str(again.path), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == written
    assert run.path is not None
    recurse(SMALL, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == written


def test_runs_are_compared(run: Run, tmp_path: Path) -> None:
    other = recurse(small(rounds=1, seed=5), out=tmp_path / "other<b>" / "run")
    file = tmp_path / "comparison.html"
    assert command.main(["report", str(run.path), str(other.path), "--out", str(file)]) == 0
    page = Page(file.read_text(encoding="utf-8"))
    assert "not all on the same data" in page.shown
    assert "other<b>/run" in page.shown
    for one in (run, other):
        assert f"{one.rounds[one.best].test['ndcg@10']:.4f}" in page.shown
    rows = re.findall(r'<th scope="row">([a-z_.]+)</th><td>(.*?)</td><td>(.*?)</td>', file.read_text(encoding="utf-8"))
    assert rows == [("rounds", "2", "1"), ("seed", "0", "5")]


@pytest.mark.parametrize(("rounds", "message"), [(None, "holds no run"), (0, "no round is finished yet")])
def test_what_has_no_page(rounds: int | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if rounds is not None:
        RunDirectory.create(tmp_path / "run", RecursionConfig(), "data").close()
    assert command.main(["report", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_defaults_are_those_of_the_backbone() -> None:
    standard = RecursionConfig()
    hstu = standard.for_backbone("hstu")
    assert changed(standard) == {}
    assert changed(hstu) == {"model.name": ("hstu", "bsarec")}


def test_inspecting_a_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["inspect", str(run.path)]) == 0
    printed = capsys.readouterr().out
    assert f"Best by validation NDCG@20: round {run.best}" in printed
    assert "  fidelity.tau 15 [none]" in printed
    assert "120 users, 60 items" in printed
    assert "every checksum holds" in printed
    assert run.path is not None
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    (copy / "round-01" / "model.json").write_text("{}")
    (copy / "round-02" / "trajectories.parquet").unlink()
    assert command.main(["inspect", str(copy)]) == 1
    printed = capsys.readouterr().out
    assert "round-01/model.json: is damaged" in printed
    assert "round-02/trajectories.parquet: is missing" in printed
    assert f"{run.rounds[2].test['ndcg@10']:.4f}" in printed
    assert command.main(["inspect", str(tmp_path)]) == 2


def test_inspecting_a_run_that_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Killed(BaseException):
        pass

    def kill(_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        recurse(SMALL, out=tmp_path / "run", on_round=kill)
    assert command.main(["inspect", str(tmp_path / "run")]) == 0
    assert "Unfinished: 0 of 2 rounds" in capsys.readouterr().out
    RunDirectory.create(tmp_path / "begun", RecursionConfig(), "data").close()
    assert command.main(["inspect", str(tmp_path / "begun")]) == 0
    assert "no round is finished yet" in capsys.readouterr().out

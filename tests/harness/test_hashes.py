"""The record of what runs write: its cases are such as the command line takes, and what differs is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.cli.options import configuration, split_arguments
from rsir.config import RecursionConfig
from tests.harness.hashes import BACKBONES, cases, compare


def test_every_run_has_options_that_exist(tmp_path: Path) -> None:
    found = {}
    for name, steps in cases(tmp_path).items():
        for step in steps:
            if "rsir.recurse" in step:
                options, given = split_arguments(step[step.index("rsir.recurse") + 1 :])
                found[name] = configuration(RecursionConfig(), options.config, given)
    assert found["tiny/default"].model.name == BACKBONES[0] == RecursionConfig().model.name
    assert {config.model.name for config in found.values()} == set(BACKBONES)
    assert found["cosine"].training.schedule == "cosine"


def test_a_file_that_differs_is_named_with_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    case = {"files": {"run/config.json": "1", "run/log.jsonl": ""}, "values": {"run/config.json": {"seed": 0}}}
    other = {**case, "files": {**case["files"], "run/config.json": "2"}, "values": {"run/config.json": {"seed": 1}}}
    before = {"environment": {}, "cases": {"tiny/default": case}}
    assert compare(before, before, "record.json")
    assert not compare(before, {**before, "cases": {"tiny/default": other}}, "record.json")
    assert "tiny/default: DIFFERS\n  run/config.json: seed 0 -> 1" in capsys.readouterr().out

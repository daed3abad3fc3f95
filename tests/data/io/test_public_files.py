"""Files in the shape of public data sets: each is read as it is, or refused in a sentence that says what to type."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path

import pytest

from rsir.config import DataConfig
from rsir.data import read
from rsir.errors import DataError, DataWarning
from tests.data.io.public_files import CASES, EVENTS

GUIDE = Path(__file__).parents[3] / "docs" / "data.md"


def outcome(path, options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = read(path, DataConfig(**options))
    return data, "\n".join(str(each.message) for each in caught if issubclass(each.category, DataWarning))


def histories(data, hashes):
    """Items of each user by number, without what stands around it."""
    labels = data.item_labels.to_pylist()
    if hashes:
        labels = [int(label.partition("-")[0], 16) for label in labels]
    else:
        labels = [int(re.search(r"\d+", str(label))[0]) for label in labels]
    return {tuple(labels[item - 1] for item in data[row]) for row in range(len(data))}


@pytest.mark.parametrize("name", CASES)
def test_read_as_it_is_or_told_what_to_type(tmp_path, name):
    case = CASES[name]
    path = tmp_path / case.file
    content = case.content()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.refused:
        try:
            _, said = outcome(path, {})
        except DataError as error:
            said = str(error)
            assert said.startswith(f"{path}: ")
            assert "\n" not in said
        assert case.refused in said
    if not case.reads:
        return
    data, warned = outcome(path, case.then)
    assert (case.warned in warned) if case.warned else not warned
    assert (len(data), data.num_items, data.num_interactions) == (
        5,
        len({case.item(u, i, r) for u, i, r, _ in EVENTS}),
        len(EVENTS),
    )
    assert (data.times is not None) or not case.times
    if case.times and not case.ties:
        assert data.times[1] - data.times[0] in (60, 60_000, 60_000_000)
    wanted = {tuple(case.item(u, i, r) for u, i, r, _ in EVENTS if u == user) for user in range(1, 6)}
    assert histories(data, case.hashes) == wanted


def test_the_guide_lists_them_all():
    table = GUIDE.read_text().partition("## Public files")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| ([^|]+) \| `([^`]+)`", table, re.M)
    assert listed == [(name, case.file) for name, case in CASES.items()]
    for name, case in CASES.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        for option, value in case.then.items():
            assert f"--data.{option} " in row
            assert value in row
    assert len(CASES) >= 25


def test_the_commands_given_do_what_they_say(tmp_path):
    for name, options in (("Netflix prize", {}), ("MIND", {"time_format": "%m/%d/%Y %I:%M:%S %p"})):
        case = CASES[name]
        path = tmp_path / case.file
        path.write_text(case.content())
        with pytest.raises(DataError) as caught:
            read(path)
        command = re.search(r"awk .*? > \S+\.[ct]sv", str(caught.value))[0]
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        data, _ = outcome(tmp_path / command.rpartition(" ")[2], options)
        assert data.num_interactions == len(EVENTS)
        assert data.times is not None

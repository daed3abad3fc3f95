"""The shape of the code, beside the layers that lint-imports checks and the public names of test_api."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("module", "name", "most"),
    [
        ("rsir.recursion.loop", "recurse", 8),
        ("rsir.generation.generate", "generate", 10),
        ("rsir.training.fit", "fit", 10),
    ],
)
def test_what_a_run_goes_through_takes_few_parameters(module: str, name: str, most: int) -> None:
    """What travels together is one object: settings, a Runtime, a store, what a run starts from."""
    assert len(inspect.signature(getattr(importlib.import_module(module), name)).parameters) <= most


def test_no_test_module_is_imported() -> None:
    """What tests share is in a conftest or in a module of its own: a test file runs alone and may be moved."""
    for path in sorted(TESTS.rglob("*.py")):
        found = re.search(r"^ *(from|import) [\w.]*\btest_\w+.*$", path.read_text("utf-8"), re.MULTILINE)
        assert found is None, f"{path.relative_to(TESTS)}: {found[0]}"

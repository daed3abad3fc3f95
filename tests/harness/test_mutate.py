"""The mutations are of the code as it is; one that is noticed, and one that nothing can notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.harness import mutate


def test_every_mutation_is_of_one_place_in_the_code() -> None:
    assert len(mutate.MUTATIONS) >= 20
    for mutation in mutate.MUTATIONS:
        assert mutation.path.read_text().count(mutation.old) == 1, mutation.what
        compile(mutation.path.read_text().replace(mutation.old, mutation.new), mutation.module, "exec")


def test_a_mutation_is_noticed_and_one_that_changes_nothing_is_not(tmp_path: Path) -> None:
    folder = next(mutation for mutation in mutate.MUTATIONS if mutation.what == "a folder is removed through a link")
    check = f"{folder.check} -k removing_a_tree"
    assert mutate.noticed(folder, check, tmp_path)
    assert not mutate.noticed(replace(folder, new=f"({folder.old})"), check, tmp_path)

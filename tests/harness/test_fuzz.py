"""A short run of the fuzzer of everything that reads."""

from __future__ import annotations

from tests.harness import fuzz


def test_only_documented_errors_come_back() -> None:
    counts = fuzz.fuzz(26 * 70, seed=2)
    targets = {name for name, _ in counts}
    assert len(targets) == 26
    assert all(counts[name, False] > 0 for name in targets - {"state"})  # a state that cannot be used is left out
    read = {name for name in targets if name.startswith("log ")} - {"log .csv.gz"}  # which seldom unpacks
    assert all(counts[name, True] > 0 for name in (*read, "settings values", "bindings", "state"))

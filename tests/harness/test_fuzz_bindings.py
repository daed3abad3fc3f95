"""A short run of the fuzzer of the bindings."""

from tests.harness import fuzz_bindings


def test_hostile_arguments_are_refused_or_answered_soundly():
    accepted = fuzz_bindings.fuzz(iterations=1500, seed=0)
    assert 300 < accepted < 1450  # both paths were taken

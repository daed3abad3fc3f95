"""A short run of the harness that damages files."""

from tests.harness import corruption


def test_damaged_files_are_refused_or_mean_the_same():
    lines = []
    corruption.harness(flips=320, seed=1, every=211, report=lines.append)
    assert "damages refused with a typed error or harmless (320 flips)" in lines[-1]

from __future__ import annotations

import numpy as np
import pytest

from rsir.runtime.philox import Stream, counters, gumbel, philox4x32, uniform


@pytest.mark.parametrize(
    ("seed", "counter", "expected"),
    [  # known answers of the Random123 distribution
        (0, [0, 0, 0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (2**64 - 1, [0xFFFFFFFF] * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            0x299F31D0_A4093822,
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(seed: int, counter: list[int], expected: str) -> None:
    words = philox4x32(seed, [np.full(1, word, np.uint64) for word in counter])
    assert " ".join(f"{int(word[0]):08x}" for word in words) == expected


def test_counters_differ_in_every_part() -> None:
    zero, one = np.array([0]), np.array([1])
    base = counters(Stream.ITEM, 1, zero, zero, zero)
    others = [
        counters(Stream.POOL, 1, zero, zero, zero),
        counters(Stream.ITEM, 2, zero, zero, zero),
        counters(Stream.ITEM, 1, one, zero, zero),
        counters(Stream.ITEM, 1, zero, one, zero),
        counters(Stream.ITEM, 1, zero, zero, one),
        counters(Stream.ITEM, 1, one << 32, zero, zero),
    ]
    assert len({tuple(words[0]) for words in [base, *others]}) == 7
    assert all((words >= 0).all() and (words < 2**32).all() for words in others)


def test_uniform_and_gumbel_have_their_distributions() -> None:
    n = 20_000
    words = counters(Stream.ITEM, 0, np.arange(n), np.zeros(n), np.zeros(n))
    u = uniform(7, words)
    assert u.min() > 0
    assert u.max() < 1
    assert np.abs(np.sort(u) - (np.arange(n) + 0.5) / n).max() < 1.95 / np.sqrt(n)  # Kolmogorov-Smirnov, 0.001
    noise = gumbel(7, words, np.arange(2 * n).reshape(n, 2))
    assert noise.shape == (n, 2)
    assert abs(noise.mean() - np.euler_gamma) < 4 * np.pi / np.sqrt(6 * 2 * n)

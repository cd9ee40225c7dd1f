# SPDX-License-Identifier: Apache-2.0
"""The counter-based generator against the published known answers, and its uniforms."""

from __future__ import annotations

import numpy as np
import pytest

from tramontane.sampler.philox import UniformStream, philox4x32, uniforms

# Random123 1.09, kat_vectors, "philox4x32 10": counter, key, expected.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert tuple(philox4x32(np.array([counter], dtype=np.uint32), key)[0].tolist()) == expected


def test_many_counters_at_once_equal_one_at_a_time() -> None:
    counters = np.random.default_rng(0).integers(0, 2**32, size=(50, 4), dtype=np.uint32)
    together = philox4x32(counters, (7, 9))
    for i in range(50):
        assert (philox4x32(counters[i : i + 1], (7, 9))[0] == together[i]).all()


def test_uniforms_are_below_one_even_for_the_largest_words() -> None:
    numbers = uniforms(2**64 - 1, 2**32 - 1, 2**40, 10_000)
    assert 0.0 <= min(numbers) < 0.001
    assert 0.999 < max(numbers) < 1.0
    assert (2**53 - 1) / 2**53 < 1.0


def test_a_uniform_depends_on_seed_choice_and_position_only() -> None:
    stream = UniformStream(42, 3)
    order = [5, 4, 1000, 5, 64, 63, 0]
    assert [stream.at(position) for position in order] == [uniforms(42, 3, position, 1)[0] for position in order]
    assert uniforms(42, 3, 5, 1) != uniforms(42, 4, 5, 1)
    assert uniforms(42, 3, 5, 1) != uniforms(43, 3, 5, 1)
    assert uniforms(42 + 2**32, 3, 5, 1) != uniforms(42, 3, 5, 1)


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    numbers = np.array(uniforms(1, 0, 0, 200_000))
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 149  # chi-square, 99 degrees of freedom: p = 0.001 at 148.2
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01
    other = np.array(uniforms(1, 1, 0, 200_000))
    assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.01

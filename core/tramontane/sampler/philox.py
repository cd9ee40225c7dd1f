# SPDX-License-Identifier: Apache-2.0
"""Counter-based random numbers: a uniform is a function of (seed, choice, position) and of nothing else.

Because there is no state, a draw does not depend on the batch a row runs in, on preemption or on the device. The
generator is Philox4x32 with ten rounds (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
SC 2011). It runs on the host, many positions at a time, so a step pays a list look-up per row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counters: Words, key: tuple[int, int]) -> Words:
    """Ten rounds over many counters with one key.

    Args:
        counters: uint32 [N, 4].
        key: Two 32-bit words.

    Returns:
        uint32 [N, 4].
    """
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0 = (product_1 >> _HALF) ^ c1 ^ np.uint64(k0)
        c1 = product_1 & _LOW
        c2 = (product_0 >> _HALF) ^ c3 ^ np.uint64(k1)
        c3 = product_0 & _LOW
        k0 = (k0 + _WEYL_0) & 0xFFFFFFFF
        k1 = (k1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=1).astype(np.uint32)


def uniforms(seed: int, choice: int, first_position: int, count: int) -> list[float]:
    """``count`` numbers in [0, 1) with 53 random bits each, for consecutive positions of one choice of one seed.

    The seed's 64 bits are the key; position (64 bits) and choice (32 bits) are the counter. The fourth word is 0 here
    and free for other uses of the same seed.
    """
    positions = np.arange(first_position, first_position + count, dtype=np.uint64)
    counters = np.empty((count, 4), dtype=np.uint32)
    counters[:, 0] = positions & _LOW
    counters[:, 1] = positions >> _HALF
    counters[:, 2] = choice & 0xFFFFFFFF
    counters[:, 3] = 0
    words = philox4x32(counters, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).astype(np.float64)
    high = np.floor(words[:, 0] / 32.0)  # 27 bits
    low = np.floor(words[:, 1] / 64.0)  # 26 bits
    numbers: list[float] = ((high * 67108864.0 + low) / 9007199254740992.0).tolist()
    return numbers


class UniformStream:
    """The uniforms of one sequence, made in blocks."""

    __slots__ = ("_block", "_choice", "_first", "_seed")

    BLOCK = 64

    def __init__(self, seed: int, choice: int) -> None:
        self._seed = seed
        self._choice = choice
        self._first = 0
        self._block: list[float] = []

    def at(self, position: int) -> float:
        """The uniform of one position."""
        offset = position - self._first
        if not 0 <= offset < len(self._block):
            self._first = position - position % self.BLOCK
            self._block = uniforms(self._seed, self._choice, self._first, self.BLOCK)
            offset = position - self._first
        return self._block[offset]

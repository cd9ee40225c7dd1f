# SPDX-License-Identifier: Apache-2.0
"""How codes lie in a plane: in chunks of 8 bytes, which a thread loads at once.

Codes of 1, 2 or 4 bits share the bytes of a chunk so that byte ``i`` holds the codes ``i, 8 + i, 16 + i ..`` of the
chunk, lowest bits first: whichever bits a thread takes out of its 8 bytes, they are 8 neighbouring inputs, whose
activations are one load of 16 bytes and which have one scale. (With chunks of 16 bytes a thread's codes and its
activations would be of different lengths, and Triton exchanges them through shared memory in every step: seen in the
compiled code.) Codes of 3, 5 and 6 bits are a plane of their low 2 or 4 bits
and one of their high 1 or 2, whose bytes are ordered the same way. Rows are padded to whole chunks with zeros.

Everything here moves bits only, there and back.

Legend: I inputs, C chunks of a row.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

LANES = 8
"""Bytes of a chunk."""
VECTOR = 16
"""Bytes of a chunk of plain numbers."""


@frozen
class Packing:
    """Codes of ``low + high`` bits in two planes, the second perhaps absent."""

    low: int
    high: int = 0

    @property
    def split(self) -> int:
        """Codes that share a byte of the low plane."""
        return 8 // self.low

    @property
    def inputs(self) -> int:
        """Codes of a chunk."""
        return LANES * self.split

    @property
    def high_bytes(self) -> int:
        """Bytes that a chunk's high bits fill."""
        return self.inputs * self.high // 8

    def chunks(self, inputs: int) -> int:
        """C of a row."""
        return -(-inputs // self.inputs)

    def pack(self, codes: Tensor) -> dict[str, Tensor]:
        """Planes of codes uint8 [.., I]: ``codes`` [.., C * 8], and ``high`` [.., C * high_bytes]."""
        padding = self.chunks(codes.shape[-1]) * self.inputs - codes.shape[-1]
        each = torch.nn.functional.pad(codes, (0, padding)).unflatten(-1, (-1, self.split, LANES))
        low = torch.zeros_like(each[..., 0, :])
        for j in range(self.split):
            low |= (each[..., j, :] & (2**self.low - 1)) << (j * self.low)
        planes = {"codes": low.flatten(-2)}
        if self.high:
            above = (each >> self.low).unflatten(-1, (-1, self.high_bytes))
            high = torch.zeros_like(above[..., 0, 0, :])
            for quarter, j, shift in self._places():
                high |= above[..., j, quarter, :] << shift
            planes["high"] = high.flatten(-2)
        return planes

    def unpack(self, low: Tensor, high: Tensor | None, inputs: int) -> Tensor:
        """The codes, uint8 [.., I]."""
        each = low.unflatten(-1, (-1, 1, LANES)).repeat_interleave(self.split, -2)
        for j in range(self.split):
            each[..., j, :] = (each[..., j, :] >> (j * self.low)) & (2**self.low - 1)
        if high is not None:
            bits = high.unflatten(-1, (-1, self.high_bytes))
            parts = each.unflatten(-1, (-1, self.high_bytes))
            for quarter, j, shift in self._places():
                parts[..., j, quarter, :] |= ((bits >> shift) & (2**self.high - 1)) << self.low
        return each.flatten(-3)[..., :inputs]

    def _places(self) -> list[tuple[int, int, int]]:
        """(stretch of lanes, code of the byte, shift) of the high bits."""
        stretches = LANES // self.high_bytes
        return [(q, j, (q * self.split + j) * self.high) for q in range(stretches) for j in range(self.split)]


BYTES = Packing(8)
"""Codes of a byte each."""
PACKINGS = {1: Packing(1), 2: Packing(2), 3: Packing(2, 1), 4: Packing(4), 5: Packing(4, 1), 6: Packing(4, 2)}
"""By bits of a code. Codes of 7 are stored as bytes."""

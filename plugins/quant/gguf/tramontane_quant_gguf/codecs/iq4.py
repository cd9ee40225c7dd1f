# SPDX-License-Identifier: Apache-2.0
"""IQ4_NL and IQ4_XS: 4-bit codes into one table of 16 uneven steps.

IQ4_NL (18 bytes): 32 elements and a float16 scale. IQ4_XS (136 bytes): 256 elements, 6-bit scales per 32 around 32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec
from tramontane.schemes.ggml.codec import bit_planes, halves, nibbles
from tramontane_quant_gguf.codecs.grids import shifted, words16

STEPS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""Values of the codes; denser around zero, as weights are."""


def _values(packed: Tensor) -> Tensor:
    """uint8 [.., 16] -> float32 [.., 32]."""
    steps = torch.tensor(STEPS, dtype=torch.float32, device=packed.device)
    return steps[nibbles(packed).flatten(-2).long()]


def dequantize_nl(blocks: Tensor) -> Tensor:
    """uint8 [n, 18] -> float32 [n, 32]."""
    return halves(blocks, 0) * _values(blocks[:, 2:])


def dequantize_xs(blocks: Tensor) -> Tensor:
    """uint8 [n, 136] -> float32 [n, 256]: factor, a word of high scale bits, 4 bytes of low ones, 128 of codes."""
    high = (shifted(words16(blocks, 2, 4), range(0, 16, 2)) & 3).flatten(1)
    low = bit_planes(blocks[:, 4:8].unsqueeze(-1), 4).flatten(1).to(torch.int32)
    scale = halves(blocks, 0) * ((low | (high << 4)) - 32).to(torch.float32)
    return (scale.unsqueeze(-1) * _values(blocks[:, 8:].reshape(-1, 8, 16))).flatten(1)


IQ4_NL = BlockCodec("iq4_nl", 20, 32, 18, dequantize_nl)
IQ4_XS = BlockCodec("iq4_xs", 23, 256, 136, dequantize_xs)

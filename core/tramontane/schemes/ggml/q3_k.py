# SPDX-License-Identifier: Apache-2.0
"""Q3_K: 256 elements in 16 sub-blocks, each with a 6-bit signed scale under one float16 factor. 110 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec, bit_planes, halves


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 110] -> float32 [n, 256].

    Codes are two low bits (planes of 32 bytes per half block) and a high bit (eight planes of 32 bytes); a code
    without its high bit is 4 less. Scales are 12 bytes: 16 low halves in the first eight, 16 pairs of high bits in
    the last four.
    """
    scale_bytes = blocks[:, 96:108]
    low = bit_planes(scale_bytes[:, :8], 4).flatten(1)
    high = bit_planes(scale_bytes[:, 8:], 2).flatten(1)
    scale = halves(blocks, 108) * ((low | (high << 4)).to(torch.float32) - 32)
    two = bit_planes(blocks[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    third = bit_planes(blocks[:, :32], 1).reshape(-1, 16, 16)
    codes = (two | (third << 2)).to(torch.float32) - 4
    return (scale.unsqueeze(-1) * codes).flatten(1)


Q3_K = BlockCodec("q3_k", 11, 256, 110, dequantize)

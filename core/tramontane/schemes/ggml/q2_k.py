# SPDX-License-Identifier: Apache-2.0
"""Q2_K: 256 elements in 16 sub-blocks, each with a 4-bit scale and minimum under two float16 factors. 84 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec, bit_planes, halves


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 84] -> float32 [n, 256].

    Each half of the block keeps its 128 codes as four bit planes of 32 bytes.
    """
    scales = blocks[:, :16]
    scale = (halves(blocks, 80) * (scales & 0x0F).to(torch.float32)).unsqueeze(-1)
    low = (halves(blocks, 82) * (scales >> 4).to(torch.float32)).unsqueeze(-1)
    codes = bit_planes(blocks[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    return (scale * codes.to(torch.float32) - low).flatten(1)


Q2_K = BlockCodec("q2_k", 10, 256, 84, dequantize)

# SPDX-License-Identifier: Apache-2.0
"""Q6_K: 256 elements in 16 sub-blocks with signed 8-bit scales under one float16 factor; 6-bit codes. 210 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec, bit_planes, halves, nibbles


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 210] -> float32 [n, 256]: per half block 64 bytes of low halves and four planes of high bit pairs."""
    four = nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 16, 16)
    two = bit_planes(blocks[:, 128:192].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    codes = (four | (two << 4)).to(torch.float32) - 32
    scale = halves(blocks, 208) * blocks[:, 192:208].view(torch.int8).to(torch.float32)
    return (scale.unsqueeze(-1) * codes).flatten(1)


Q6_K = BlockCodec("q6_k", 14, 256, 210, dequantize)

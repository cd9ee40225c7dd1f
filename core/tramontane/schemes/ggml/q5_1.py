# SPDX-License-Identifier: Apache-2.0
"""Q5_1: 32 elements, a float16 scale and minimum, the fifth bits of all codes, 4-bit codes. 24 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import (
    BlockCodec,
    as_bytes,
    halves,
    join_bits,
    join_nibbles,
    nibbles,
    reciprocal,
    stream_bits,
)


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 24] -> float32 [n, 32]."""
    codes = nibbles(blocks[:, 8:]).flatten(1) | (stream_bits(blocks[:, 4:8]) << 4)
    return halves(blocks, 0) * codes.to(torch.float32) + halves(blocks, 2)


def quantize(values: Tensor) -> Tensor:
    """float32 [n, 32] -> uint8 [n, 24]: the range of the block becomes the codes 0 to 31."""
    high, low = values.amax(-1, keepdim=True) + 0.0, values.amin(-1, keepdim=True) + 0.0  # no negative zeros
    scale = (high - low) / 31
    codes = ((values - low) * reciprocal(scale) + 0.5).trunc().clamp(0, 31).to(torch.uint8)
    return torch.cat([as_bytes(scale), as_bytes(low), join_bits(codes >> 4), join_nibbles(codes & 0x0F)], -1)


Q5_1 = BlockCodec("q5_1", 7, 32, 24, dequantize, quantize)

# SPDX-License-Identifier: Apache-2.0
"""Q4_1: 32 elements, a float16 scale and minimum, 4-bit codes. 20 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec, as_bytes, halves, join_nibbles, nibbles, reciprocal


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 20] -> float32 [n, 32]."""
    codes = nibbles(blocks[:, 4:]).flatten(1).to(torch.float32)
    return halves(blocks, 0) * codes + halves(blocks, 2)


def quantize(values: Tensor) -> Tensor:
    """float32 [n, 32] -> uint8 [n, 20]: the range of the block becomes the codes 0 to 15."""
    high, low = values.amax(-1, keepdim=True) + 0.0, values.amin(-1, keepdim=True) + 0.0  # no negative zeros
    scale = (high - low) / 15
    codes = ((values - low) * reciprocal(scale) + 0.5).trunc().clamp(0, 15).to(torch.uint8)
    return torch.cat([as_bytes(scale), as_bytes(low), join_nibbles(codes)], -1)


Q4_1 = BlockCodec("q4_1", 3, 32, 20, dequantize, quantize)

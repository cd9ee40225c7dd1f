# SPDX-License-Identifier: Apache-2.0
"""Q5_0: 32 elements, a float16 scale, the fifth bits of all codes, 4-bit codes; codes around 16. 22 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import (
    BlockCodec,
    as_bytes,
    halves,
    join_bits,
    join_nibbles,
    most_extreme,
    nibbles,
    reciprocal,
    stream_bits,
)


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 22] -> float32 [n, 32]."""
    codes = nibbles(blocks[:, 6:]).flatten(1) | (stream_bits(blocks[:, 2:6]) << 4)
    return halves(blocks, 0) * (codes.to(torch.float32) - 16)


def quantize(values: Tensor) -> Tensor:
    """float32 [n, 32] -> uint8 [n, 22]: the value of largest magnitude becomes code 0."""
    scale = most_extreme(values) / -16
    codes = (values * reciprocal(scale) + 16.5).trunc().clamp(0, 31).to(torch.uint8)
    return torch.cat([as_bytes(scale), join_bits(codes >> 4), join_nibbles(codes & 0x0F)], -1)


Q5_0 = BlockCodec("q5_0", 6, 32, 22, dequantize, quantize)

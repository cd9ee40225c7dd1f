# SPDX-License-Identifier: Apache-2.0
"""Q4_0: 32 elements, a float16 scale, 4-bit codes around 8. 18 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import (
    BlockCodec,
    as_bytes,
    halves,
    join_nibbles,
    most_extreme,
    nibbles,
    reciprocal,
)


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 18] -> float32 [n, 32]."""
    codes = nibbles(blocks[:, 2:]).flatten(1).to(torch.float32)
    return halves(blocks, 0) * (codes - 8)


def quantize(values: Tensor) -> Tensor:
    """float32 [n, 32] -> uint8 [n, 18]: the value of largest magnitude becomes code 0."""
    scale = most_extreme(values) / -8
    codes = (values * reciprocal(scale) + 8.5).trunc().clamp(0, 15).to(torch.uint8)
    return torch.cat([as_bytes(scale), join_nibbles(codes)], -1)


Q4_0 = BlockCodec("q4_0", 2, 32, 18, dequantize, quantize)

# SPDX-License-Identifier: Apache-2.0
"""Q8_0: 32 elements, a float16 scale, signed bytes. 34 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec, as_bytes, halves, reciprocal


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 34] -> float32 [n, 32]."""
    return blocks[:, 2:].view(torch.int8).to(torch.float32) * halves(blocks, 0)


def quantize(values: Tensor) -> Tensor:
    """float32 [n, 32] -> uint8 [n, 34]: the largest magnitude becomes 127; halves round away from zero."""
    scale = values.abs().amax(-1, keepdim=True) / 127
    scaled = values * reciprocal(scale)
    whole = scaled.trunc()
    codes = whole + (scaled - whole).abs().ge(0.5) * scaled.sign()
    return torch.cat([as_bytes(scale), codes.to(torch.int8).view(torch.uint8)], -1)


Q8_0 = BlockCodec("q8_0", 8, 32, 34, dequantize, quantize)

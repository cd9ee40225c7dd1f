# SPDX-License-Identifier: Apache-2.0
"""The GGML types that are plain floats: one element a block."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec


def _codec(name: str, number: int, dtype: torch.dtype) -> BlockCodec:
    def dequantize(blocks: Tensor) -> Tensor:
        return blocks.contiguous().view(dtype).to(torch.float32)

    def quantize(values: Tensor) -> Tensor:
        return values.to(dtype).view(torch.uint8)

    return BlockCodec(name, number, 1, dtype.itemsize, dequantize, quantize)


F32 = _codec("f32", 0, torch.float32)
F16 = _codec("f16", 1, torch.float16)
BF16 = _codec("bf16", 30, torch.bfloat16)

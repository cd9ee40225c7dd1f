# SPDX-License-Identifier: Apache-2.0
"""Plain numbers that weights are rarely made of: float64 and whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec


def _codec(name: str, number: int, dtype: torch.dtype) -> BlockCodec:
    def dequantize(blocks: Tensor) -> Tensor:
        return blocks.contiguous().view(dtype).to(torch.float32)

    return BlockCodec(name, number, 1, dtype.itemsize, dequantize)


F64 = _codec("f64", 28, torch.float64)
I8 = _codec("i8", 24, torch.int8)
I16 = _codec("i16", 25, torch.int16)
I32 = _codec("i32", 26, torch.int32)
I64 = _codec("i64", 27, torch.int64)

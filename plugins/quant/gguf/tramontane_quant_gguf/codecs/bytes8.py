# SPDX-License-Identifier: Apache-2.0
"""Q8_1 and Q8_K: signed bytes with a scale and sums that products use. ggml makes them of activations; files may hold
them all the same.

Q8_1 (36 bytes): 32 elements, float16 scale, float16 sum. Q8_K (292 bytes): 256 elements, float32 scale, 16-bit sums of
16 elements each. The sums say nothing new about the values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec
from tramontane.schemes.ggml.codec import halves


def _signed(codes: Tensor) -> Tensor:
    return codes.contiguous().view(torch.int8).to(torch.float32)


def dequantize_1(blocks: Tensor) -> Tensor:
    """uint8 [n, 36] -> float32 [n, 32]."""
    return halves(blocks, 0) * _signed(blocks[:, 4:])


def dequantize_k(blocks: Tensor) -> Tensor:
    """uint8 [n, 292] -> float32 [n, 256]."""
    scale = blocks[:, :4].contiguous().view(torch.float32)
    return scale * _signed(blocks[:, 4:260])


Q8_1 = BlockCodec("q8_1", 9, 32, 36, dequantize_1)
Q8_K = BlockCodec("q8_k", 15, 256, 292, dequantize_k)

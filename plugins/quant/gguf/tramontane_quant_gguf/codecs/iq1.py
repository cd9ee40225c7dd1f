# SPDX-License-Identifier: Apache-2.0
"""IQ1_S and IQ1_M: 256 elements from a table of ternary vectors of 8, shifted by an eighth up or down.

IQ1_S (50 bytes) has a 3-bit scale and one shift per 32 elements; IQ1_M (56 bytes) a 3-bit scale per 16 and a shift per
8, and its float16 factor is spread over the top bits of the four scale words.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec
from tramontane.schemes.ggml.codec import halves
from tramontane_quant_gguf.codecs.grids import looked_up, shifted, words16

SHIFT = 0.125


def _shift(down: Tensor) -> Tensor:
    """-1/8 where the bit is set, else 1/8."""
    return SHIFT * (1 - 2 * down.to(torch.float32))


def dequantize_s(blocks: Tensor) -> Tensor:
    """uint8 [n, 50] -> float32 [n, 256]: factor, 32 low bytes of table rows, 8 words of high bits, scale and shift."""
    words = words16(blocks, 34, 50)
    scale = halves(blocks, 0) * (2 * ((words >> 12) & 7) + 1).to(torch.float32)
    rows = blocks[:, 2:34].to(torch.int32) | ((shifted(words, range(0, 12, 3)) & 7) << 8).flatten(1)
    values = looked_up("iq1", rows).reshape(-1, 8, 32)
    return (scale.unsqueeze(-1) * (values + _shift(words >> 15).unsqueeze(-1))).flatten(1)


def dequantize_m(blocks: Tensor) -> Tensor:
    """uint8 [n, 56] -> float32 [n, 256]: 32 low bytes of rows, 16 bytes of high bits and shifts, 4 scale words."""
    words = words16(blocks, 48, 56)
    tops = (words >> 12) << torch.tensor([0, 4, 8, 12], dtype=torch.int32, device=blocks.device)
    factor = tops.sum(-1, keepdim=True).to(torch.int16).view(torch.float16).to(torch.float32)
    scale = factor * (2 * (shifted(words, range(0, 12, 3)) & 7).flatten(1) + 1).to(torch.float32)
    high = shifted(blocks[:, 32:48].to(torch.int32), range(0, 8, 4)).flatten(1)
    rows = blocks[:, :32].to(torch.int32) | ((high & 7) << 8)
    values = looked_up("iq1", rows) + _shift((high >> 3) & 1).unsqueeze(-1)
    return (scale.unsqueeze(-1) * values.reshape(-1, 16, 16)).flatten(1)


IQ1_S = BlockCodec("iq1_s", 19, 256, 50, dequantize_s)
IQ1_M = BlockCodec("iq1_m", 29, 256, 56, dequantize_m)

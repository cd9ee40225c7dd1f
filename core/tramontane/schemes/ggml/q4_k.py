# SPDX-License-Identifier: Apache-2.0
"""Q4_K: 256 elements in 8 sub-blocks, each with a 6-bit scale and minimum under two float16 factors. 144 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec, halves, nibbles


def sub_scales(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minima [n, 8] from the 12 bytes that Q4_K and Q5_K share.

    The first four scales and minima are the low six bits of bytes 0-3 and 4-7; the last four are split: low four bits
    in the halves of bytes 8-11, high two bits in the top of bytes 0-3 and 4-7.
    """
    first, second, last = packed.chunk(3, -1)
    scale = torch.cat([first & 63, (last & 0x0F) | ((first >> 6) << 4)], -1)
    low = torch.cat([second & 63, (last >> 4) | ((second >> 6) << 4)], -1)
    return scale, low


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 144] -> float32 [n, 256]: each 32 bytes hold one sub-block in the low halves, the next in the high."""
    scale, low = sub_scales(blocks[:, 4:16])
    codes = nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32).to(torch.float32)
    factor = (halves(blocks, 0) * scale.to(torch.float32)).unsqueeze(-1)
    offset = (halves(blocks, 2) * low.to(torch.float32)).unsqueeze(-1)
    return (factor * codes - offset).flatten(1)


Q4_K = BlockCodec("q4_k", 12, 256, 144, dequantize)

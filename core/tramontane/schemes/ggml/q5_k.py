# SPDX-License-Identifier: Apache-2.0
"""Q5_K: as Q4_K, with a fifth bit per code in 32 further bytes. 176 bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import BlockCodec, bit_planes, halves, nibbles
from tramontane.schemes.ggml.q4_k import sub_scales


def dequantize(blocks: Tensor) -> Tensor:
    """uint8 [n, 176] -> float32 [n, 256]: bit j of the 32 bytes belongs to sub-block j."""
    scale, low = sub_scales(blocks[:, 4:16])
    codes = nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32) | (bit_planes(blocks[:, 16:48], 1) << 4)
    factor = (halves(blocks, 0) * scale.to(torch.float32)).unsqueeze(-1)
    offset = (halves(blocks, 2) * low.to(torch.float32)).unsqueeze(-1)
    return (factor * codes.to(torch.float32) - offset).flatten(1)


Q5_K = BlockCodec("q5_k", 13, 256, 176, dequantize)

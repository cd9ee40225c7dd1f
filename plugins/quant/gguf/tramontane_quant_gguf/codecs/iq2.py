# SPDX-License-Identifier: Apache-2.0
"""IQ2_XXS, IQ2_XS and IQ2_S: 256 elements from tables of vectors of 8 magnitudes, with signs and 4-bit scales.

IQ2_XXS (66 bytes): per 32 elements four table rows of 8 bits, then four sign indices of 7 bits and a scale in one word.
IQ2_XS (74): words of 9 bits of row and 7 of signs, and a scale per 16 elements. IQ2_S (82): rows of 10 bits, whole sign
bytes, a scale per 16 elements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec
from tramontane.schemes.ggml.codec import bit_planes, halves
from tramontane_quant_gguf.codecs.grids import even_signs, looked_up, shifted, signs, words16, words32


def _scaled(blocks: Tensor, scale: Tensor, values: Tensor, sign: Tensor) -> Tensor:
    """``factor * (1/2 + scale) / 4``, one per equal share of the block, on magnitudes and signs [n, .., 8]."""
    per_share = halves(blocks, 0) * (0.5 + scale.to(torch.float32)) * 0.25
    shares = (blocks.shape[0], scale.shape[1], -1)
    return (per_share.unsqueeze(-1) * values.reshape(shares) * sign.reshape(shares)).flatten(1)


def dequantize_xxs(blocks: Tensor) -> Tensor:
    """uint8 [n, 66] -> float32 [n, 256]."""
    pairs = blocks[:, 2:].reshape(-1, 8, 8)
    words = words32(pairs.reshape(-1, 8), 4, 8).reshape(-1, 8)
    index = shifted(words, range(0, 28, 7)) & 0x7F
    return _scaled(blocks, words >> 28, looked_up("iq2_xxs", pairs[..., :4]), even_signs(index))


def dequantize_xs(blocks: Tensor) -> Tensor:
    """uint8 [n, 74] -> float32 [n, 256]."""
    words = words16(blocks, 2, 66)
    scale = bit_planes(blocks[:, 66:].unsqueeze(-1), 4).flatten(1)
    return _scaled(blocks, scale, looked_up("iq2_xs", words & 511), even_signs(words >> 9))


def dequantize_s(blocks: Tensor) -> Tensor:
    """uint8 [n, 82] -> float32 [n, 256]."""
    high = shifted(blocks[:, 66:74].to(torch.int32), range(0, 8, 2)).flatten(1) & 3
    rows = blocks[:, 2:34].to(torch.int32) | (high << 8)
    scale = bit_planes(blocks[:, 74:].unsqueeze(-1), 4).flatten(1)
    return _scaled(blocks, scale, looked_up("iq2_s", rows), signs(blocks[:, 34:66]))


IQ2_XXS = BlockCodec("iq2_xxs", 16, 256, 66, dequantize_xxs)
IQ2_XS = BlockCodec("iq2_xs", 17, 256, 74, dequantize_xs)
IQ2_S = BlockCodec("iq2_s", 22, 256, 82, dequantize_s)

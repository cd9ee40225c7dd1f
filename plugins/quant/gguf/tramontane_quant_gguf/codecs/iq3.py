# SPDX-License-Identifier: Apache-2.0
"""IQ3_XXS and IQ3_S: 256 elements from tables of vectors of 4 magnitudes, with signs and 4-bit scales per 32.

IQ3_XXS (98 bytes): rows of 8 bits; a word per 32 elements holds four sign indices of 7 bits and the scale. IQ3_S (110):
rows of 9 bits, whole sign bytes, odd scales ``1 + 2 s``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec
from tramontane.schemes.ggml.codec import bit_planes, halves, stream_bits
from tramontane_quant_gguf.codecs.grids import even_signs, looked_up, shifted, signs, words32


def _scaled(scale: Tensor, values: Tensor, sign: Tensor) -> Tensor:
    """One scale per 32 elements, on magnitudes [n, 64, 4] and signs [n, .., 8]."""
    shares = (scale.shape[0], 8, 32)
    return (scale.unsqueeze(-1) * values.reshape(shares) * sign.reshape(shares)).flatten(1)


def dequantize_xxs(blocks: Tensor) -> Tensor:
    """uint8 [n, 98] -> float32 [n, 256]."""
    words = words32(blocks, 66, 98)
    scale = halves(blocks, 0) * (0.5 + (words >> 28).to(torch.float32)) * 0.5
    index = shifted(words, range(0, 28, 7)) & 0x7F
    return _scaled(scale, looked_up("iq3_xxs", blocks[:, 2:66]), even_signs(index))


def dequantize_s(blocks: Tensor) -> Tensor:
    """uint8 [n, 110] -> float32 [n, 256]."""
    rows = blocks[:, 2:66].to(torch.int32) | (stream_bits(blocks[:, 66:74]).to(torch.int32) << 8)
    scale = halves(blocks, 0) * (1 + 2 * bit_planes(blocks[:, 106:].unsqueeze(-1), 4).flatten(1)).to(torch.float32)
    return _scaled(scale, looked_up("iq3_s", rows), signs(blocks[:, 74:106]))


IQ3_XXS = BlockCodec("iq3_xxs", 18, 256, 98, dequantize_xxs)
IQ3_S = BlockCodec("iq3_s", 21, 256, 110, dequantize_s)

# SPDX-License-Identifier: Apache-2.0
"""MXFP4 and NVFP4 as GGML stores them: e2m1 codes, low halves of the bytes first.

MXFP4 (17 bytes): 32 elements under a power of two. NVFP4 (36 bytes): 64 elements in four groups of 16, each under an
unsigned e4m3 scale. The values of the codes are doubled here, and the scales halved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec
from tramontane.schemes.ggml.codec import join_nibbles, nibbles

DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def _doubled(device: torch.device) -> Tensor:
    return torch.tensor(DOUBLED, dtype=torch.float32, device=device)


def _half_power(exponent: Tensor) -> Tensor:
    """``2 ** (e - 128)`` as float32; the two smallest are subnormal."""
    e = exponent.to(torch.int32)
    return torch.where(e < 2, 0x0020_0000 << e.clamp(max=1), (e - 1).clamp(min=0) << 23).view(torch.float32)


def dequantize_mx(blocks: Tensor) -> Tensor:
    """uint8 [n, 17] -> float32 [n, 32]."""
    codes = nibbles(blocks[:, 1:]).flatten(1)
    return _half_power(blocks[:, :1]) * _doubled(blocks.device)[codes.long()]


def quantize_mx(values: Tensor) -> Tensor:
    """float32 [n, 32] -> uint8 [n, 17]: the largest magnitude decides the power, then each takes the nearest code."""
    largest = values.abs().amax(-1, keepdim=True)
    exponent = (largest.log2().floor() - 2 + 127).clamp(0, 254)
    exponent = torch.where(largest > 0, exponent, torch.zeros_like(exponent)).to(torch.uint8)
    steps = _half_power(exponent).unsqueeze(-1) * _doubled(values.device)
    errors = (steps - values.unsqueeze(-1)).abs()
    # The first of equally near codes, so that zero is code 0; argmin promises no order.
    codes = ((errors == errors.amin(-1, keepdim=True)).cumsum(-1) == 0).sum(-1).clamp(max=15).to(torch.uint8)
    return torch.cat([exponent, join_nibbles(codes)], -1)


def _half_e4m3(scale: Tensor) -> Tensor:
    """Half the value of unsigned e4m3 bytes; 0x7F, which would be NaN, and the sign bit count as nothing."""
    exponent, mantissa = ((scale >> 3) & 15).to(torch.float32), (scale & 7).to(torch.float32)
    normal = (1 + mantissa / 8) * torch.exp2(exponent - 7)
    value = torch.where(exponent == 0, mantissa * 2**-9, normal)
    return torch.where((scale == 0) | (scale == 0x7F), torch.zeros_like(value), value * 0.5)


def dequantize_nv(blocks: Tensor) -> Tensor:
    """uint8 [n, 36] -> float32 [n, 64]."""
    codes = nibbles(blocks[:, 4:].reshape(-1, 4, 8)).flatten(-2)
    return (_half_e4m3(blocks[:, :4]).unsqueeze(-1) * _doubled(blocks.device)[codes.long()]).flatten(1)


MXFP4 = BlockCodec("mxfp4", 39, 32, 17, dequantize_mx, quantize_mx)
NVFP4 = BlockCodec("nvfp4", 40, 64, 36, dequantize_nv)

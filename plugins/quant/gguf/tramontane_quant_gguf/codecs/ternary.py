# SPDX-License-Identifier: Apache-2.0
"""TQ1_0 and TQ2_0: 256 elements that are -1, 0 or 1 times one float16 scale.

TQ2_0 (66 bytes) keeps two bits an element. TQ1_0 (54 bytes) keeps five elements a byte (four in the last four bytes):
the byte is their base-3 number, first element on top, scaled from 243 to 256 steps and rounded up, so that multiplying
by a power of 3 brings a digit to the top of the byte.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml import BlockCodec
from tramontane.schemes.ggml.codec import as_bytes, bit_planes, halves, reciprocal

POWERS = (1, 3, 9, 27, 81)
GROUPS = ((0, 32, 5), (32, 48, 5), (48, 52, 4))
"""TQ1_0: bytes ``start:stop`` of a block hold so many digits each; digit k of all of them comes before digit k + 1."""


def _digits(values: Tensor) -> tuple[Tensor, Tensor]:
    """Elements [n, 256] as 0, 1, 2 (uint8; halves round away from zero), and the scale [n, 1]."""
    scale = values.abs().amax(-1, keepdim=True)
    scaled = values * reciprocal(scale)
    whole = scaled.trunc()
    rounded = whole + (scaled - whole).abs().ge(0.5) * scaled.sign()
    return (rounded + 1).to(torch.uint8), scale


def dequantize_1(blocks: Tensor) -> Tensor:
    """uint8 [n, 54] -> float32 [n, 256]."""
    digits = []
    for start, stop, count in GROUPS:
        powers = torch.tensor(POWERS[:count], dtype=torch.int32, device=blocks.device).unsqueeze(-1)
        raised = (blocks[:, None, start:stop].to(torch.int32) * powers) & 0xFF
        digits.append(((raised * 3) >> 8).flatten(1))
    return halves(blocks, 52) * (torch.cat(digits, -1) - 1).to(torch.float32)


def quantize_1(values: Tensor) -> Tensor:
    """float32 [n, 256] -> uint8 [n, 54]."""
    digits, scale = _digits(values)
    packed, at = [], 0
    for start, stop, count in GROUPS:
        width = stop - start
        part = digits[:, at : at + count * width].reshape(-1, count, width).to(torch.int32)
        powers = torch.tensor([81, 27, 9, 3, 1][:count], dtype=torch.int32, device=values.device).unsqueeze(-1)
        packed.append(((part * powers).sum(1) * 256 + 242) // 243)
        at += count * width
    return torch.cat([torch.cat(packed, -1).to(torch.uint8), as_bytes(scale)], -1)


def dequantize_2(blocks: Tensor) -> Tensor:
    """uint8 [n, 66] -> float32 [n, 256]: per half block four planes of 32 elements."""
    codes = bit_planes(blocks[:, :64].reshape(-1, 2, 32), 2).reshape(-1, 256)
    return halves(blocks, 64) * (codes.to(torch.float32) - 1)


def quantize_2(values: Tensor) -> Tensor:
    """float32 [n, 256] -> uint8 [n, 66]."""
    digits, scale = _digits(values)
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=values.device).unsqueeze(-1)
    packed = (digits.reshape(-1, 2, 4, 32) << places).sum(2, dtype=torch.uint8)
    return torch.cat([packed.flatten(1), as_bytes(scale)], -1)


TQ1_0 = BlockCodec("tq1_0", 34, 256, 54, dequantize_1, quantize_1)
TQ2_0 = BlockCodec("tq2_0", 35, 256, 66, dequantize_2, quantize_2)

# SPDX-License-Identifier: Apache-2.0
"""One GGML block type: its size and the functions between bytes and floats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import field, frozen
from torch import Tensor


@frozen
class BlockCodec:
    """A GGML block type. A plugin brings a further type by making one of these; types compare by name.

    Attributes:
        name: Lower case: ``q4_k``.
        id: The type's number in GGUF files.
        block: Elements per block.
        nbytes: Bytes per block.
        dequantize: uint8 [n, nbytes] -> float32 [n, block].
        quantize: float32 [n, block] -> uint8 [n, nbytes], where there is a plain rule.
    """

    name: str
    id: int = field(eq=False)
    block: int = field(eq=False)
    nbytes: int = field(eq=False)
    dequantize: Callable[[Tensor], Tensor] = field(eq=False, repr=False)
    quantize: Callable[[Tensor], Tensor] | None = field(default=None, eq=False, repr=False)


def halves(blocks: Tensor, start: int) -> Tensor:
    """The float16 at byte ``start`` of each block, as float32 [n, 1]."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).to(torch.float32)


def as_bytes(values: Tensor) -> Tensor:
    """Float32 [n, 1] rounded to float16, as bytes [n, 2]."""
    return values.flatten().to(torch.float16).contiguous().view(torch.uint8).reshape(-1, 2)


def nibbles(packed: Tensor) -> Tensor:
    """uint8 [.., k] -> [.., 2, k]: first all low halves, then all high halves."""
    return torch.stack([packed & 0x0F, packed >> 4], -2)


def join_nibbles(codes: Tensor) -> Tensor:
    """The inverse of :func:`nibbles` for codes below 16: [n, 2 * k] -> [n, k]."""
    low, high = codes.chunk(2, -1)
    return low | (high << 4)


def bit_planes(packed: Tensor, bits: int) -> Tensor:
    """uint8 [.., k] -> [.., 8 / bits, k]: plane j holds bits ``j * bits`` and up of every byte."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device).unsqueeze(-1)
    planes: Tensor = (packed.unsqueeze(-2) >> shifts) & (2**bits - 1)
    return planes


def stream_bits(packed: Tensor) -> Tensor:
    """uint8 [n, k] -> [n, 8 * k]: the bits of each byte in order, lowest first."""
    return ((packed.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1).flatten(-2)


def join_bits(bits: Tensor) -> Tensor:
    """The inverse of :func:`stream_bits`."""
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits.reshape(bits.shape[0], -1, 8) << places).sum(-1, dtype=torch.uint8)


def reciprocal(values: Tensor) -> Tensor:
    """``1 / x``, and 0 for 0."""
    return torch.where(values == 0, torch.zeros_like(values), 1 / values)


def most_extreme(values: Tensor) -> Tensor:
    """The value of largest magnitude of each row [n, 1], the first of equals (torch's argmax promises no order)."""
    magnitude = values.abs()
    before = (magnitude == magnitude.amax(-1, keepdim=True)).cumsum(-1) == 0
    return values.gather(-1, before.sum(-1, keepdim=True).clamp(max=values.shape[-1] - 1))

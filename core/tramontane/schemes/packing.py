# SPDX-License-Identifier: Apache-2.0
"""Small whole numbers packed into bytes, lowest bits first.

The canonical packing of every scheme with codes under eight bits: the codes of a row form one little-endian bit stream.
``codes_per_block`` codes fill ``bytes_per_block`` bytes exactly, so that rows can be cut between blocks.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor


def codes_per_block(bits: int) -> int:
    """Codes in the smallest whole number of bytes: 2 for 4 bits, 8 for 3 bits."""
    return 8 // gcd(8, bits)


def bytes_per_block(bits: int) -> int:
    """Bytes that :func:`codes_per_block` codes fill."""
    return bits // gcd(8, bits)


def packed_size(count: int, bits: int) -> int:
    """Bytes of a row of ``count`` codes; the last block is padded."""
    return -(-count // codes_per_block(bits)) * bytes_per_block(bits)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes below ``2**bits`` [.., n] as uint8 [.., packed_size(n)]; padding is zero."""
    if bits == 8:
        return codes.to(torch.uint8)
    count, block = codes.shape[-1], codes_per_block(bits)
    padded = torch.nn.functional.pad(codes.to(torch.uint8), (0, -count % block))
    blocks = padded.unflatten(-1, (-1, block))
    word: Tensor = blocks[..., 0] if bits * block == 8 else blocks[..., 0].to(torch.int64)
    for place in range(1, block):
        word = word | (blocks[..., place].to(word.dtype) << (place * bits))
    if word.dtype == torch.uint8:
        return word
    places = torch.arange(0, bits * block, 8, device=codes.device)
    octets: Tensor = (word.unsqueeze(-1) >> places) & 255
    return octets.to(torch.uint8).flatten(-2)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of :func:`pack`: uint8 codes [.., count]."""
    if bits == 8:
        return packed[..., :count]
    if 8 % bits == 0:
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        codes = (packed.unsqueeze(-1) >> shifts) & (2**bits - 1)
    else:
        places = torch.arange(8, dtype=torch.uint8, device=packed.device)
        stream = ((packed.unsqueeze(-1) >> places) & 1).reshape(*packed.shape[:-1], packed.shape[-1] * 8 // bits, bits)
        codes = (stream << places[:bits]).sum(-1, dtype=torch.uint8)
    flat: Tensor = codes.reshape(*packed.shape[:-1], packed.shape[-1] * 8 // bits)
    return flat[..., :count]


def octets(words: Tensor) -> Tensor:
    """Words of several bytes [.., n] as their bytes [.., n * itemsize], the lowest first; copied if not contiguous."""
    # A copy where torch calls a tensor contiguous whose last stride is not 1: a dimension of size 1 may have any.
    lined = words.contiguous() if words.stride(-1) == 1 else words.clone(memory_format=torch.contiguous_format)
    return lined.view(torch.uint8)


def in_blocks(values: Tensor, size: int) -> Tensor:
    """Rows cut into blocks [.., n] -> [.., ceil(n / size), size]; the last block is padded with zeros."""
    padded = torch.nn.functional.pad(values, (0, -values.shape[-1] % size))
    return padded.reshape(*values.shape[:-1], padded.shape[-1] // size, size)

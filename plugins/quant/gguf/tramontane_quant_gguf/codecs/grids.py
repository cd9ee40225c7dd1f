# SPDX-License-Identifier: Apache-2.0
"""The tables of the IQ types as tensors, and what their blocks share: signs and wide words.

Legend: R rows of a table, E elements of a row.
"""

from __future__ import annotations

import base64
import zlib
from functools import lru_cache

import torch
from torch import Tensor

from tramontane.schemes.packing import unpack
from tramontane_quant_gguf.codecs.grid_data import TABLES


@lru_cache(maxsize=len(TABLES))
def grid(name: str) -> Tensor:
    """A table as float32 [R, E]."""
    rows, elements, values, text = TABLES[name]
    bits = (len(values) - 1).bit_length()
    packed = torch.frombuffer(bytearray(zlib.decompress(base64.b85decode(text))), dtype=torch.uint8)
    codes = unpack(packed, bits, rows * elements)
    return torch.tensor(values, dtype=torch.float32)[codes.long()].reshape(rows, elements)


def looked_up(name: str, index: Tensor) -> Tensor:
    """Rows of a table: [...] -> float32 [..., E]."""
    return grid(name).to(index.device)[index.long()]


def words16(blocks: Tensor, start: int, stop: int) -> Tensor:
    """Unsigned 16-bit words of each block, as int32."""
    return blocks[:, start:stop].contiguous().view(torch.int16).to(torch.int32) & 0xFFFF


def words32(blocks: Tensor, start: int, stop: int) -> Tensor:
    """Unsigned 32-bit words of each block, as int64."""
    return blocks[:, start:stop].contiguous().view(torch.int32).to(torch.int64) & 0xFFFF_FFFF


def shifted(words: Tensor, shifts: range) -> Tensor:
    """Each word shifted right by each number: [...] -> [..., shifts]."""
    return words.unsqueeze(-1) >> torch.tensor(list(shifts), dtype=words.dtype, device=words.device)


def signs(bits: Tensor) -> Tensor:
    """Sign bytes, lowest bit first, as factors: [...] -> float32 [..., 8], -1 where the bit is set."""
    return 1 - 2 * (shifted(bits.to(torch.int32), range(8)) & 1).to(torch.float32)


def even_signs(index: Tensor) -> Tensor:
    """As :func:`signs` for seven bits; the eighth sign makes the number of minus signs even."""
    seven = shifted(index.to(torch.int32), range(7)) & 1
    last = seven.sum(-1, keepdim=True) & 1
    return 1 - 2 * torch.cat([seven, last], -1).to(torch.float32)

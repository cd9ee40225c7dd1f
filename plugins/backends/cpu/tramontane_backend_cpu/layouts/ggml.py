# SPDX-License-Identifier: Apache-2.0
"""Types of ggml that the native side decodes (``native/kernels/layouts/ggml_rows.h``), and the tables of some.

Codes of the IQ1, IQ2 and IQ3 types are rows of tables of short vectors. Whoever brings such a type brings its table
within its codec; here it is read off the codec, by giving it blocks that name one row after the other at scale one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from attrs import frozen
from torch import Tensor

from tramontane.schemes import BlockCodec
from tramontane_backend_cpu.abi import Code

_Naming = Callable[[Tensor, Tensor], None]
"""``name(blocks [n, bytes], rows [n, k])``: write row numbers, and what else is not zero, into blocks of zeros."""


@frozen
class _Type:
    code: Code
    nbytes: int
    """Of a block: a type of a plugin that only shares the name is not taken for it."""
    rows: int = 0
    """Of its table."""
    features: int = 8
    """Of a row."""
    name: _Naming | None = None
    shift: float = 0.0
    """What such blocks add to the rows."""


def _factor(blocks: Tensor, value: float) -> None:
    blocks[:, :2] = torch.tensor([value], dtype=torch.float16).view(torch.uint8)


def _bits(rows: Tensor, first: int, count: int, apart: int) -> Tensor:
    """Bits ``first`` and up of each row, those of neighbours ``apart`` bits from one another: [n, k] -> bytes."""
    each = (rows >> first) & (2**count - 1)
    together = each.unflatten(1, (-1, 8 // apart)) << torch.arange(0, 8, apart)
    return together.sum(-1).to(torch.uint8)


def _iq2_xxs(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks, 8.0)
    blocks[:, 2:].unflatten(1, (8, 8))[..., :4] = rows.unflatten(1, (8, 4)).to(torch.uint8)


def _iq2_xs(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks, 8.0)
    blocks[:, 2:66] = rows.to(torch.int16).view(torch.uint8)


def _iq2_s(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks, 8.0)
    blocks[:, 2:34], blocks[:, 66:74] = rows.to(torch.uint8), _bits(rows, 8, 2, 2)


def _iq3_xxs(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks, 4.0)
    blocks[:, 2:66] = rows.to(torch.uint8)


def _iq3_s(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks, 1.0)
    blocks[:, 2:66], blocks[:, 66:74] = rows.to(torch.uint8), _bits(rows, 8, 1, 1)


def _iq1_s(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks, 1.0)
    high = ((rows >> 8).unflatten(1, (8, 4)) << torch.arange(0, 12, 3)).sum(-1)
    blocks[:, 2:34], blocks[:, 34:] = rows.to(torch.uint8), high.to(torch.int16).view(torch.uint8)


def _iq1_m(blocks: Tensor, rows: Tensor) -> None:
    blocks[:, :32], blocks[:, 32:48] = rows.to(torch.uint8), _bits(rows, 8, 3, 4)
    blocks[:, 53], blocks[:, 55] = 0xC0, 0x30  # the float16 1.0, by its halves of bytes


TYPES: Mapping[str, _Type] = {
    "q2_k": _Type(Code.Q2_K, 84), "q3_k": _Type(Code.Q3_K, 110), "iq4_nl": _Type(Code.IQ4_NL, 18),
    "iq4_xs": _Type(Code.IQ4_XS, 136), "tq1_0": _Type(Code.TQ1_0, 54), "tq2_0": _Type(Code.TQ2_0, 66),
    "mxfp4": _Type(Code.MXFP4, 17), "nvfp4": _Type(Code.NVFP4, 36),
    "iq1_s": _Type(Code.IQ1_S, 50, 2048, 8, _iq1_s, 0.125), "iq1_m": _Type(Code.IQ1_M, 56, 2048, 8, _iq1_m, 0.125),
    "iq2_xxs": _Type(Code.IQ2_XXS, 66, 256, 8, _iq2_xxs), "iq2_xs": _Type(Code.IQ2_XS, 74, 512, 8, _iq2_xs),
    "iq2_s": _Type(Code.IQ2_S, 82, 1024, 8, _iq2_s), "iq3_xxs": _Type(Code.IQ3_XXS, 98, 256, 4, _iq3_xxs),
    "iq3_s": _Type(Code.IQ3_S, 110, 512, 4, _iq3_s),
}  # fmt: skip
"""By the names of their codecs."""


def code_of(codec: BlockCodec) -> Code | None:
    """What the native side calls a type; ``None`` if it does not know it."""
    found = TYPES.get(codec.name)
    return None if found is None or found.nbytes != codec.nbytes else found.code


@lru_cache(maxsize=len(TYPES))
def table_of(codec: BlockCodec) -> Tensor | None:
    """The table of a known type: float32 [rows, features], or ``None`` if it has none."""
    found = TYPES[codec.name]
    if found.name is None:
        return None
    each = codec.block // found.features
    rows = torch.arange(found.rows).view(-1, each)
    blocks = torch.zeros(len(rows), codec.nbytes, dtype=torch.uint8)
    found.name(blocks, rows)
    return (codec.dequantize(blocks).view(found.rows, found.features) - found.shift).contiguous()

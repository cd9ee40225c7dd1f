# SPDX-License-Identifier: Apache-2.0
"""The tables of ggml's types whose codes are rows of short vectors: IQ1, IQ2 and IQ3.

Whoever brings such a type brings its table within its codec; here it is read off the codec, by giving it blocks that
name one row after the other. Natively a weight is a level of its table (``native/kernels/layouts/grid_sources.h``).

Legend: R rows of a table, F features of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from attrs import frozen
from torch import Tensor

from tramontane.schemes import BlockCodec

_Naming = Callable[[Tensor, Tensor], None]
"""``name(blocks [n, bytes], rows [n, k])``: write row numbers, and what else is not zero, into blocks of zeros."""


@frozen
class _Type:
    rows: int
    features: int
    levels: int
    """Different numbers in the table, without their signs where it has none."""
    name: _Naming


def _factor(blocks: Tensor) -> None:
    blocks[:, :2] = torch.tensor([1.0], dtype=torch.float16).view(torch.uint8)


def _bits(rows: Tensor, first: int, count: int, apart: int) -> Tensor:
    """Bits ``first`` and up of each row, those of neighbours ``apart`` bits from one another: [n, k] -> bytes."""
    each = (rows >> first) & (2**count - 1)
    together = each.unflatten(1, (-1, 8 // apart)) << torch.arange(0, 8, apart)
    return together.sum(-1).to(torch.uint8)


def _iq2_xxs(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks)
    blocks[:, 2:].unflatten(1, (8, 8))[..., :4] = rows.unflatten(1, (8, 4)).to(torch.uint8)


def _iq2_xs(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks)
    blocks[:, 2:66] = rows.to(torch.int16).view(torch.uint8)


def _iq2_s(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks)
    blocks[:, 2:34], blocks[:, 66:74] = rows.to(torch.uint8), _bits(rows, 8, 2, 2)


def _iq3_xxs(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks)
    blocks[:, 2:66] = rows.to(torch.uint8)


def _iq3_s(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks)
    blocks[:, 2:66], blocks[:, 66:74] = rows.to(torch.uint8), _bits(rows, 8, 1, 1)


def _iq1_s(blocks: Tensor, rows: Tensor) -> None:
    _factor(blocks)
    high = ((rows >> 8).unflatten(1, (8, 4)) << torch.arange(0, 12, 3)).sum(-1)
    blocks[:, 2:34], blocks[:, 34:] = rows.to(torch.uint8), high.to(torch.int16).view(torch.uint8)


def _iq1_m(blocks: Tensor, rows: Tensor) -> None:
    blocks[:, :32], blocks[:, 32:48] = rows.to(torch.uint8), _bits(rows, 8, 3, 4)
    blocks[:, 53], blocks[:, 55] = 0xC0, 0x30  # the float16 1.0, by its halves of bytes


_TYPES: Mapping[str, _Type] = {
    "iq1_s": _Type(2048, 8, 3, _iq1_s), "iq1_m": _Type(2048, 8, 3, _iq1_m),
    "iq2_xxs": _Type(256, 8, 3, _iq2_xxs), "iq2_xs": _Type(512, 8, 3, _iq2_xs), "iq2_s": _Type(1024, 8, 3, _iq2_s),
    "iq3_xxs": _Type(256, 4, 8, _iq3_xxs), "iq3_s": _Type(512, 4, 8, _iq3_s),
}  # fmt: skip
"""By the names of their codecs."""


@lru_cache(maxsize=len(_TYPES))
def grid_of(codec: BlockCodec) -> tuple[Tensor, Tensor] | None:
    """The table of a type: levels uint8 [R, F], and rows by their levels int16 [levels**F]; ``None`` if it has none."""
    found = _TYPES.get(codec.name)
    if found is None:
        return None
    each = codec.block // found.features
    rows = torch.arange(found.rows).view(-1, each)
    blocks = torch.zeros(len(rows), codec.nbytes, dtype=torch.uint8)
    found.name(blocks, rows)
    values = codec.dequantize(blocks).view(found.rows, found.features)
    levels = torch.unique(values, return_inverse=True)[1]
    places = found.levels ** torch.arange(found.features)
    inverse = torch.zeros(found.levels**found.features, dtype=torch.int16)
    inverse[(levels * places).sum(-1)] = torch.arange(found.rows, dtype=torch.int16)
    return levels.to(torch.uint8).contiguous(), inverse

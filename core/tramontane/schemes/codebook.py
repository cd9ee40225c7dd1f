# SPDX-License-Identifier: Apache-2.0
"""4-bit codes that look up a table of 16 values, with a scale per block: NF4 and FP4.

Two codes share a byte, the earlier input in the low bits. Legend: O outputs, I inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes.base import Field, Fields, Scheme, Shape, make_field, require_float
from tramontane.schemes.packing import in_blocks, pack, packed_size, unpack
from tramontane.tensors import Axis

_FP4 = tuple(value / 12 for value in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0))
TABLES: dict[str, tuple[float, ...]] = {
    # Quantiles of a normal distribution with an exact zero; QLoRA (arXiv 2305.14314), appendix E.
    "nf4": (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
    # bitsandbytes' 4-bit float (sign, 2 exponent and 1 mantissa bit, its own order of codes), divided by its largest.
    "fp4": (*_FP4, *(-value for value in _FP4)),
}
"""Code -> value in [-1, 1]."""


def _known(_: object, __: Any, table: str) -> None:
    if table not in TABLES:
        raise PlanError(f"there is no table {table!r} (there are {', '.join(TABLES)})")


@frozen
class Codebook(Scheme):
    """``weight`` uint8 [O, I / 2], ``scale`` [O, I / block]: ``w = table[code] * scale``.

    Attributes:
        table: A key of :data:`TABLES`.
        block: Inputs per scale. Blocks never cross rows.
        scale_dtype: Element type of the scales.
    """

    table: str = field(default="nf4", validator=_known)
    block: int = 64
    scale_dtype: torch.dtype = torch.float32

    def __attrs_post_init__(self) -> None:
        if self.block < 2 or self.block % 2:
            raise PlanError(f"not a possible scheme: {self!r}")
        require_float(self.scale_dtype, "scales")

    @property
    def name(self) -> str:
        """Such as ``nf4-b64``."""
        return f"{self.table}-b{self.block}"

    def matrix_fields(self, out_features: int, in_features: int) -> dict[str, Field]:
        """See :meth:`Scheme.matrix_fields`."""
        codes, blocks = Axis(1, block=2), Axis(1, block=self.block)
        packed = (out_features, packed_size(in_features, 4))
        scales = (out_features, blocks.stored_size(in_features))
        return {
            "weight": make_field("weight", torch.uint8, packed, out=Axis(0), into=codes),
            "scale": make_field("scale", self.scale_dtype, scales, out=Axis(0), into=blocks),
        }

    def dequantize(self, fields: Fields, shape: Shape) -> Tensor:
        """See :meth:`Scheme.dequantize`."""
        codes = unpack(fields["weight"], 4, shape[-1]).long()
        table = torch.tensor(TABLES[self.table], dtype=torch.float32, device=codes.device)
        return table[codes] * fields["scale"].to(torch.float32).repeat_interleave(self.block, -1)[..., : shape[-1]]

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """See :meth:`Scheme.quantize`: the nearest table value after division by the block's largest magnitude."""
        values = weight.to(torch.float32)
        columns = values.shape[-1]
        padded = in_blocks(values, self.block)
        scale = padded.abs().amax(-1).to(self.scale_dtype)
        divisor = scale.to(torch.float32).unsqueeze(-1)
        unit = torch.where(divisor == 0, torch.zeros_like(padded), padded / divisor)
        sorted_table, codes = torch.tensor(TABLES[self.table], device=values.device).sort(stable=True)
        middles = (sorted_table[1:] + sorted_table[:-1]) / 2
        nearest = codes.to(torch.uint8)[torch.bucketize(unit, middles)]
        return {"weight": pack(nearest.flatten(-2)[..., :columns], 4), "scale": scale}

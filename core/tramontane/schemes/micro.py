# SPDX-License-Identifier: Apache-2.0
"""4-bit floating-point weights with a tiny scale per small block: MXFP4 and NVFP4.

Elements are e2m1 (OCP Microscaling Formats v1.0, section 5.3.3): sign, two exponent bits, one mantissa bit. Two codes
share a byte, the earlier input in the low bits. Legend: O outputs, I inputs.
"""

from __future__ import annotations

from typing import Literal

import torch
from attrs import field, frozen
from attrs.validators import in_
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes.base import Field, Fields, Scheme, Shape, make_field
from tramontane.schemes.packing import in_blocks, pack, packed_size, unpack
from tramontane.tensors import Axis

#: Values of the codes 0 to 7; bit 3 is the sign.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SCALES = {"mxfp4": torch.float8_e8m0fnu, "nvfp4": torch.float8_e4m3fn}
_BLOCKS = {"mxfp4": 32, "nvfp4": 16}


@frozen
class Micro(Scheme):
    """``weight`` uint8 [O, I / 2] (e2m1 pairs), ``scale`` [O, I / block]: ``w = e2m1 * scale * global_scale``.

    Attributes:
        fmt: ``mxfp4``: power-of-two scales (e8m0) per 32 inputs; ``nvfp4``: e4m3 scales per 16 inputs.
        block: Inputs per scale; the format's own if 0.
        global_scale: Whether one float32 factor for the matrix is stored too (``global_scale`` []).
    """

    fmt: Literal["mxfp4", "nvfp4"] = field(default="mxfp4", validator=in_(tuple(_SCALES)))
    block: int = 0
    global_scale: bool = False

    def __attrs_post_init__(self) -> None:
        if self.block < 0 or self.block % 2:
            raise PlanError(f"not a possible scheme: {self!r}")

    @property
    def name(self) -> str:
        """``mxfp4`` or ``nvfp4``, with the block where it is unusual."""
        return self.fmt if self.size == _BLOCKS[self.fmt] else f"{self.fmt}-b{self.size}"

    @property
    def size(self) -> int:
        """Inputs per scale."""
        return self.block or _BLOCKS[self.fmt]

    def matrix_fields(self, out_features: int, in_features: int) -> dict[str, Field]:
        """See :meth:`Scheme.matrix_fields`."""
        codes, blocks = Axis(1, block=2), Axis(1, block=self.size)
        packed = (out_features, packed_size(in_features, 4))
        scales = (out_features, blocks.stored_size(in_features))
        found = {
            "weight": make_field("weight", torch.uint8, packed, out=Axis(0), into=codes),
            "scale": make_field("scale", _SCALES[self.fmt], scales, out=Axis(0), into=blocks),
        }
        if self.global_scale:
            found["global_scale"] = make_field("global_scale", torch.float32, ())
        return found

    def dequantize(self, fields: Fields, shape: Shape) -> Tensor:
        """See :meth:`Scheme.dequantize`."""
        codes = unpack(fields["weight"], 4, shape[-1]).long()
        table = torch.tensor([*E2M1, *(-value for value in E2M1)], device=codes.device)
        scale = fields["scale"].to(torch.float32)
        if self.global_scale:
            scale = scale * fields["global_scale"][..., None, None]
        return table[codes] * scale.repeat_interleave(self.size, -1)[..., : shape[-1]]

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """See :meth:`Scheme.quantize`: MXFP4 as the OCP specification's section 6.3, NVFP4 with the largest magnitude
        of a block at 6 and of the matrix at 6 * 448."""
        values = weight.to(torch.float32)
        found: dict[str, Tensor] = {}
        columns = values.shape[-1]
        padded = in_blocks(values, self.size)
        largest = padded.abs().amax(-1)
        factor = torch.ones(values.shape[:-2], device=values.device)
        if self.global_scale:
            top = E2M1[-1] * (torch.finfo(torch.float8_e4m3fn).max if self.fmt == "nvfp4" else 1.0)
            factor = largest.amax((-1, -2)) / top
            found["global_scale"] = factor = torch.where(factor == 0, torch.ones_like(factor), factor)
        scaled = largest / factor[..., None, None]
        if self.fmt == "mxfp4":
            exponent = torch.where(scaled == 0, -127, torch.frexp(scaled).exponent - 3)  # 2**2 is the largest in e2m1
            scale = torch.exp2(exponent.clamp(-127, 127).to(torch.float32)).to(torch.float8_e8m0fnu)
        else:
            scale = (scaled / E2M1[-1]).clamp(max=448.0).to(torch.float8_e4m3fn)
        divisor = (scale.to(torch.float32) * factor[..., None, None]).unsqueeze(-1)
        codes = to_e2m1(torch.where(divisor == 0, torch.zeros_like(padded), padded / divisor))
        return {"weight": pack(codes.flatten(-2)[..., :columns], 4), "scale": scale, **found}


def to_e2m1(values: Tensor) -> Tensor:
    """uint8 codes of the nearest e2m1 values, ties to the even code, too large ones to the largest."""
    magnitude = values.abs()
    codes = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
    for code in range(7):
        middle = (E2M1[code] + E2M1[code + 1]) / 2
        codes += (magnitude >= middle if code % 2 else magnitude > middle).to(torch.uint8)
    return codes | (torch.signbit(values).to(torch.uint8) << 3)

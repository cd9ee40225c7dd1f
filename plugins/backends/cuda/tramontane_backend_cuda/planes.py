# SPDX-License-Identifier: Apache-2.0
"""How quantized matrices lie on the card: codes, scales and what else a scheme has, each a plane of its own.

A block of a GGUF file has 17 to 210 bytes; read as it is, no two loads of a warp would be aligned. As planes, the codes
of a row are one run of bytes that neighbouring threads load together (:mod:`.codes` says in which order), and the
scales are small beside it.

Everything here moves bits only: :meth:`Form.fields` gives back the canonical fields bit for bit.

Legend: O outputs (of all experts, where there are several), I inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from tramontane.schemes.packing import pack, unpack
from tramontane_backend_cuda.codes import BYTES, LANES, Packing

Planes = Mapping[str, Tensor]
Codes = Literal["dense", "bits", "u8", "i8", "e4m3", "e5m2"]
Table = Literal["", "e2m1", "look"]
Scale = Literal["none", "number", "e8m0", "e4m3", "nibbles"]
Zero = Literal["none", "middle", "code", "offset", "low"]


@frozen(kw_only=True)
class Form(ABC):
    """What a kernel has to know of a layout, and the way there and back.

    A weight is ``scale * value(code) + shift``, where scale and shift are shared by a group of inputs.

    Attributes:
        codes: How a code is read: ``dense`` numbers, packed ``bits``, whole bytes of some type.
        packing: How bits are packed.
        table: What packed bits mean: whole numbers, 4-bit floats, or places in ``values``.
        values: The table that codes look up.
        scale: The type of scales: ``number`` is whatever the plane's elements are; ``nibbles`` has a minimum in the
            upper half of the byte.
        zero: Where the shift comes from: the code ``middle``; a zero point in codes; an offset; a minimum that is
            subtracted.
        group: Inputs that share a scale; 0 is all inputs. A multiple of 8.
        rows: Outputs that share one.
        middle: The code that means zero.
        supers: Inputs that share a factor of their scales; 0 is all inputs, -1: there is none.
    """

    codes: Codes
    packing: Packing = BYTES
    table: Table = ""
    values: tuple[float, ...] = ()
    scale: Scale = "number"
    zero: Zero = "none"
    group: int = 0
    rows: int = 1
    middle: int = 0
    supers: int = -1

    @abstractmethod
    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Planes of canonical fields [O, ..]."""

    @abstractmethod
    def fields(self, planes: Planes, inputs: int) -> dict[str, Tensor]:
        """Canonical fields of planes."""

    def pack(self, codes: Tensor) -> dict[str, Tensor]:
        """The code planes of codes uint8 [O, I]."""
        return self.packing.pack(codes)

    def unpack(self, planes: Planes, inputs: int) -> Tensor:
        """The codes of the code planes."""
        return self.packing.unpack(planes["codes"], planes.get("high"), inputs)


@frozen(kw_only=True)
class DenseForm(Form):
    """Numbers: a plane as it is."""

    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"codes": fields["weight"]}

    def fields(self, planes: Planes, inputs: int) -> dict[str, Tensor]:
        return {"weight": planes["codes"]}


@frozen(kw_only=True)
class AffineForm(Form):
    """Codes of some bits with scales, and perhaps zero points or offsets, per group."""

    bits: int

    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {"scale": "scale", "zero": "zero", "offset": "zero"}
        found = {names[name]: one for name, one in fields.items() if name != "weight"}
        weight = fields["weight"]
        return self.pack(unpack(weight, self.bits, weight.shape[-1] * 8 // self.bits)) | found

    def fields(self, planes: Planes, inputs: int) -> dict[str, Tensor]:
        third = "offset" if self.zero == "offset" else "zero"
        names = {"scale": "scale", "zero": third}
        found = {names[name]: one for name, one in planes.items() if name in names}
        return {"weight": pack(self.unpack(planes, inputs), self.bits)} | found


@frozen(kw_only=True)
class FourBitForm(Form):
    """4-bit codes with a value each, and a scale per block: the two codes of a byte are canonically neighbours."""

    scale_dtype: torch.dtype
    whole: bool = False
    """There is one more factor for the whole matrix; the plane has it once per output, so that outputs are alike."""

    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weight, scale = fields["weight"], fields["scale"]
        found = self.pack(unpack(weight, 4, weight.shape[-1] * 2)) | {"scale": _bits(scale)}
        if self.whole:
            found["factor"] = (
                fields["global_scale"].reshape(-1, 1).repeat_interleave(len(scale) // fields["global_scale"].numel(), 0)
            )
        return found

    def fields(self, planes: Planes, inputs: int) -> dict[str, Tensor]:
        found = {
            "weight": pack(self.unpack(planes, inputs), 4), "scale": planes["scale"].view(self.scale_dtype),
        }  # fmt: skip
        if self.whole:
            found["global_scale"] = planes["factor"][:, 0]  # as often as there are outputs
        return found


@frozen(kw_only=True)
class FloatForm(Form):
    """8-bit floats, as bytes: a card older than the type reads them too."""

    dtype: torch.dtype
    scale_dtype: torch.dtype
    axes: int
    """Axes of the canonical scale: none, [O], or a matrix of blocks. The plane always has two, and one scale for a
    tensor is there once per output."""

    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weight, scale = fields["weight"].view(torch.uint8), _bits(fields["scale"])
        padding = -weight.shape[-1] % LANES
        if self.axes < 2:
            scale = scale.reshape(-1, 1).repeat_interleave(len(weight) // scale.numel(), 0)
        return {"codes": torch.nn.functional.pad(weight, (0, padding)), "scale": scale}

    def fields(self, planes: Planes, inputs: int) -> dict[str, Tensor]:
        scale = planes["scale"].view(self.scale_dtype)
        if self.axes < 2:
            scale = scale[:, 0]  # one for a tensor is there as often as there are outputs
        return {"weight": planes["codes"][:, :inputs].contiguous().view(self.dtype), "scale": scale}


def _bits(scale: Tensor) -> Tensor:
    """Scales of 8 bits as bytes; wider ones as they are."""
    return scale.view(torch.uint8) if scale.dtype.itemsize == 1 else scale

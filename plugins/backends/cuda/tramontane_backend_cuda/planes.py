# SPDX-License-Identifier: Apache-2.0
"""How quantized matrices lie on the card: codes, scales and what else a scheme has, each a plane of its own.

A block of a GGUF file has 18 to 210 bytes; read as it is, no two loads of a warp would be aligned. As planes, the codes
of a row are one run of bytes that neighbouring threads load together, and the scales are small beside it. Codes of four
bits lie two a byte in the order of the inputs, lowest first; codes of six are such a plane and one of the high pairs.

Everything here moves bits only: :meth:`Form.fields` gives back the canonical fields bit for bit.

Legend: O outputs, I inputs, n blocks of all rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from tramontane.schemes import Affine, Float8, Ggml, Scheme
from tramontane.schemes.ggml.codec import bit_planes, join_nibbles, nibbles
from tramontane.schemes.packing import pack, unpack

Planes = Mapping[str, Tensor]
Codes = Literal["u4", "u6", "u8", "i8", "e4m3", "e5m2"]
Rule = Literal["scale", "zero", "offset", "super"]


@frozen(kw_only=True)
class Form(ABC):
    """What a kernel has to know of a layout, and the way there and back.

    Attributes:
        codes: How a code is read from the plane ``codes`` (and ``high`` for six bits).
        rule: ``scale``: ``(code - middle) * scale``; ``zero``: ``(code - zero) * scale``; ``offset``:
            ``code * scale + zero``; ``super``: ``(code - middle) * (scale * factor)``, and with ``low`` less
            ``zero * low_factor``.
        group: Inputs that share a value of the planes ``scale`` and ``zero``; 0 is all inputs.
        rows: Outputs that share one; 0 is all outputs.
        middle: The code that means zero.
        low: The rule ``super`` has minima.
    """

    codes: Codes
    rule: Rule = "scale"
    group: int = 0
    rows: int = 1
    middle: int = 0
    low: bool = False

    @property
    def pairs(self) -> bool:
        """A byte of the plane ``codes`` holds two of them."""
        return self.codes in ("u4", "u6")

    @abstractmethod
    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Planes of canonical fields [O, ..]."""

    @abstractmethod
    def fields(self, planes: Planes) -> dict[str, Tensor]:
        """Canonical fields of planes."""


@frozen(kw_only=True)
class _AffineForm(Form):
    """The fields of an affine matrix are planes already; they have other names here."""

    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {"weight": "codes", "scale": "scale", "zero": "zero", "offset": "zero"}
        return {names[name]: one for name, one in fields.items()}

    def fields(self, planes: Planes) -> dict[str, Tensor]:
        third = "offset" if self.rule == "offset" else "zero"
        names = {"codes": "weight", "scale": "scale", "zero": third}
        return {names[name]: one for name, one in planes.items()}


@frozen(kw_only=True)
class _FloatForm(Form):
    """8-bit floats, as bytes: a card older than the type reads them too."""

    dtype: torch.dtype
    axes: int
    """Axes of the canonical scale: none, [O], or a matrix of blocks. The plane always has two."""

    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scale = fields["scale"] if self.axes == 2 else fields["scale"].reshape(-1, 1)
        return {"codes": fields["weight"].view(torch.uint8), "scale": scale}

    def fields(self, planes: Planes) -> dict[str, Tensor]:
        scale = planes["scale"] if self.axes == 2 else planes["scale"].reshape([-1] * self.axes)
        return {"weight": planes["codes"].view(self.dtype), "scale": scale}


def _cut(weight: Tensor, nbytes: int, sizes: list[int]) -> list[Tensor]:
    """Bytes of blocks [O, ..] in their sections: [O, blocks, size] each."""
    return list(weight.unflatten(-1, (-1, nbytes)).split(sizes, dim=-1))


def _row(plane: Tensor) -> Tensor:
    """[O, blocks, size] -> [O, blocks * size]."""
    return plane.flatten(1).contiguous()


def _words(section: Tensor) -> Tensor:
    """float16 numbers from the bytes of a section [O, blocks, 2]: [O, blocks]."""
    return section.contiguous().view(torch.float16).flatten(1)


def _bytes(words: Tensor) -> Tensor:
    """The inverse of :func:`_words`."""
    return words.contiguous().view(torch.uint8).unflatten(-1, (-1, 2))


@frozen(kw_only=True)
class _Q80(Form):
    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scale, codes = _cut(fields["weight"], 34, [2, 32])
        return {"codes": _row(codes), "scale": _words(scale)}

    def fields(self, planes: Planes) -> dict[str, Tensor]:
        codes = planes["codes"].unflatten(-1, (-1, 32))
        return {"weight": torch.cat([_bytes(planes["scale"]), codes], -1).flatten(1)}


@frozen(kw_only=True)
class _Q40(Form):
    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scale, codes = _cut(fields["weight"], 18, [2, 16])
        return {"codes": pack(nibbles(codes).flatten(1), 4), "scale": _words(scale)}

    def fields(self, planes: Planes) -> dict[str, Tensor]:
        codes = join_nibbles(_codes(planes["codes"], 4).unflatten(-1, (-1, 32)))
        return {"weight": torch.cat([_bytes(planes["scale"]), codes], -1).flatten(1)}


@frozen(kw_only=True)
class _Q4K(Form):
    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        factor, low_factor, packed, codes = _cut(fields["weight"], 144, [2, 2, 12, 128])
        first, second, last = packed.chunk(3, -1)
        scale = torch.cat([first & 63, (last & 15) | (first >> 6 << 4)], -1)
        low = torch.cat([second & 63, (last >> 4) | (second >> 6 << 4)], -1)
        return {
            "codes": pack(nibbles(codes.unflatten(-1, (4, 32))).flatten(1), 4),
            "scale": _row(scale),
            "zero": _row(low),
            "factor": _words(factor),
            "low_factor": _words(low_factor),
        }

    def fields(self, planes: Planes) -> dict[str, Tensor]:
        scale, low = (planes[name].unflatten(-1, (-1, 2, 4)) for name in ("scale", "zero"))
        first, second = (one[..., 0, :] | (one[..., 1, :] >> 4 << 6) for one in (scale, low))
        last = (scale[..., 1, :] & 15) | ((low[..., 1, :] & 15) << 4)
        codes = join_nibbles(_codes(planes["codes"], 4).unflatten(-1, (-1, 4, 64))).flatten(-2)
        sections = [_bytes(planes["factor"]), _bytes(planes["low_factor"]), first, second, last, codes]
        return {"weight": torch.cat(sections, -1).flatten(1)}


@frozen(kw_only=True)
class _Q6K(Form):
    def planes(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        four, two, scale, factor = _cut(fields["weight"], 210, [128, 64, 16, 2])
        return {
            "codes": pack(nibbles(four.unflatten(-1, (2, 64))).flatten(1), 4),
            "high": pack(bit_planes(two.unflatten(-1, (2, 32)), 2).flatten(1), 2),
            "scale": _row(scale).view(torch.int8),
            "factor": _words(factor),
        }

    def fields(self, planes: Planes) -> dict[str, Tensor]:
        four = join_nibbles(_codes(planes["codes"], 4).unflatten(-1, (-1, 2, 128))).flatten(-2)
        high = _codes(planes["high"], 2).unflatten(-1, (-1, 2, 4, 32))
        two = high[..., 0, :] | (high[..., 1, :] << 2) | (high[..., 2, :] << 4) | (high[..., 3, :] << 6)
        scale = planes["scale"].view(torch.uint8).unflatten(-1, (-1, 16))
        return {"weight": torch.cat([four, two.flatten(-2), scale, _bytes(planes["factor"])], -1).flatten(1)}


def _codes(packed: Tensor, bits: int) -> Tensor:
    """All codes of rows that fill their bytes."""
    return unpack(packed, bits, packed.shape[-1] * 8 // bits)


GGML: Mapping[str, Form] = {
    "q4_0": _Q40(codes="u4", group=32, middle=8),
    "q8_0": _Q80(codes="i8", group=32),
    "q4_k": _Q4K(codes="u4", rule="super", group=32, low=True),
    "q6_k": _Q6K(codes="u6", rule="super", group=16, middle=32),
}
"""GGML types that have planes, by name."""


def form_of(scheme: Scheme) -> Form | None:
    """The layout for a scheme; ``None`` where there is none, so that every use decodes the matrix."""
    if scheme.act.kind != "none":
        return None
    if isinstance(scheme, Ggml):
        return GGML.get(scheme.name)
    if isinstance(scheme, Affine):
        if scheme.bits not in (4, 8) or scheme.group_axis != "in" or scheme.act_order or scheme.groups is not None:
            return None
        if scheme.bits == 4 and scheme.group % 2:
            return None  # the two codes of a byte have one scale
        rules: dict[str, Rule] = {"none": "scale", "int": "zero", "float": "zero", "offset": "offset"}
        middle = 2 ** (scheme.bits - 1) if scheme.zero == "none" else 0
        codes: Codes = "u4" if scheme.bits == 4 else "u8"
        return _AffineForm(codes=codes, rule=rules[scheme.zero], group=scheme.group, middle=middle)
    if isinstance(scheme, Float8) and scheme.scale_dtype.itemsize >= 2:
        axes = ("tensor", "channel", "block").index(scheme.granularity)
        rows, group = scheme.block or (1 if scheme.granularity == "channel" else 0, 0)
        return _FloatForm(codes=scheme.fmt, group=group, rows=rows, dtype=scheme.dtype, axes=axes)
    return None

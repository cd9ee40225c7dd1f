# SPDX-License-Identifier: Apache-2.0
"""Which quantized schemes the native block layout holds, and what lies beside their codes.

One row per family of schemes; nothing here allocates weights or calls the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.schemes import Affine, Codebook, Float8, Ggml, Micro, Scheme
from tramontane.schemes.codebook import TABLES
from tramontane.schemes.micro import E2M1
from tramontane_backend_cpu.abi import Coding
from tramontane_backend_cpu.layouts.grids import grid_of

BLOCK = 32
"""Inputs that a scale of the activations stands for; scales of weights stand for whole multiples."""
Shape = tuple[int, int]
_SCALES = (torch.float32, torch.bfloat16, torch.float16)


@frozen
class Coded:
    """How one weight is given to the native side.

    Attributes:
        coding: Of the rows.
        span: Inputs that share scales.
        scale_dtype: Of scales, and of what lies beside them.
        names: Fields beside the codes, each [O, groups]; none where the rows hold all.
        table: 16 values of four-bit codes, and the factor that brings them to whole numbers.
        spread: Where a scale stands for several rows: makes one for each. Such fields are kept as they were.
        bits: Width of a code in its field, where the coding holds wider ones.
        middle: The code of zero, where that is not the coding's and no field says so.
        grid: The table that codes are rows of (:func:`~tramontane_backend_cpu.layouts.grids.grid_of`).
        aliased: Some bytes mean what others do, so that packing may not give back those that came.
    """

    coding: Coding
    span: int
    scale_dtype: torch.dtype = torch.float16
    names: Sequence[str] = ()
    table: Sequence[float] | None = None
    spread: Callable[[Tensor, Shape], Tensor] | None = field(default=None, eq=False)
    bits: int = 0
    middle: float | None = None
    grid: tuple[Tensor, Tensor] | None = field(default=None, eq=False)
    aliased: bool = False

    def beside(self, fields: Mapping[str, Tensor], shape: Shape) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What the native side reads beside the codes, and the fields that are to be kept."""
        kept = {name: value for name, value in fields.items() if name not in ("weight", *self.names)}
        if self.grid is not None:
            return list(self.grid), kept
        if self.spread is None:
            beside = [fields[name].to(self.scale_dtype).contiguous() for name in self.names]
            return [*beside, *(torch.full_like(beside[0], one) for one in self._middles)], kept
        scale = fields["scale"]
        return [self.spread(scale.to(self.scale_dtype), shape).contiguous()], kept | {"scale": scale}

    def room(self, shape: Shape) -> list[Tensor]:
        """Memory for what lies beside the codes, and the table."""
        if self.grid is not None:
            return list(self.grid)
        groups = -(-shape[1] // self.span)
        count = len(self.names) + len(self._middles) if self.spread is None else 1
        return [torch.empty(shape[0], groups, dtype=self.scale_dtype) for _ in range(count)]

    def fields(self, beside: Sequence[Tensor]) -> dict[str, Tensor]:
        """The fields that lay beside the codes."""
        return {} if self.spread is not None else dict(zip(self.names, beside[: len(self.names)], strict=True))

    @property
    def _middles(self) -> tuple[float, ...]:
        return () if self.middle is None else (self.middle,)


def coded(scheme: Scheme, inputs: int) -> Coded | None:
    """How a scheme is stored natively, or ``None``."""
    for family, find in _FAMILIES.items():
        if isinstance(scheme, family):
            found: Coded | None = find(scheme, inputs)
            return found
    return None


_GGML = {
    "q4_0": (Coding.Q4_0, 32, 18), "q4_1": (Coding.Q4_1, 32, 20), "q5_0": (Coding.Q5_0, 32, 22),
    "q5_1": (Coding.Q5_1, 32, 24), "q8_0": (Coding.Q8_0, 32, 34), "q2_k": (Coding.Q2_K, 256, 84),
    "q3_k": (Coding.Q3_K, 256, 110), "q4_k": (Coding.Q4_K, 256, 144), "q5_k": (Coding.Q5_K, 256, 176),
    "q6_k": (Coding.Q6_K, 256, 210), "iq1_s": (Coding.IQ1_S, 256, 50), "iq1_m": (Coding.IQ1_M, 256, 56),
    "iq2_xxs": (Coding.IQ2_XXS, 256, 66), "iq2_xs": (Coding.IQ2_XS, 256, 74), "iq2_s": (Coding.IQ2_S, 256, 82),
    "iq3_xxs": (Coding.IQ3_XXS, 256, 98), "iq3_s": (Coding.IQ3_S, 256, 110), "iq4_nl": (Coding.IQ4_NL, 32, 18),
    "iq4_xs": (Coding.IQ4_XS, 256, 136), "tq1_0": (Coding.TQ1_0, 256, 54), "tq2_0": (Coding.TQ2_0, 256, 66),
    "mxfp4": (Coding.MXFP4, 32, 17), "nvfp4": (Coding.NVFP4, 64, 36),
}  # fmt: skip
"""By the names of their codecs: coding, inputs and bytes of a block."""


def _ggml(scheme: Ggml, inputs: int) -> Coded | None:
    """A type of a plugin that only shares the name is not taken for it."""
    name, size = scheme.type.name, (scheme.type.block, scheme.type.nbytes)
    coding, *known = _GGML.get(name, (None, 0, 0))
    if coding is None or tuple(known) != size:
        return None
    scales = torch.bfloat16 if name == "mxfp4" else torch.float16
    return Coded(coding, size[0], scales, grid=grid_of(scheme.type), aliased=name == "tq1_0")


_AFFINE = {
    ("none", 4): Coding.AFFINE4, ("none", 8): Coding.AFFINE8, ("int", 4): Coding.AFFINE4_ZERO,
    ("int", 8): Coding.AFFINE8_ZERO, ("float", 4): Coding.AFFINE4_ZERO, ("float", 8): Coding.AFFINE8_ZERO,
    ("offset", 4): Coding.AFFINE4_OFFSET, ("offset", 8): Coding.AFFINE8_OFFSET,
}  # fmt: skip


def _affine(scheme: Affine, inputs: int) -> Coded | None:
    """Codes of other widths become those of four or eight bits, which products read fastest."""
    width = 4 if scheme.bits <= 4 else 8
    narrow = scheme.bits != width
    middle = 2.0 ** (scheme.bits - 1) if narrow and scheme.zero == "none" else None
    coding = _AFFINE["int" if middle is not None else scheme.zero, width]
    span = _span(scheme.group, inputs)
    if span is None or scheme.scale_dtype not in _SCALES:
        return None
    if scheme.group_axis != "in" or scheme.act_order or scheme.groups is not None:
        return None
    second = {"none": (), "offset": ("offset",)}.get(scheme.zero, ("zero",))
    bits = scheme.bits if narrow else 0
    return Coded(coding, span, scheme.scale_dtype, ("scale", *second), bits=bits, middle=middle)


def _codebook(scheme: Codebook, inputs: int) -> Coded | None:
    span = _span(scheme.block, inputs)
    if span is None or scheme.scale_dtype not in _SCALES:
        return None
    return Coded(Coding.TABLE4, span, scheme.scale_dtype, ("scale",), (*TABLES[scheme.table], 127.0))


def _micro(scheme: Micro, inputs: int) -> Coded | None:
    span = _span(scheme.size, inputs)
    if scheme.fmt != "mxfp4" or scheme.global_scale or span is None:
        return None
    # Powers of two are bfloat16 numbers, twice e2m1 values whole ones.
    table = (*E2M1, *(-value for value in E2M1), 2.0)
    return Coded(Coding.TABLE4, span, torch.bfloat16, ("scale",), table)


def _float8(scheme: Float8, inputs: int) -> Coded | None:
    span = _span(scheme.block[1] if scheme.block else 0, inputs)
    if span is None:
        return None
    coding = Coding.E4M3 if scheme.fmt == "e4m3" else Coding.E5M2
    rows = scheme.block[0] if scheme.block else 1

    def spread(scale: Tensor, shape: Shape) -> Tensor:
        if scheme.block:
            return scale.repeat_interleave(rows, 0)[: shape[0]]
        return scale.reshape(-1, 1).expand(shape[0], 1)

    return Coded(coding, span, torch.float32, (), None, spread)


def _span(group: int, inputs: int) -> int | None:
    """Inputs that share scales, a multiple of the block; a group of 0 is a row."""
    span = group or -(-inputs // BLOCK) * BLOCK
    return None if span % BLOCK else span


_FAMILIES: Mapping[type[Scheme], Callable[..., Coded | None]] = {
    Ggml: _ggml, Affine: _affine, Codebook: _codebook, Micro: _micro, Float8: _float8,
}  # fmt: skip

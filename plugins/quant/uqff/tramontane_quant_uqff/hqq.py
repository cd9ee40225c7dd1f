# SPDX-License-Identifier: Apache-2.0
"""HQQ layers: the elements of a matrix, row after row, are cut into ``group`` equal parts; elements at one place of all
parts are a group. Codes of less than a byte are folded along the parts, the first in the highest bits.

Source: mistral.rs, ``mistralrs-quant/src/hqq``, whose axis 0 is that of Badri and Shaji's hqq package.

Legend: O outputs, I inputs, N = O * I / group (groups), P parts that a stored number holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import Canonical, FormatPart
from tramontane.errors import CheckpointError
from tramontane.schemes import Affine, Dense, Fields
from tramontane.schemes.packing import pack
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_uqff.layer import Layer, Shape
from tramontane_quant_uqff.names import FORMAT

SLOTS: Mapping[int, int] = MappingProxyType({8: 1, 4: 2, 3: 10, 2: 4, 1: 8})
"""Bits -> codes in a stored number: an int32 for 3 bits, a byte otherwise."""
_KNOWN = ("bits", "group_size", "axis", "optimization_steps", "round_zeros", "channel_wise", "shape")


def hqq_part(layer: Layer) -> FormatPart:
    """How such a layer becomes a part.

    Raises:
        CheckpointError: Its fields are missing, damaged, or say what mistral.rs itself does not compute.
    """
    layer.single("HQQ")
    folded = Folded.of(layer)
    outputs, _ = layer.stored_shape()
    return folded.affine(layer.shape[-1]) if outputs % folded.group == 0 else folded.numbers()


@frozen
class Folded:
    """What a layer says about its codes."""

    bits: int
    group: int
    """Elements per group, which is the number of parts."""
    dtype: torch.dtype
    """Of scales and zero points."""

    @classmethod
    def of(cls, layer: Layer) -> Folded:
        """The description of a layer."""
        bits, group = layer.number("weight.bits", torch.uint8), layer.number("weight.group_size", torch.uint32)
        if bits not in SLOTS or not group:
            raise CheckpointError(f"{layer.name} has HQQ codes of {bits} bits in groups of {group}")
        if layer.number("weight.axis", torch.uint8) or not layer.number("weight.channel_wise", torch.uint8):
            raise CheckpointError(f"{layer.name} has HQQ groups along the inputs, or one for all; axis 0 is supported")
        layer.want(torch.int32 if bits == 3 else torch.uint8)
        floats = (torch.float32, torch.float16, torch.bfloat16)
        scales, zeros = (layer.want(*floats, field=f"weight.{one}") for one in ("scales", "zeros"))
        if scales.dtype is not zeros.dtype:
            raise CheckpointError(f"{scales.name} is {scales.dtype}, but {zeros.name} {zeros.dtype}")
        return cls(bits, group, scales.dtype)

    def affine(self, inputs: int) -> FormatPart:
        """Where the parts are whole rows: groups that run down the outputs."""
        rows = TensorDecl("weight", {"out": Axis(0), "in": Axis(1)}, view=(-1, inputs))
        codes = rows if self.bits == 8 else TensorDecl("weight", sliceable=False)
        decls = [codes, *(TensorDecl(name, {"in": Axis(1)}, view=(-1, inputs)) for name in _SCALES)]
        scheme = Affine(bits=self.bits, group=self.group, group_axis="out", zero="float", scale_dtype=self.dtype)

        def matrix(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
            found = tensors["weight"] if self.bits == 8 else self.unfold(tensors["weight"], shape)
            scale, zero = (tensors[name] for name in _SCALES)
            return {"weight": pack(found.reshape(shape), self.bits), "scale": scale, "zero": zero}

        return FormatPart(scheme, {one.name: one for one in decls}, _each(matrix), known=_known())

    def numbers(self) -> FormatPart:
        """Where parts end inside rows no scale belongs to a row, so that the values are computed."""
        decls = {name: TensorDecl(name, sliceable=False) for name in ("weight", *_SCALES)}

        def matrix(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
            codes = self.unfold(tensors["weight"], shape).view(self.group, -1)
            scale, zero = (tensors[name].float().reshape(1, -1) for name in _SCALES)
            return {"weight": ((codes - zero) * scale).view(shape)}

        return FormatPart(Dense(torch.float32), decls, _each(matrix), known=_known())

    def unfold(self, stored: Tensor, shape: Shape) -> Tensor:
        """Codes, uint8 [O * I], of stored numbers [ceil(group / P), N]."""
        slots, width = SLOTS[self.bits], self.bits
        parts = [(stored >> (width * (slots - 1 - slot))) & (2**width - 1) for slot in range(slots)]
        codes = torch.cat([part.reshape(-1) for part in parts]).to(torch.uint8)
        return codes[: shape[0] * shape[1]]  # parts of 3 bits are padded to whole numbers


def fold(codes: Tensor, bits: int, group: int) -> Tensor:
    """The inverse of :meth:`Folded.unfold` for codes [O, I] of 4 or 8 bits: uint8 [group / P, N]."""
    rows = codes.reshape(group, -1)
    if bits == 8:
        return rows
    first, second = rows.chunk(2)
    return (first << 4) | second


_SCALES = ("weight.scales", "weight.zeros")


def _known() -> tuple[str, ...]:
    return (FORMAT, *(f"weight.{one}" for one in _KNOWN))


def _each(matrix: Canonical) -> Canonical:
    """The same for experts that are stored one by one and were stacked when they were read."""

    def canonical(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        if len(shape) == 2:
            return matrix(tensors, shape)
        each = [matrix({name: one[i] for name, one in tensors.items()}, shape[1:]) for i in range(shape[0])]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]} if each else {}

    return canonical

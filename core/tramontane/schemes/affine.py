# SPDX-License-Identifier: Apache-2.0
"""Integer codes with a scale, and perhaps a zero point, per group: what GPTQ, AWQ, HQQ, AFQ/MLX and int8 become.

Codes are packed along the inputs (:mod:`tramontane.schemes.packing`). Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from attrs import evolve, field, frozen
from attrs.validators import in_
from torch import Tensor

from tramontane.errors import CheckpointError, PlanError
from tramontane.schemes.base import Field, Fields, Scheme, Shape, make_field, require_float
from tramontane.schemes.packing import bytes_per_block, codes_per_block, pack, packed_size, unpack
from tramontane.tensors import Axis, AxisRanges, take

_ZEROS = ("none", "int", "float", "offset")


@frozen
class Affine(Scheme):
    """Codes of ``bits`` bits, one scale per group.

    Fields: ``weight`` uint8 [O, packed I]; ``scale`` [O, G]; ``zero`` or ``offset`` like ``scale``; ``group_index``.

    Attributes:
        bits: 1 to 8.
        group: Elements per group; 0 is one group per row (or per column, if groups run along the outputs).
        group_axis: ``in``: element i of a row belongs to group ``i // group``. ``out``: groups run down the outputs as
            HQQ's axis 0 defines them: there are G scale rows and row r belongs to ``r % G``; scales are [G, I].
        zero: ``none``: ``w = (q - 2**(bits-1)) * scale``; ``int``: ``(q - zero) * scale`` with uint8 zero points;
            ``float``: the same with zero points of the scale's dtype; ``offset``: ``q * scale + offset``.
        act_order: The group of each input is stored (``group_index`` int32 [I]), as GPTQ's activation order needs.
        scale_dtype: Element type of scales, float zero points and offsets.
        groups: How many groups there are, where it does not follow from the shape: a slice keeps the scales of the
            whole where they cannot be cut (``act_order`` along the inputs, groups along the outputs).
    """

    bits: int = field(default=4, validator=in_(range(1, 9)))
    group: int = 128
    group_axis: Literal["in", "out"] = field(default="in", validator=in_(("in", "out")))
    zero: Literal["none", "int", "float", "offset"] = field(default="none", validator=in_(_ZEROS))
    act_order: bool = False
    scale_dtype: torch.dtype = torch.float16
    groups: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.group < 0 or (self.act_order and self.group_axis == "out"):
            raise PlanError(f"not a possible scheme: {self!r}")
        require_float(self.scale_dtype, "scales")

    @property
    def name(self) -> str:
        """Such as ``affine4-g128``; groups along the outputs are marked ``-out``, activation order ``-ao``."""
        along = "-out" if self.group_axis == "out" else ""
        return f"affine{self.bits}-g{self.group or 'row'}{along}{'-ao' if self.act_order else ''}"

    def count_groups(self, out_features: int, in_features: int) -> int:
        """G of a matrix.

        Raises:
            PlanError: Groups along the outputs do not divide them.
        """
        size = out_features if self.group_axis == "out" else in_features
        groups = self.groups or (-(-size // self.group) if self.group else 1)
        whole = groups and not size % groups and (self.groups is not None or not self.group or not size % self.group)
        if self.group_axis == "out" and not whole:
            raise PlanError(f"{size} outputs are not whole groups ({groups} scale rows, groups of {self.group})")
        return groups

    def matrix_fields(self, out_features: int, in_features: int) -> dict[str, Field]:
        """See :meth:`Scheme.matrix_fields`."""
        groups = self.count_groups(out_features, in_features)
        along_in = self.group_axis == "in"
        rows = Axis(0) if along_in else Axis(0, block=groups, width=groups)
        codes = Axis(1, block=codes_per_block(self.bits), width=bytes_per_block(self.bits))
        found = {
            "weight": make_field(
                "weight", torch.uint8, (out_features, packed_size(in_features, self.bits)), out=rows, into=codes
            )
        }
        shape: Shape = (out_features, groups) if along_in else (groups, in_features)
        axes = {"into": Axis(1)} if not along_in else {"out": Axis(0)}
        if along_in and self.group and not self.act_order:
            axes["into"] = Axis(1, block=self.group)
        found["scale"] = make_field("scale", self.scale_dtype, shape, **axes)
        if self.zero == "offset":
            found["offset"] = make_field("offset", self.scale_dtype, shape, **axes)
        elif self.zero != "none":
            found["zero"] = make_field("zero", torch.uint8 if self.zero == "int" else self.scale_dtype, shape, **axes)
        if self.act_order:
            found["group_index"] = make_field("group_index", torch.int32, (in_features,), into=Axis(0))
        return found

    def sliced(self, shape: Shape, ranges: AxisRanges) -> tuple[Self, Shape]:
        """See :meth:`Scheme.sliced`; scales that are kept whole fix the number of groups."""
        fixed = ("in" in ranges and self.act_order) or ("out" in ranges and self.group_axis == "out")
        scheme = evolve(self, groups=self.count_groups(*shape[-2:])) if fixed else self
        return Scheme.sliced(scheme, shape, ranges)

    def check(self, fields: Fields, shape: Shape, *, what: str) -> None:
        """See :meth:`Scheme.check`; no kernel has to fear a group that is not there."""
        super().check(fields, shape, what=what)
        index = fields.get("group_index")
        if index is None or not index.numel():
            return
        groups, (low, high) = self.count_groups(*shape[-2:]), index.aminmax()
        if int(low) < 0 or int(high) >= groups:
            raise CheckpointError(f"{what} has inputs in the groups {int(low)} to {int(high)}, but {groups} groups")

    def dequantize(self, fields: Fields, shape: Shape) -> Tensor:
        """See :meth:`Scheme.dequantize`."""
        codes = unpack(fields["weight"], self.bits, shape[-1]).to(torch.float32)
        scale = self._spread(fields["scale"], fields, shape)
        if self.zero == "none":
            return codes.sub(2 ** (self.bits - 1)).mul(scale)
        if self.zero == "offset":
            return codes * scale + self._spread(fields["offset"], fields, shape)
        return codes.sub(self._spread(fields["zero"], fields, shape)).mul(scale)

    def gather(self, fields: Fields, shape: Shape, rows: Tensor) -> Tensor:
        """See :meth:`Scheme.gather`; with groups along the outputs each row brings the scales of its group."""
        if self.group_axis == "in":
            return super().gather(fields, shape, rows)
        if not rows.numel():
            return torch.empty((0, shape[-1]), device=rows.device)
        groups = rows % self.count_groups(*shape)
        taken = {name: take(one, 0, rows if name == "weight" else groups) for name, one in fields.items()}
        return evolve(self, groups=rows.numel()).dequantize(taken, (rows.numel(), shape[-1]))

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """See :meth:`Scheme.quantize`: the range of each group is mapped to the codes, values are rounded."""
        shape, top = tuple(weight.shape), 2**self.bits - 1
        groups = self.count_groups(*shape[-2:])
        values = weight.to(torch.float32)
        low, high = self._extremes(values, groups)
        low = low + 0.0  # of zeros the positive one
        found: dict[str, Tensor] = {}
        if self.act_order:
            order = (torch.arange(shape[-1], device=weight.device) // (self.group or shape[-1])).to(torch.int32)
            found["group_index"] = order.expand(*shape[:-2], -1).contiguous()
        if self.zero == "none":
            half = 2 ** (self.bits - 1)
            scale = torch.maximum(high.abs(), low.abs()) / max(half - 1, 1)
        else:
            if self.zero == "int":  # zero must be a code
                low, high = low.clamp(max=0), high.clamp(min=0)
            scale = (high - low) / top
        scale = scale.to(self.scale_dtype)  # where it may become zero
        found["scale"] = scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        scale_f = scale.to(torch.float32)
        if self.zero == "int":
            found["zero"] = (-low / scale_f).round().clamp(0, top).to(torch.uint8)
        elif self.zero == "float":
            found["zero"] = (-low / scale_f).to(self.scale_dtype)
        elif self.zero == "offset":
            found["offset"] = low.to(self.scale_dtype)
        codes = self._codes(values, found, shape)
        return {"weight": pack(codes.round().clamp(0, top), self.bits), **found}

    def _codes(self, values: Tensor, found: Fields, shape: Shape) -> Tensor:
        """Codes before rounding."""
        scale = self._spread(found["scale"], found, shape)
        if self.zero == "none":
            return (values / scale).add(2 ** (self.bits - 1))
        if self.zero == "offset":
            return (values - self._spread(found["offset"], found, shape)) / scale
        return values / scale + self._spread(found["zero"], found, shape)

    def _extremes(self, values: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each group, in the shape of ``scale``."""
        *lead, rows, columns = values.shape
        if self.group_axis == "out":
            grouped = values.view(*lead, rows // groups, groups, columns)
            return grouped.amin(-3), grouped.amax(-3)
        size = self.group or columns
        padding = groups * size - columns
        if padding:  # the ragged tail is padded with its own last value, which changes neither extreme
            values = torch.cat([values, values[..., -1:].expand(*lead, rows, padding)], -1)
        grouped = values.view(*lead, rows, groups, size)
        return grouped.amin(-1), grouped.amax(-1)

    def _spread(self, per_group: Tensor, fields: Fields, shape: Shape) -> Tensor:
        """A value per group as a float32 value per element, broadcastable to the weight."""
        values = per_group.to(torch.float32)
        *_, rows, columns = shape
        if self.group_axis == "out":
            return values.repeat(*(1 for _ in shape[:-2]), rows // values.shape[-2], 1)
        if self.act_order:
            index = fields["group_index"].long()
            if index.dim() == 1:
                return take(values, values.dim() - 1, index)
            return values.gather(-1, index.unsqueeze(-2).expand(*shape[:-2], rows, columns))
        if values.shape[-1] == 1:
            return values
        return values.repeat_interleave(self.group, -1)[..., :columns]

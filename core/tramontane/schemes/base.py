# SPDX-License-Identifier: Apache-2.0
"""What a weight scheme is: how a matrix is stored once it is loaded, whatever format it came from.

A scheme is data plus three pure functions: which canonical fields a matrix of a shape has, how they unpack to float32,
and how slices of the logical axes are cut. Formats translate into schemes while loading, backends implement schemes.
Unpacking here is the reference: clear and exact, not fast.

Legend: X experts, O outputs, I inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Literal, Self

import torch
from attrs import evolve, field, frozen
from attrs.validators import in_
from torch import Tensor

from tramontane.checkpoint.refs import MemoryTensor
from tramontane.errors import CheckpointError, PlanError
from tramontane.tensors import AXES, Axis, AxisRanges, Ranges, TensorDecl, length, read, take

Shape = tuple[int, ...]
"""Logical shape of a weight: ``(O, I)``, or ``(X, O, I)`` for stacked experts."""
Fields = Mapping[str, Tensor]
"""Canonical fields of one weight."""


@frozen
class Act:
    """What is done to the activations before the product.

    Attributes:
        kind: ``none``, or quantized to ``int8`` or ``fp8`` (e4m3).
        scale: ``static`` scales are stored (the field ``act_scale``), ``dynamic`` ones computed from the values.
        per: One scale per ``tensor``, per ``token``, or per ``group`` of inputs of a token.
        group: Inputs per group.
    """

    kind: Literal["none", "int8", "fp8"] = field(default="none", validator=in_(("none", "int8", "fp8")))
    scale: Literal["dynamic", "static"] = field(default="dynamic", validator=in_(("dynamic", "static")))
    per: Literal["tensor", "token", "group"] = field(default="token", validator=in_(("tensor", "token", "group")))
    group: int = 0

    def __attrs_post_init__(self) -> None:
        if self.scale == "static" and self.per != "tensor":
            raise PlanError(f"a static activation scale is one per tensor, not per {self.per}")
        if (self.per == "group") != (self.group > 0):
            raise PlanError(f"activation scales per {self.per} do not go with groups of {self.group} inputs")


NO_ACT = Act()


@frozen
class Field:
    """One canonical tensor of a scheme: element type, stored shape, and where the logical axes lie in it."""

    dtype: torch.dtype
    shape: Shape
    decl: TensorDecl

    @property
    def nbytes(self) -> int:
        """Bytes it occupies."""
        return prod(self.shape) * self.dtype.itemsize


def make_field(name: str, dtype: torch.dtype, shape: Shape, **axes: Axis) -> Field:
    """A field whose axes are given by keyword; ``into`` stands for the axis ``in``, a keyword of Python."""
    renamed = {"in" if axis == "into" else axis: value for axis, value in axes.items()}
    return Field(dtype, shape, TensorDecl(name, renamed))


@frozen(kw_only=True)
class Scheme(ABC):
    """How one weight is stored. Frozen, comparable and hashable: equal schemes are stored and computed alike."""

    act: Act = NO_ACT

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for people: ``bf16``, ``q4_k``, ``affine4-g128``."""

    @abstractmethod
    def matrix_fields(self, out_features: int, in_features: int) -> dict[str, Field]:
        """Canonical fields of one matrix [O, I].

        Raises:
            PlanError: A matrix of that shape cannot be stored so; the message carries the numbers.
        """

    @abstractmethod
    def dequantize(self, fields: Fields, shape: Shape) -> Tensor:
        """The weight as float32, of the logical shape."""

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """Canonical fields of a floating-point weight [.., O, I], by the plain round-to-nearest rule.

        Raises:
            PlanError: There is no plain rule for this scheme.
        """
        raise PlanError(
            f"a weight of shape {list(weight.shape)} cannot be quantized to {self.name} by this scheme",
            hint="choose another type, or install the plugin that quantizes to it",
        )

    def fields(self, shape: Shape) -> dict[str, Field]:
        """Canonical fields of a weight, by name; for stacked experts every field has a leading axis.

        Raises:
            PlanError: A weight of that shape cannot be stored so.
        """
        out_features, in_features = shape[-2:]
        found = self.matrix_fields(out_features, in_features)
        if self.act.scale == "static" and self.act.kind != "none":
            found["act_scale"] = make_field("act_scale", torch.float32, ())
        if len(shape) == 2:
            return found
        (experts,) = shape[:-2]
        return {
            name: Field(one.dtype, (experts, *one.shape), one.decl.with_leading("expert", experts))
            for name, one in found.items()
        }

    def nbytes(self, shape: Shape) -> int:
        """Bytes of all fields of a weight."""
        return sum(one.nbytes for one in self.fields(shape).values())

    def bits_per_weight(self, shape: Shape) -> float:
        """Stored bits per element of a weight, scales included."""
        return 8 * self.nbytes(shape) / prod(shape)

    def check(self, fields: Fields, shape: Shape, *, what: str) -> None:
        """Refuse fields that are not what :meth:`fields` says.

        Raises:
            CheckpointError: Fields are missing, unexpected, or of wrong dtype or shape; all are named.
        """
        wanted = self.fields(shape)
        faults = [f"{name} is missing" for name in wanted if name not in fields]
        faults += [f"{name} is unexpected" for name in fields if name not in wanted]
        for name, one in wanted.items():
            have = fields.get(name)
            if have is not None and (have.dtype != one.dtype or tuple(have.shape) != one.shape):
                faults.append(f"{name} is {have.dtype} {list(have.shape)} instead of {one.dtype} {list(one.shape)}")
        if faults:
            raise CheckpointError(f"{what} does not fit {self.name}: {'; '.join(faults)}")

    def sliced(self, shape: Shape, ranges: AxisRanges) -> tuple[Self, Shape]:
        """Scheme and shape of a slice, without touching data: what a plan asks.

        Raises:
            PlanError: A cut falls inside a block; the message carries the numbers.
        """
        for name, one in self.fields(shape).items():
            one.decl.slices(one.shape, ranges, what=f"{self.name} {list(shape)}, field {name!r}")
        smaller = sliced_shape(shape, ranges)
        self.fields(smaller)  # some schemes have no ragged last block
        return self, smaller

    def slice(self, fields: Fields, shape: Shape, axis: str, ranges: Ranges) -> dict[str, Tensor]:
        """The fields of a slice along one logical axis (views where a single range allows).

        Raises:
            PlanError: As :meth:`sliced`.
        """
        self.sliced(shape, {axis: ranges})
        return {
            name: read(MemoryTensor.of(name, fields[name]), one.decl, {axis: ranges})
            for name, one in self.fields(shape).items()
        }

    def gather(self, fields: Fields, shape: Shape, rows: Tensor) -> Tensor:
        """Chosen rows of a matrix [O, I] as float32 [n, I], for embeddings that share a quantized head.

        Args:
            rows: int64 row numbers [n].

        Raises:
            PlanError: The scheme stores several rows together.
        """
        gathered = {}
        for name, one in self.fields(shape).items():
            axis = one.decl.axes.get("out")
            if axis is None:
                gathered[name] = fields[name]
            elif (axis.block, axis.width) == (1, 1):
                gathered[name] = take(fields[name], axis.dim, rows)
            else:
                raise PlanError(f"rows of {self.name} cannot be gathered one by one")
        return self.dequantize(gathered, (rows.numel(), shape[-1]))

    def plain(self) -> Self:
        """The same scheme without a rule for activations."""
        return evolve(self, act=NO_ACT)


def sliced_shape(shape: Shape, ranges: AxisRanges) -> Shape:
    """Logical shape of a slice."""
    names = AXES[-len(shape) :]
    return tuple(length(ranges[name]) if name in ranges else size for name, size in zip(names, shape, strict=True))


def require_float(dtype: torch.dtype, what: str, *, least: int = 2) -> None:
    """Refuse an element type that is no floating-point type of at least so many bytes.

    Raises:
        PlanError: Names the type.
    """
    if not dtype.is_floating_point or dtype.itemsize < least:
        raise PlanError(f"{what} are floating point of {8 * least} bits or more, not {dtype}")

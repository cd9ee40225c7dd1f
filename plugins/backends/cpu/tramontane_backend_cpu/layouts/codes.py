# SPDX-License-Identifier: Apache-2.0
"""Quantized weights in their canonical fields, decoded where they are used (``native/kernels/layouts/codes.cpp``).

For what blocks cannot hold: groups of any size along either axis, activation order, scales under a scale. Slower than
blocks, exact, and no larger than the checkpoint but for scales, which are widened to float32.

Legend: O outputs, I inputs, G groups.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.schemes import Affine, Codebook, Float8, Micro, Scheme
from tramontane.schemes.codebook import TABLES
from tramontane.schemes.micro import E2M1
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.layouts.stored import Room, matrix_rows
from tramontane_backend_cpu.precision import exact_activations

_E2M1 = (*E2M1, *(-value for value in E2M1))


@frozen
class _Scaling:
    """How numbers become weights, from one weight's fields."""

    scales: Tensor
    """[scale rows, G]."""
    group: int
    """Inputs that share a scale."""
    zeros: Tensor | None = None
    group_of: Tensor | None = None
    rows_each: int = 1
    """Outputs that share a row of scales."""


@define(eq=False)
class CodePart:
    """Implements :class:`~tramontane_backend_cpu.layouts.stored.StoredPart` for quantized schemes."""

    scheme: Scheme
    matrix: abi.Matrix
    codes: abi.Codes
    _table: Tensor | None = field(default=None, repr=False)
    _fields: dict[str, Tensor] = field(factory=dict, init=False, repr=False)
    _keep: Sequence[Tensor] = field(default=(), init=False, repr=False)
    """What ``codes`` points into."""
    layout: str = "codes"

    @classmethod
    def choose(cls, scheme: Scheme, outputs: int, inputs: int, dtype: torch.dtype, room: Room) -> Self | None:
        """Any scheme of the core but types of ggml, all of which have blocks."""
        if dtype not in abi.ACTIVATION_TYPES or not isinstance(scheme, tuple(_SCALINGS)):
            return None
        codes, table = abi.Codes(bits=getattr(scheme, "bits", 4)), None
        if isinstance(scheme, Affine):
            codes.middle, codes.shifted = 2.0 ** (scheme.bits - 1), scheme.zero == "offset"
        elif isinstance(scheme, Float8):
            codes.code = abi.Code.E4M3 if scheme.fmt == "e4m3" else abi.Code.E5M2
        else:
            table = torch.tensor(TABLES[scheme.table] if isinstance(scheme, Codebook) else _E2M1, dtype=torch.float32)
        if table is not None:
            codes.table = table.data_ptr()
        matrix = abi.Matrix(outputs=outputs, inputs=inputs, layout=abi.Layout.CODES)
        matrix.sizes[2], matrix.extra[0] = exact_activations(), ctypes.addressof(codes)
        return cls(scheme, matrix, codes, table)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(one.nbytes for one in self._fields.values()) + sum(one.nbytes for one in self._keep[1:])

    def fill(self, fields: Mapping[str, Tensor]) -> None:
        """Keep the scheme's fields."""
        outputs, inputs = self.matrix.outputs, self.matrix.inputs
        self.scheme.check(fields, (outputs, inputs), what="a quantized weight")
        self._fields = dict(fields)
        rows = fields["weight"] if fields["weight"].stride(-1) == 1 else fields["weight"].contiguous()
        self.codes.rows, self.codes.row_bytes, self._keep = rows.data_ptr(), rows.stride(0), [rows]
        self._scale(_SCALINGS[type(self.scheme)](self.scheme, fields, inputs))

    def _scale(self, scaling: _Scaling) -> None:
        scales = scaling.scales.float().contiguous()
        zeros = None if scaling.zeros is None else scaling.zeros.float().contiguous()
        group_of = None if scaling.group_of is None else scaling.group_of.to(torch.int32).contiguous()
        codes = self.codes
        codes.scales = scales.data_ptr()
        codes.zeros = None if zeros is None else zeros.data_ptr()
        codes.group_of = None if group_of is None else group_of.data_ptr()
        codes.scale_rows, codes.groups = scales.shape
        codes.group, codes.rows_each = scaling.group, scaling.rows_each
        self._keep = [*self._keep, *(one for one in (scales, zeros, group_of) if one is not None)]

    def unpack(self) -> Mapping[str, Tensor]:
        """The scheme's fields as they came."""
        return dict(self._fields)

    def laid_out(self) -> Mapping[str, Tensor]:
        """The scheme's fields: this layout has no other."""
        return self._fields

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the scheme's fields."""
        self.fill(tensors)

    def rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Chosen rows, as the scheme defines them: int64 [n] -> [n, I]."""
        return matrix_rows(self.matrix, ids, dtype)


def _affine(scheme: Affine, fields: Mapping[str, Tensor], inputs: int) -> _Scaling:
    zeros = fields.get("offset", fields.get("zero"))
    group = 1 if scheme.group_axis == "out" else scheme.group or inputs
    return _Scaling(fields["scale"], group, zeros, fields.get("group_index"))


def _codebook(scheme: Codebook, fields: Mapping[str, Tensor], inputs: int) -> _Scaling:
    return _Scaling(fields["scale"], scheme.block)


def _micro(scheme: Micro, fields: Mapping[str, Tensor], inputs: int) -> _Scaling:
    scales = fields["scale"].float()
    return _Scaling(scales * fields["global_scale"] if scheme.global_scale else scales, scheme.size)


def _float8(scheme: Float8, fields: Mapping[str, Tensor], inputs: int) -> _Scaling:
    if scheme.block:
        return _Scaling(fields["scale"], scheme.block[1], rows_each=scheme.block[0])
    return _Scaling(fields["scale"].reshape(-1, 1), inputs)


_SCALINGS: Mapping[type[Scheme], Callable[..., _Scaling]] = {
    Affine: _affine, Codebook: _codebook, Micro: _micro, Float8: _float8,
}  # fmt: skip

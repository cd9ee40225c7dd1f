# SPDX-License-Identifier: Apache-2.0
"""Tensors as native kernels see them: rows of equal width, a fixed number of bytes apart.

An operand is made from a tensor (when a kernel is called by itself) or from a value of a tape (when a step is lowered);
what a kernel can take is judged on operands, so both agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from tramontane.tape.ir import Dim, Size
from tramontane_backend_cpu import abi

FIELDS = {"ids_T": abi.Place.IDS, "positions_KT": abi.Place.POSITIONS, "out_rows_L": abi.Place.OUT_ROWS}
"""Fields of the batch that ops take as inputs."""


@frozen
class Operand:
    """One input or output of a kernel."""

    dtype: torch.dtype
    rows: Size
    inner: tuple[int, ...]
    """Shape of a row: (features,), or (heads, features)."""
    stride: int = 0
    """Bytes from a row to the next."""
    place: abi.Place = abi.Place.POINTER
    at: int = 0
    """Address, or offset in the arena, in bytes."""
    apart: int = 0
    """Elements from head to head where heads do not lie side by side; 0 where they do."""

    @property
    def width(self) -> int:
        """Elements of a row."""
        return math.prod(self.inner)

    @property
    def head_stride(self) -> int:
        """Elements from head to head of (heads, features)."""
        return self.apart or self.inner[1]

    def value(self) -> abi.Value:
        """As the native side wants it."""
        pointer, offset = (self.at, 0) if self.place is abi.Place.POINTER else (None, self.at)
        return abi.Value(
            pointer, offset, self.stride, self.width, self.rows.tokens, self.rows.outputs, self.rows.constant,
            abi.DTYPES[self.dtype], self.place,
        )  # fmt: skip


def of_tensor(tensor: Tensor) -> Operand | None:
    """The operand for a tensor; ``None`` if it is no sequence of rows or of a type without native support."""
    return make(tensor.shape, tensor.stride(), tensor.dtype, abi.Place.POINTER, tensor.data_ptr())


def make(shape: Sequence[Dim], strides: Sequence[int], dtype: torch.dtype, place: abi.Place, at: int) -> Operand | None:
    """The operand for a shape whose first dimension alone may depend on the batch.

    One-dimensional numbers are one row; one-dimensional indices are a row each, as they pair with rows.
    """
    if dtype not in abi.DTYPES:
        return None
    if len(shape) < 2:
        count = shape[0] if shape else 1
        if dtype is torch.int64:
            return Operand(dtype, _size(count), (1,), dtype.itemsize, place, at)
        shape, strides = (1, count), (0, *(strides or (1,)))
    inner = [dim for dim in shape[1:] if isinstance(dim, int)]
    if len(inner) != len(shape) - 1:
        return None
    apart = _apart(inner, strides[1:])
    if apart is None:
        return None
    return Operand(dtype, _size(shape[0]), tuple(inner), strides[0] * dtype.itemsize, place, at, apart)


def _apart(inner: Sequence[int], strides: Sequence[int]) -> int | None:
    """0 for elements side by side, the stride between heads whose features are, ``None`` for anything else."""
    if len(inner) == 2 and strides[1] == 1 and inner[0] > 1 and strides[0] > inner[1]:
        return strides[0]
    width = 1
    for dim, stride in zip(reversed(inner), reversed(strides), strict=True):
        if dim != 1 and stride != width:
            return None
        width *= dim
    return 0


def _size(dim: Dim) -> Size:
    return Size(constant=dim) if isinstance(dim, int) else dim

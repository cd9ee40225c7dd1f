# SPDX-License-Identifier: Apache-2.0
"""Floating-point weights in panels of 16 outputs (``native/kernels/layouts/panels.cpp``)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Self

import torch
from attrs import define, field
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.saved.words import as_words
from tramontane.schemes import Dense, Scheme
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.layouts.stored import MEMORY, Room, adopted, matrix_rows
from tramontane_backend_cpu.library import default_pool, empty_bytes, library

_WEIGHTS = (torch.float32, torch.bfloat16, torch.float16)


@define(eq=False)
class PanelPart:
    """Implements :class:`~tramontane_backend_cpu.layouts.stored.StoredPart` for :class:`~tramontane.schemes.Dense`."""

    matrix: abi.Matrix
    dtype: torch.dtype
    memory: Tensor = field(repr=False)
    layout: str = "panels"

    @classmethod
    def choose(
        cls, scheme: Scheme, outputs: int, inputs: int, dtype: torch.dtype, room: Room = empty_bytes
    ) -> Self | None:
        """Dense weights under float32 or bfloat16 activations."""
        if not isinstance(scheme, Dense) or scheme.dtype not in _WEIGHTS or dtype not in abi.ACTIVATION_TYPES:
            return None
        return cls.empty(scheme.dtype, outputs, inputs, room)

    @classmethod
    def empty(cls, dtype: torch.dtype, outputs: int, inputs: int, room: Room = empty_bytes) -> Self:
        """Uninitialized storage [outputs, inputs] in memory that ``room`` gives."""
        matrix = abi.Matrix(outputs=outputs, inputs=inputs, layout=abi.Layout.PANELS, dtype=abi.DTYPES[dtype])
        memory = room(library().tm_matrix_bytes(ctypes.byref(matrix)))
        matrix.data = memory.data_ptr()
        return cls(matrix, dtype, memory)

    @property
    def nbytes(self) -> int:
        """Bytes held, the padding of the last panel included."""
        return self.memory.numel()

    def fill(self, fields: Mapping[str, Tensor]) -> None:
        """Take ``weight`` [O, I], of any floating type."""
        weight = fields["weight"]
        if tuple(weight.shape) != (self.matrix.outputs, self.matrix.inputs):
            wanted = [self.matrix.outputs, self.matrix.inputs]
            raise PlanError(f"a weight of shape {list(weight.shape)} does not fit {wanted}")
        if weight.dtype not in _WEIGHTS or weight.stride(1) != 1:
            weight = weight.to(self.dtype).contiguous()
        library().tm_matrix_pack(
            default_pool().handle, ctypes.byref(self.matrix), weight.data_ptr(), weight.stride(0) * weight.itemsize,
            abi.DTYPES[weight.dtype],
        )  # fmt: skip

    def unpack(self) -> Mapping[str, Tensor]:
        """``weight`` [O, I]."""
        return {"weight": self.rows(torch.arange(self.matrix.outputs), self.dtype)}

    def laid_out(self) -> Mapping[str, Tensor]:
        """The panels."""
        return {MEMORY: as_words(self.memory)}

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`laid_out` gave."""
        self.memory = adopted(self.matrix, tensors)

    def rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Chosen rows: int64 [n] -> [n, I]."""
        return matrix_rows(self.matrix, ids, dtype)

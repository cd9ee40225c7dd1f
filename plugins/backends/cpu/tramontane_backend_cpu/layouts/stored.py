# SPDX-License-Identifier: Apache-2.0
"""A matrix stored part by part, each in a native layout of its own. It computes nothing; kernels read it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import Array
from typing import Protocol

import torch
from attrs import define, field
from torch import Tensor

from tramontane.errors import CheckpointError, PlanError
from tramontane.saved.words import as_bytes
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.library import default_pool, library

MEMORY = "memory"
"""Name of a matrix's panels among the tensors that are kept of it."""
Room = Callable[[int], Tensor]
"""``room(nbytes)``: uninitialized memory, uint8 [nbytes]."""


class StoredPart(Protocol):
    """One part of a matrix in a native layout: [O, I]."""

    layout: str
    matrix: abi.Matrix
    """What the native side sees. Its memory is allocated from the start and lives as long as the part."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        ...

    def fill(self, fields: Mapping[str, Tensor]) -> None:
        """Take the canonical fields (see :mod:`tramontane.schemes`)."""
        ...

    def unpack(self) -> Mapping[str, Tensor]:
        """The exact canonical fields."""
        ...

    def rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Chosen rows as floating point: int64 [n] -> [n, I]."""
        ...

    def laid_out(self) -> Mapping[str, Tensor]:
        """See :class:`tramontane.weights.LaidOut`."""
        ...

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`tramontane.weights.LaidOut`."""
        ...


def matrix_rows(matrix: abi.Matrix, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Chosen rows of one matrix, whatever its layout, as its scheme defines them: int64 [n] -> [n, I].

    Raises:
        IndexError: A row does not exist.
    """
    ids = ids.to(torch.int64).contiguous()
    found = torch.empty(*ids.shape, matrix.inputs, dtype=dtype)
    status = library().tm_matrix_rows(
        default_pool().handle, ctypes.byref(matrix), ids.data_ptr(), ids.numel(), found.data_ptr(),
        matrix.inputs * dtype.itemsize, abi.DTYPES[dtype],
    )  # fmt: skip
    if status != abi.Status.OK:
        raise IndexError(f"a row is outside [0, {matrix.outputs})")
    return found


def adopted(matrix: abi.Matrix, tensors: Mapping[str, Tensor]) -> Tensor:
    """The memory of one matrix from what its ``laid_out`` gave, and the matrix told of it: uint8.

    Raises:
        CheckpointError: It is missing, or of another size.
    """
    if MEMORY not in tensors:
        raise CheckpointError(f"a layout of {matrix.outputs} x {matrix.inputs} was kept without its memory")
    memory = as_bytes(tensors[MEMORY], library().tm_matrix_bytes(ctypes.byref(matrix)))
    matrix.data = memory.data_ptr()
    return memory


@define(eq=False)
class NativeStored:
    """Implements :class:`tramontane.weights.Stored` and :class:`tramontane.weights.LaidOut`."""

    path: str
    dtype: torch.dtype
    """Type of the activations, and of what is dequantized."""
    parts: Sequence[StoredPart]
    layout: str = field(init=False)
    """The parts' layouts, each once."""
    matrices: Array[abi.Matrix] = field(init=False, repr=False)
    """The parts side by side, for ``tm_linear``."""

    def __attrs_post_init__(self) -> None:
        self.layout = "+".join(dict.fromkeys(part.layout for part in self.parts))
        self.matrices = (abi.Matrix * len(self.parts))(*(part.matrix for part in self.parts))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes for part in self.parts)

    def fill(self, part: int, fields: Mapping[str, Tensor]) -> None:
        """Take the canonical fields of one part."""
        self.parts[part].fill(fields)

    def unpack(self, part: int) -> Mapping[str, Tensor]:
        """The exact canonical fields of one part."""
        return self.parts[part].unpack()

    def laid_out(self, part: int) -> Mapping[str, Tensor]:
        """What one part holds."""
        return self.parts[part].laid_out()

    def adopt(self, part: int, tensors: Mapping[str, Tensor]) -> None:
        """Take what one part is to hold."""
        self.parts[part].adopt(tensors)
        self.matrices[part] = self.parts[part].matrix

    def dequantize(self) -> Tensor:
        """All parts as one floating-point tensor [O, I]."""
        pieces = [part.rows(torch.arange(part.matrix.outputs), self.dtype) for part in self.parts]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def rows(self, ids: Tensor) -> Tensor:
        """Chosen rows: int64 [n] -> [n, I]."""
        if len(self.parts) != 1:
            raise PlanError(f"{self.path} has {len(self.parts)} parts; rows are looked up in matrices of one")
        return self.parts[0].rows(ids, self.dtype)

    def expert(self, index: int) -> Tensor:
        """Not a stack of matrices."""
        raise PlanError(f"{self.path} is one matrix, it has no expert {index}")

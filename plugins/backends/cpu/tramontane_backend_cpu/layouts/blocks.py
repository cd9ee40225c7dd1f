# SPDX-License-Identifier: Apache-2.0
"""Quantized weights in panels of 16 outputs (``native/kernels/layouts/blocks.h``).

:mod:`~tramontane_backend_cpu.layouts.codings` says which schemes are stored so. Packing and unpacking are native; this
only allocates, and turns fields into what the native side reads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Self

import torch
from attrs import define, field
from torch import Tensor

from tramontane.saved.words import as_words
from tramontane.schemes import Scheme
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.layouts.codings import Coded, coded
from tramontane_backend_cpu.layouts.stored import MEMORY, Room, adopted, matrix_rows
from tramontane_backend_cpu.library import default_pool, empty_bytes, library
from tramontane_backend_cpu.precision import exact_activations


@define(eq=False)
class BlockPart:
    """Implements :class:`~tramontane_backend_cpu.layouts.stored.StoredPart` for quantized schemes."""

    scheme: Scheme
    coded: Coded
    matrix: abi.Matrix
    memory: Tensor = field(repr=False)
    _table: Tensor | None = field(default=None, repr=False)
    _kept: dict[str, Tensor] = field(factory=dict, init=False, repr=False)
    """Fields that come back as they were: scales that stand for many rows, scales of activations, aliased codes."""
    layout: str = "blocks"

    @classmethod
    def choose(
        cls, scheme: Scheme, outputs: int, inputs: int, dtype: torch.dtype, room: Room = empty_bytes
    ) -> Self | None:
        """Codes of two to eight bits whose scales stand for whole blocks of 32 inputs, and every type of ggml."""
        found = coded(scheme, inputs)
        if found is None or dtype not in abi.ACTIVATION_TYPES:
            return None
        matrix = abi.Matrix(
            outputs=outputs, inputs=inputs, layout=abi.Layout.BLOCKS, dtype=abi.DTYPES[found.scale_dtype]
        )
        matrix.sizes[:] = [found.coding, found.span, exact_activations(), found.bits]
        table = None if found.table is None else torch.tensor(found.table, dtype=torch.float32)
        if table is not None:
            matrix.extra[2] = table.data_ptr()
        memory = room(library().tm_matrix_bytes(ctypes.byref(matrix)))
        matrix.data = memory.data_ptr()
        return cls(scheme, found, matrix, memory, table)

    @property
    def nbytes(self) -> int:
        """Bytes held, the padding of the last panel included."""
        return self.memory.numel() + sum(kept.nbytes for kept in self._kept.values())

    def fill(self, fields: Mapping[str, Tensor]) -> None:
        """Take the scheme's fields."""
        shape = (self.matrix.outputs, self.matrix.inputs)
        self.scheme.check(fields, shape, what="a quantized weight")
        weight = _bytes(fields["weight"])
        beside, self._kept = self.coded.beside(fields, shape)
        for index, scales in enumerate(beside):
            self.matrix.extra[index] = scales.data_ptr()
        pool, any_dtype = default_pool().handle, 0  # rows are bytes
        library().tm_matrix_pack(pool, ctypes.byref(self.matrix), weight.data_ptr(), weight.stride(0), any_dtype)
        self._forget()
        if self.coded.aliased and not torch.equal(self._codes()[0], weight):
            self._kept["weight"] = fields["weight"]  # no quantizer writes such bytes

    def unpack(self) -> Mapping[str, Tensor]:
        """The scheme's fields, exactly."""
        weight, beside = self._codes()
        wanted = self.scheme.fields((self.matrix.outputs, self.matrix.inputs))
        found = {"weight": weight.view(wanted["weight"].dtype), **self.coded.fields(beside), **self._kept}
        return {name: found[name].to(one.dtype) for name, one in wanted.items()}

    def _codes(self) -> tuple[Tensor, list[Tensor]]:
        """The rows as bytes, and what lay beside them."""
        shape = (self.matrix.outputs, self.matrix.inputs)
        weight = torch.zeros(self.scheme.fields(shape)["weight"].shape, dtype=torch.uint8)
        beside = self.coded.room(shape)
        for index, scales in enumerate(beside):
            self.matrix.extra[index] = scales.data_ptr()
        library().tm_matrix_unpack(
            default_pool().handle, ctypes.byref(self.matrix), weight.data_ptr(), weight.stride(0)
        )
        self._forget()
        return weight, beside

    def laid_out(self) -> Mapping[str, Tensor]:
        """The panels, and small fields by their names."""
        return {MEMORY: as_words(self.memory), **self._kept}

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`laid_out` gave."""
        self.memory = adopted(self.matrix, tensors)
        self._kept = {name: tensor for name, tensor in tensors.items() if name != MEMORY}

    def rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Chosen rows, as the scheme defines them: int64 [n] -> [n, I]."""
        return matrix_rows(self.matrix, ids, dtype)

    def _forget(self) -> None:
        """What lies beside the codes was only lent to the native side."""
        self.matrix.extra[0] = self.matrix.extra[1] = None


def _bytes(weight: Tensor) -> Tensor:
    """Rows of bytes."""
    return (weight if weight.stride(-1) == 1 else weight.contiguous()).view(torch.uint8)

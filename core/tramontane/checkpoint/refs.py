# SPDX-License-Identifier: Apache-2.0
"""Lazy references to stored tensors: name, dtype and shape now, bytes when asked.

A loader makes one :class:`TensorRef` per stored tensor. References hold no copy of the weights; what they return on the
CPU is a view of the mapped file wherever alignment allows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import torch
from attrs import define, field
from torch import Tensor

from tramontane.checkpoint.mapped import MappedFile


@define(kw_only=True, eq=False)
class TensorRef(ABC):
    """One tensor of a checkpoint.

    Attributes:
        name: Its name in the checkpoint.
        dtype: Element type as stored; ``torch.uint8`` where blocks are stored as bytes.
        shape: Stored shape, outermost dimension first.
        encoding: How bytes are to be understood where the dtype does not say, such as ``q4_k``; empty if plain.
        alias_of: Set where the file states that this name shares the storage of another one (tied weights).
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    encoding: str = ""
    alias_of: str | None = None

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """The tensor or a slice of it.

        Args:
            index: One slice per dimension (positive steps); ``None`` for all. Only what it selects is read.
            out: A tensor of the slice's shape to fill instead, on any device and of any dtype.

        Returns:
            ``out`` if given; otherwise a tensor on the CPU that may be a view of the file: copy it before changing it.

        Raises:
            CheckpointError: The checkpoint was closed.
        """


@define(kw_only=True, eq=False)
class MappedTensor(TensorRef):
    """A tensor that lies in one piece, little-endian, in a mapped file."""

    file: MappedFile = field(repr=lambda file: repr(str(file.path)))
    offset: int

    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """See :meth:`TensorRef.read`."""
        return _give(self.file.tensor(self.offset, self.dtype, self.shape), index, out)


@define(kw_only=True, eq=False)
class MemoryTensor(TensorRef):
    """A tensor that is already in memory (or that torch has mapped itself)."""

    tensor: Tensor = field(repr=False)

    @classmethod
    def of(cls, name: str, tensor: Tensor, *, encoding: str = "", alias_of: str | None = None) -> MemoryTensor:
        """A reference to ``tensor``."""
        return cls(
            name=name,
            dtype=tensor.dtype,
            shape=tuple(tensor.shape),
            encoding=encoding,
            alias_of=alias_of,
            tensor=tensor,
        )

    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """See :meth:`TensorRef.read`."""
        return _give(self.tensor, index, out)


def _give(stored: Tensor, index: tuple[slice, ...] | None, out: Tensor | None) -> Tensor:
    wanted = stored if index is None else stored[index]
    return wanted if out is None else out.copy_(wanted)

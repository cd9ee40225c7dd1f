# SPDX-License-Identifier: Apache-2.0
"""Planned reads: what a :mod:`source <tramontane.weightmap.sources>` becomes once everything has been checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from attrs import frozen
from torch import Tensor

from tramontane.errors import CheckpointError, PlanError
from tramontane.tensors import take
from tramontane.weightmap.values import ValueMap


class Read(Protocol):
    """Something that can be read, of known shape and element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the result."""
        ...

    def run(self, out: Tensor | None = None) -> Tensor:
        """Read, into ``out`` if given (any device and dtype). Without it the result may be a view of the file."""
        ...


def _agree(reads: Sequence[Read]) -> None:
    dtypes = list(dict.fromkeys(read.dtype for read in reads))
    if len(dtypes) > 1:
        raise PlanError(f"tensors of different types cannot be joined: {', '.join(map(str, dtypes))}")


@frozen
class Joined:
    """Reads one behind the other along a dimension."""

    reads: tuple[Read, ...]
    dim: int

    @classmethod
    def of(cls, reads: Sequence[Read], dim: int) -> Self:
        """Join, after checking that types and the other dimensions agree.

        Raises:
            PlanError: They do not.
        """
        _agree(reads)
        shapes = [read.shape[:dim] + read.shape[dim + 1 :] for read in reads]
        if len(set(shapes)) > 1:
            raise PlanError(f"tensors of the shapes {[list(read.shape) for read in reads]} cannot be joined")
        return cls(tuple(reads), dim)

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        first = self.reads[0].shape
        return (*first[: self.dim], sum(read.shape[self.dim] for read in self.reads), *first[self.dim + 1 :])

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.reads[0].dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`."""
        result = torch.empty(self.shape, dtype=self.dtype) if out is None else out
        start = 0
        for read in self.reads:
            size = read.shape[self.dim]
            read.run(result.narrow(self.dim, start, size))
            start += size
        return result


@frozen
class Stacked:
    """Reads side by side along a new dimension."""

    reads: tuple[Read, ...]
    dim: int

    @classmethod
    def of(cls, reads: Sequence[Read], dim: int) -> Self:
        """Stack, after checking that types and shapes agree.

        Raises:
            PlanError: They do not.
        """
        _agree(reads)
        if len({read.shape for read in reads}) > 1:
            raise PlanError(f"tensors of the shapes {[list(read.shape) for read in reads]} cannot be stacked")
        if not reads:
            raise PlanError("no experts are left to be stacked")
        return cls(tuple(reads), dim)

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        first = self.reads[0].shape
        return (*first[: self.dim], len(self.reads), *first[self.dim :])

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.reads[0].dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`."""
        result = torch.empty(self.shape, dtype=self.dtype) if out is None else out
        for number, read in enumerate(self.reads):
            read.run(result.select(self.dim, number))
        return result


@frozen
class Same:
    """Tensors that must be equal, such as one scale for several parts that are joined."""

    reads: tuple[Read, ...]
    what: str

    @classmethod
    def of(cls, reads: Sequence[Read], what: str) -> Self:
        """Several reads as one; their values are compared when read."""
        _agree(reads)
        return cls(tuple(reads), what)

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        return self.reads[0].shape

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.reads[0].dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`.

        Raises:
            CheckpointError: The values differ, so that one tensor cannot stand for all.
        """
        first, *others = (read.run() for read in self.reads)
        if not all(torch.equal(_bits(first), _bits(other)) for other in others):
            raise CheckpointError(f"{self.what} differs between the parts, which must share it once they are joined")
        return first if out is None else out.copy_(first)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


@frozen
class Squeezed:
    """A read without its dimension ``dim``, which has one element."""

    read: Read
    dim: int

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        return (*self.read.shape[: self.dim], *self.read.shape[self.dim + 1 :])

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.read.dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`."""
        if out is None:
            return self.read.run().squeeze(self.dim)
        self.read.run(out.unsqueeze(self.dim))
        return out


@frozen
class Unsqueezed:
    """A read with a further dimension of one element before ``dim``."""

    read: Read
    dim: int

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        return (*self.read.shape[: self.dim], 1, *self.read.shape[self.dim :])

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.read.dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`."""
        if out is None:
            return self.read.run().unsqueeze(self.dim)
        self.read.run(out.squeeze(self.dim))
        return out


@frozen
class Swapped:
    """A read with two dimensions exchanged."""

    read: Read
    first: int
    second: int

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        shape = list(self.read.shape)
        shape[self.first], shape[self.second] = shape[self.second], shape[self.first]
        return tuple(shape)

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.read.dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`; without ``out`` the result is a strided view."""
        if out is None:
            return self.read.run().transpose(self.first, self.second)
        self.read.run(out.transpose(self.first, self.second))
        return out


@frozen
class Reordered:
    """A read with the elements of one dimension in another order."""

    read: Read
    dim: int
    places: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        shape = self.read.shape
        return (*shape[: self.dim], len(self.places), *shape[self.dim + 1 :])

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.read.dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`; rows are gathered from the mapped file, only those asked for are copied."""
        chosen = take(self.read.run(), self.dim, torch.tensor(self.places))
        return chosen if out is None else out.copy_(chosen)


@frozen
class Mapped:
    """A read with a function applied to its values, in float32."""

    read: Read
    values: ValueMap

    @property
    def shape(self) -> tuple[int, ...]:
        """See :class:`Read`."""
        return self.read.shape

    @property
    def dtype(self) -> torch.dtype:
        """See :class:`Read`."""
        return self.read.dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """See :meth:`Read.run`."""
        stored = self.read.run()
        mapped = self.values.apply(stored.to(torch.float32))
        return mapped.to(stored.dtype) if out is None else out.copy_(mapped)

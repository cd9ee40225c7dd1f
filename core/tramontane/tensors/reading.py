# SPDX-License-Identifier: Apache-2.0
"""Reading slices of one stored tensor with as little input/output as the slices allow.

Checked when planned, read when run. What is read is what is stored: nothing is converted or repacked here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from attrs import frozen
from torch import Tensor

from tramontane.checkpoint.refs import TensorRef
from tramontane.errors import PlanError
from tramontane.tensors.axes import TensorDecl
from tramontane.tensors.ranges import AxisRanges


def _viewed(shape: tuple[int, ...], view: tuple[int, ...] | None, name: str) -> tuple[int, ...]:
    """``view`` with its -1 filled in.

    Raises:
        PlanError: The stored tensor cannot be seen as that shape.
    """
    if view is None:
        return shape
    have, known = _product(shape), _product(d for d in view if d >= 0)
    free = sum(d < 0 for d in view)
    if free > 1 or (known == 0 and have) or (free and known and have % known) or (not free and known != have):
        raise PlanError(f"{name} has the shape {list(shape)}, which cannot be viewed as {list(view)}")
    return tuple(d if d >= 0 else (have // known if known else 0) for d in view)


def _product(numbers: Iterable[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


@frozen
class TensorRead:
    """One stored tensor and the slices of it that are wanted. Checked when made, read when run."""

    ref: TensorRef
    viewed: tuple[int, ...]
    slices: tuple[tuple[slice, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        sizes = zip(self.slices, self.viewed, strict=True)
        return tuple(sum(_count(part, extent) for part in parts) for parts, extent in sizes)

    @property
    def dtype(self) -> torch.dtype:
        """Stored dtype, which is the dtype of the result."""
        return self.ref.dtype

    def run(self, out: Tensor | None = None) -> Tensor:
        """Read. One slice per dimension gives a view of the file where the loader can; several are copied together.

        Args:
            out: Where to put the result (any device and dtype, same shape); made if absent.
        """
        if all(len(parts) == 1 for parts in self.slices):
            return self._piece(tuple(parts[0] for parts in self.slices), out)
        if out is None:
            out = torch.empty(self.shape, dtype=self.dtype)
        for index, place in zip(itertools.product(*self.slices), itertools.product(*self._places()), strict=True):
            self._piece(index, out[place])
        return out

    def _piece(self, index: tuple[slice, ...], out: Tensor | None) -> Tensor:
        if self.viewed == tuple(self.ref.shape):
            return self.ref.read(index, out)
        piece = self.ref.read().view(self.viewed)[index]
        return piece if out is None else out.copy_(piece)

    def _places(self) -> list[list[slice]]:
        """Per dimension, where each of its slices goes in the result."""
        places = []
        for parts, extent in zip(self.slices, self.viewed, strict=True):
            ends = list(itertools.accumulate((_count(part, extent) for part in parts), initial=0))
            places.append([slice(a, b) for a, b in itertools.pairwise(ends)])
        return places


def _count(part: slice, extent: int) -> int:
    return len(range(*part.indices(extent)))


def plan_read(ref: TensorRef, decl: TensorDecl, ranges: AxisRanges) -> TensorRead:
    """Check that the ranges can be read from a stored tensor, without reading.

    Raises:
        PlanError: A range starts or ends inside a block or lies outside; the view does not fit the stored shape.
    """
    if not decl.sliceable and any(wanted is not None for wanted in ranges.values()):
        raise PlanError(
            f"{ref.name} can only be read whole: its blocks cross rows, so {_cuts(ranges)} is not to be had"
        )
    viewed = _viewed(tuple(ref.shape), decl.view, ref.name)
    return TensorRead(ref, viewed, decl.slices(viewed, ranges, what=ref.name))


def _cuts(ranges: AxisRanges) -> str:
    """Ranges as they are shown in an error."""
    shown = (", ".join(f"{a}:{b}" for a, b in wanted) or "nothing" for wanted in ranges.values())
    return " and ".join(f"{text} of axis {name!r}" for name, text in zip(ranges, shown, strict=True))


def read(ref: TensorRef, decl: TensorDecl, ranges: AxisRanges | None = None, out: Tensor | None = None) -> Tensor:
    """Plan and read in one call; see :func:`plan_read` and :meth:`TensorRead.run`."""
    return plan_read(ref, decl, ranges or {}).run(out)


def take(tensor: Tensor, dim: int, index: Tensor) -> Tensor:
    """``index_select`` for every dtype; torch has none for 8-bit floats."""
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        return tensor.view(torch.uint8).index_select(dim, index).view(tensor.dtype)
    return tensor.index_select(dim, index)

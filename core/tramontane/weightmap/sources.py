# SPDX-License-Identifier: Apache-2.0
"""Where one tensor comes from: an expression over stored tensors.

A source is a small tree: leaves are tensors of the checkpoint, nodes select, join, stack, pick, transpose, reorder or
map them. Trees speak of the logical axes ``expert``, ``out`` and ``in`` only, so that the same tree serves a dense
weight, its bias, and every packed field of a quantized one: the :class:`TensorDecl` of the field says where its axes
lie. ``plan`` checks everything without reading; the resulting :class:`Read` reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from attrs import evolve, frozen

from tramontane.checkpoint.refs import TensorRef
from tramontane.errors import CheckpointError, PlanError
from tramontane.tensors import AxisRanges, Ranges, TensorDecl, compose, indices, length, plan_read
from tramontane.weightmap.reads import (
    Joined,
    Mapped,
    Read,
    Reordered,
    Same,
    Squeezed,
    Stacked,
    Swapped,
    Unsqueezed,
)
from tramontane.weightmap.values import ValueMap

Tensors = Mapping[str, TensorRef]
Rewrite = Callable[["Leaf"], "Source | None"]
"""Replaces a leaf by a source over other names; ``None`` leaves it alone."""


@frozen
class Source(ABC):
    """A node of the tree. Immutable; equal trees are equal."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the leaves, in order."""

    @abstractmethod
    def rewrite(self, change: Rewrite) -> Source:
        """The same tree with its leaves replaced."""

    @abstractmethod
    def declarations(self, decl: TensorDecl) -> dict[str, TensorDecl]:
        """Where the logical axes lie in each leaf, if they lie in the result as ``decl`` says."""

    @abstractmethod
    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """Check that a slice of the result can be read.

        Args:
            decl: Where the logical axes lie in the *result* (as if it were stored alone).
            ranges: Wanted ranges per logical axis; an axis that is not named is wanted whole.
            tensors: The stored tensors by name.

        Raises:
            CheckpointError: A stored tensor is missing.
            PlanError: A boundary falls inside a block, or the field cannot be brought into this form.
        """


@frozen
class Leaf(Source):
    """One tensor of the checkpoint."""

    name: str

    def names(self) -> tuple[str, ...]:
        """See :meth:`Source.names`."""
        return (self.name,)

    def rewrite(self, change: Rewrite) -> Source:
        """See :meth:`Source.rewrite`."""
        return change(self) or self

    def declarations(self, decl: TensorDecl) -> dict[str, TensorDecl]:
        """See :meth:`Source.declarations`."""
        return {self.name: decl}

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        ref = tensors.get(self.name)
        if ref is None:
            raise CheckpointError(f"the checkpoint has no tensor {self.name!r}")
        told = decl.axes if decl.sliceable else ranges  # the axes of a tensor that cannot be cut are not told
        return plan_read(ref, decl, {axis: ranges[axis] for axis in told if axis in ranges})


@frozen
class _Unary(Source):
    """A node over one source."""

    child: Source

    def names(self) -> tuple[str, ...]:
        """See :meth:`Source.names`."""
        return self.child.names()

    def rewrite(self, change: Rewrite) -> Source:
        """See :meth:`Source.rewrite`."""
        return evolve(self, child=self.child.rewrite(change))

    def declarations(self, decl: TensorDecl) -> dict[str, TensorDecl]:
        """See :meth:`Source.declarations`."""
        return self.child.declarations(self._below(decl))

    def _below(self, decl: TensorDecl) -> TensorDecl:
        """Where the axes lie in the child."""
        return decl


@frozen
class Select(_Unary):
    """Some ranges of an axis of ``size`` elements: one part of tensors fused on disk."""

    axis: str
    ranges: Ranges
    size: int

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        wanted = ranges.get(self.axis)
        below = self.ranges if wanted is None else compose(self.ranges, wanted)
        return self.child.plan(decl, {**ranges, self.axis: below}, tensors)


@frozen
class Pick(_Unary):
    """One element of an axis that the child has and the result has not: one expert of a stack of ``count``."""

    axis: str
    index: int
    count: int

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        one = {**ranges, self.axis: ((self.index, self.index + 1),)}
        return Squeezed(self.child.plan(self._below(decl), one, tensors), 0)

    def _below(self, decl: TensorDecl) -> TensorDecl:
        return decl.with_leading(self.axis, self.count)


@frozen
class Transpose(_Unary):
    """Stored with the dimensions of ``out`` and ``in`` exchanged. Axis names always mean the result's."""

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        read = self.child.plan(self._below(decl), ranges, tensors)
        return Swapped(read, decl.axes["out"].dim, decl.axes["in"].dim)

    def _below(self, decl: TensorDecl) -> TensorDecl:
        return decl.transposed()


@frozen
class Squeeze(_Unary):
    """The child without its dimension ``dim``, which has one element and carries no axis."""

    dim: int

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        read = self.child.plan(self._below(decl), ranges, tensors)
        return Squeezed(read, self.dim) if read.shape[self.dim : self.dim + 1] == (1,) else read

    def _below(self, decl: TensorDecl) -> TensorDecl:
        return decl.unsqueezed(self.dim)


@frozen
class Unsqueeze(_Unary):
    """The child with a further dimension of one element before ``dim``."""

    dim: int

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        return Unsqueezed(self.child.plan(self._below(decl), ranges, tensors), self.dim)

    def _below(self, decl: TensorDecl) -> TensorDecl:
        return decl.squeezed(self.dim)


@frozen
class Permute(_Unary):
    """The child's elements along an axis in another order.

    Seen as ``shape`` (one entry may be -1) and transposed to ``order``, the child's elements are the result's.
    """

    axis: str
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        axis = decl.axes.get(self.axis)
        if axis is None:
            return self.child.plan(decl, ranges, tensors)
        if (axis.block, axis.width) != (1, 1):
            raise PlanError(
                f"{', '.join(self.names())}: axis {self.axis!r} of the field {decl.name!r} is packed in blocks of "
                f"{axis.block}, so its elements cannot be reordered"
            )
        elsewhere = {name: wanted for name, wanted in ranges.items() if name != self.axis}
        everything = self.child.plan(decl, elsewhere, tensors)
        places = self._places(everything.shape[axis.dim])
        if self.axis in ranges:
            places = places[indices(ranges[self.axis])]
        if not places.numel():
            return self.child.plan(decl, {**elsewhere, self.axis: ()}, tensors)
        low, high = int(places.min()), int(places.max()) + 1
        span = self.child.plan(decl, {**elsewhere, self.axis: ((low, high),)}, tensors)
        return Reordered(span, axis.dim, tuple((places - low).tolist()))

    def _places(self, size: int) -> torch.Tensor:
        known = 1
        for extent in self.shape:
            known *= extent if extent > 0 else 1
        if size % known or (size != known and -1 not in self.shape):
            raise PlanError(f"{', '.join(self.names())}: {size} elements cannot be seen as {list(self.shape)}")
        return torch.arange(size).reshape(self.shape).permute(self.order).flatten()


@frozen
class Convert(_Unary):
    """The child's values through a function."""

    values: ValueMap

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        return Mapped(self.child.plan(decl, ranges, tensors), self.values)


@frozen
class Segment:
    """``start:stop`` of an axis of a source, as one piece of a longer axis."""

    source: Source
    start: int
    stop: int


@frozen
class Concat(Source):
    """Pieces joined along an axis."""

    axis: str
    segments: tuple[Segment, ...]

    def names(self) -> tuple[str, ...]:
        """See :meth:`Source.names`."""
        return tuple(dict.fromkeys(name for segment in self.segments for name in segment.source.names()))

    def rewrite(self, change: Rewrite) -> Source:
        """See :meth:`Source.rewrite`."""
        changed = tuple(evolve(part, source=part.source.rewrite(change)) for part in self.segments)
        return evolve(self, segments=changed)

    def declarations(self, decl: TensorDecl) -> dict[str, TensorDecl]:
        """See :meth:`Source.declarations`."""
        return {name: one for part in self.segments for name, one in part.source.declarations(decl).items()}

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        elsewhere = {name: wanted for name, wanted in ranges.items() if name != self.axis}
        axis = decl.axes.get(self.axis)
        if axis is None:
            children = dict.fromkeys(part.source for part in self.segments)
            return _same([child.plan(decl, elsewhere, tensors) for child in children], decl.name, self.names())
        pieces = self._pieces(ranges.get(self.axis))
        for child, below in pieces[:-1]:
            if length(below) % axis.block:
                raise PlanError(
                    f"{', '.join(child.names())}: {length(below)} elements of axis {self.axis!r} are not whole blocks "
                    f"of {axis.block}, so nothing can be joined behind them in the field {decl.name!r}"
                )
        reads = [child.plan(decl, {**elsewhere, self.axis: below}, tensors) for child, below in pieces]
        return reads[0] if len(reads) == 1 else Joined.of(reads, axis.dim)

    def _pieces(self, wanted: Ranges | None) -> list[tuple[Source, Ranges]]:
        """Children and their ranges, in the order of the result; neighbours of one child together."""
        bounds, end = [], 0
        for part in self.segments:
            bounds.append((part, end, end + part.stop - part.start))
            end += part.stop - part.start
        pieces: list[tuple[Source, Ranges]] = []
        for start, stop in ((0, end),) if wanted is None else wanted:
            if not 0 <= start <= stop <= end:
                raise PlanError(f"{', '.join(self.names())}: the range {start}:{stop} lies outside {end} elements")
            for part, low, high in bounds:
                left, right = max(start, low), min(stop, high)
                if left >= right:
                    continue
                below = (part.start + left - low, part.start + right - low)
                if pieces and pieces[-1][0] == part.source:
                    pieces[-1] = (part.source, (*pieces[-1][1], below))
                else:
                    pieces.append((part.source, (below,)))
        return pieces or [(self.segments[0].source, ())]


@frozen
class Stack(Source):
    """Sources without an axis, one per element of it: experts stored one by one."""

    axis: str
    children: tuple[Source, ...]

    def names(self) -> tuple[str, ...]:
        """See :meth:`Source.names`."""
        return tuple(name for child in self.children for name in child.names())

    def rewrite(self, change: Rewrite) -> Source:
        """See :meth:`Source.rewrite`."""
        return evolve(self, children=tuple(child.rewrite(change) for child in self.children))

    def declarations(self, decl: TensorDecl) -> dict[str, TensorDecl]:
        """See :meth:`Source.declarations`."""
        single = decl.without(self.axis)
        return {name: one for child in self.children for name, one in child.declarations(single).items()}

    def plan(self, decl: TensorDecl, ranges: AxisRanges, tensors: Tensors) -> Read:
        """See :meth:`Source.plan`."""
        elsewhere = {name: wanted for name, wanted in ranges.items() if name != self.axis}
        axis = decl.axes.get(self.axis)
        single = decl.without(self.axis)
        if axis is None:
            reads = [child.plan(single, elsewhere, tensors) for child in self.children]
            return _same(reads, decl.name, self.names())
        chosen = range(len(self.children)) if self.axis not in ranges else indices(ranges[self.axis]).tolist()
        if any(not 0 <= number < len(self.children) for number in chosen):
            raise PlanError(f"{self.names()[0]} ...: there are {len(self.children)} elements of axis {self.axis!r}")
        return Stacked.of([self.children[number].plan(single, elsewhere, tensors) for number in chosen], axis.dim)


def _same(reads: list[Read], field: str, names: tuple[str, ...]) -> Read:
    return reads[0] if len(reads) == 1 else Same.of(reads, f"the field {field!r} of {', '.join(names)}")

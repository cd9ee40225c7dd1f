# SPDX-License-Identifier: Apache-2.0
"""Which part of an axis one of several parallel workers holds.

A :class:`Shard` only makes ranges; what they mean for a stored tensor is :mod:`tramontane.tensors`' business, and which
axis of a module is split is the builder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from attrs import frozen

from tramontane.errors import PlanError
from tramontane.tensors.ranges import Ranges, length, whole

_VOCABULARY_BLOCK = 128


class Units(int):
    """A number of features that are cut only between units, as those of a projection between heads: an ``int`` that
    remembers the ``unit``."""

    unit: int

    def __new__(cls, count: int, unit: int) -> Units:
        """``count`` units of ``unit`` features each."""
        made = super().__new__(cls, count * unit)
        made.unit = unit
        return made


@frozen
class Cut:
    """What one worker holds of an axis."""

    size: int
    """Of the whole axis."""
    ranges: Ranges

    @classmethod
    def none(cls, size: int) -> Cut:
        """All of it."""
        return cls(size, whole(size))

    @property
    def length(self) -> int:
        """Elements held."""
        return length(self.ranges)

    @property
    def first(self) -> int:
        """The first element held."""
        return self.ranges[0][0] if self.ranges else 0


def axis_ranges(cuts: Mapping[str, Cut]) -> dict[str, Ranges]:
    """The ranges of those axes that are really cut."""
    return {axis: cut.ranges for axis, cut in cuts.items() if cut.length != cut.size}


@frozen
class Shard:
    """Worker ``rank`` of ``world``.

    A column-parallel linear splits ``out`` (each worker computes some outputs), a row-parallel one splits ``in`` (each
    worker adds its share to all outputs).
    """

    rank: int = 0
    world: int = 1

    def __attrs_post_init__(self) -> None:
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise PlanError(f"no worker {self.rank} among {self.world}")

    def even(self, size: int, *, what: str, block: int = 1) -> Ranges:
        """This worker's range of an axis of ``size`` elements, in equal parts of whole blocks of ``block`` elements.

        Raises:
            PlanError: The axis does not divide; the message carries the numbers.
        """
        if size % (block * self.world):
            blocks = f"blocks of {block}" if block > 1 else "elements"
            raise PlanError(
                f"{what}: {size // block} {blocks} do not split evenly over {self.world} workers",
                hint=f"choose a parallel size that divides {size // block}",
            )
        part = size // self.world
        return ((self.rank * part, (self.rank + 1) * part),)

    def column(self, size: int, *, what: str, block: int = 1) -> dict[str, Ranges]:
        """Ranges of a column-parallel weight with ``size`` outputs."""
        return {"out": self.even(size, what=what, block=block)} if self.world > 1 else {}

    def row(self, size: int, *, what: str, block: int = 1) -> dict[str, Ranges]:
        """Ranges of a row-parallel weight with ``size`` inputs."""
        return {"in": self.even(size, what=what, block=block)} if self.world > 1 else {}

    def cut(self, size: int, *, what: str) -> Cut:
        """This worker's part of an axis: between units where ``size`` has them (:class:`Units`), where there are fewer
        units than workers neighbours hold the same one.

        Raises:
            PlanError: The axis does not divide.
        """
        unit = getattr(size, "unit", 1)
        first, stop = self.kv_heads(size // unit, what=what) if unit > 1 else self.even(size, what=what)[0]
        return Cut(int(size), ((first * unit, stop * unit),))

    def ragged(self, size: int) -> tuple[Cut, ...]:
        """Every worker's part of an axis that need not divide: equal whole blocks, the last ones shorter.

        Blocks are 128 elements where each worker has several, so that scales of blocks stay whole.

        Raises:
            PlanError: There are fewer elements than workers.
        """
        if size < self.world:
            raise PlanError(f"{size} elements cannot be spread over {self.world} workers")
        block = _VOCABULARY_BLOCK if size >= 8 * _VOCABULARY_BLOCK * self.world else 1
        each = -(-size // (block * self.world)) * block
        if each * (self.world - 1) >= size:  # rounding up would leave the last one nothing
            each = size // self.world
        ends = [min(rank * each, size) for rank in range(self.world)] + [size]
        return tuple(Cut(size, ((a, b),)) for a, b in pairwise(ends))

    def heads(self, heads: int, *, what: str) -> tuple[int, int]:
        """This worker's heads as ``(first, last + 1)``.

        Raises:
            PlanError: The heads do not divide evenly.
        """
        ((first, stop),) = self.even(heads, what=what)
        return first, stop

    def kv_heads(self, heads: int, *, what: str) -> tuple[int, int]:
        """This worker's key/value heads as ``(first, last + 1)``; with fewer heads than workers they are replicated.

        Worker r of w shares head ``r * heads // w`` with its neighbours, which is the head its query heads belong to.

        Raises:
            PlanError: Neither number divides the other.
        """
        if heads >= self.world or self.world % heads:
            return self.heads(heads, what=what)
        first = self.rank * heads // self.world
        return first, first + 1

    def head_rows(self, heads: tuple[int, int], head_dim: int) -> Ranges:
        """Rows of a projection that hold the heads ``first:stop`` of ``head_dim`` rows each."""
        return ((heads[0] * head_dim, heads[1] * head_dim),)

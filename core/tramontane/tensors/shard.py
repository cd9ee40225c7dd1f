# SPDX-License-Identifier: Apache-2.0
"""Which part of an axis one of several parallel workers holds.

A :class:`Shard` only makes ranges; what they mean for a stored tensor is :mod:`tramontane.tensors`' business, and which
axis of a module is split is the builder's.
"""

from __future__ import annotations

from attrs import frozen

from tramontane.errors import PlanError
from tramontane.tensors.ranges import Ranges


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

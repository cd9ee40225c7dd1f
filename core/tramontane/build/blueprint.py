# SPDX-License-Identifier: Apache-2.0
"""What a model declares, and the primitives that declare it: weights, constants, caches, ops.

Nothing is allocated, read or chosen here; the :class:`~tramontane.build.Builder` makes layers of these primitives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from tramontane.cache.spec import CacheSpec
from tramontane.distributed.share import Share
from tramontane.errors import PlanError
from tramontane.ops import BoundOp, Op, Runtime
from tramontane.weights import CacheSlot, Constant, Matrix, Param, Part, Source, Split


@define(eq=False)
class Blueprint:
    """Everything one model declared, in order."""

    runtime: Runtime
    dtype: torch.dtype
    """Type of the activations."""
    cache_dtype: torch.dtype
    """Type of keys and values in the cache."""
    max_positions: int
    """Longest sequence the engine will run; rope tables are made for it."""
    share: Share = field(factory=Share)
    """What this worker holds, where several share the model."""
    matrices: dict[str, Matrix] = field(factory=dict)
    params: dict[str, Param] = field(factory=dict)
    constants: dict[object, Constant] = field(factory=dict)
    caches: dict[str, CacheSlot] = field(factory=dict)
    ops: list[BoundOp] = field(factory=list)
    tied: list[tuple[str, str]] = field(factory=list)
    """Pairs of module paths that share one matrix."""


_Made = TypeVar("_Made")


def join(prefix: str, name: str) -> str:
    """Module path of ``name`` under ``prefix``; either may be empty."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


@frozen
class Declarations:
    """Declares under a path prefix. ``b.at("layers.3")`` is the same one scope deeper."""

    blueprint: Blueprint
    prefix: str = ""

    def at(self, name: str) -> Self:
        """The builder of a sub-module."""
        return evolve(self, prefix=join(self.prefix, name))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations."""
        return self.blueprint.dtype

    def matrix(
        self,
        name: str,
        in_features: int,
        parts: Mapping[str, int],
        *,
        experts: int | None = None,
        split: Split | None = None,
        uses: str = "linear",
    ) -> Matrix:
        """Declare a matrix whose parts are stacked along its outputs. ``parts`` maps names beside ``name`` to sizes."""
        path = join(self.prefix, name)
        members = tuple(Part(join(self.prefix, part), size) for part, size in parts.items())
        made = Matrix(path, members, in_features, experts=experts, split=split, uses={uses})
        made = self.blueprint.share.matrix(made)
        return self._declare(self.blueprint.matrices, path, made)

    def param(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        field: str = "weight",
        offset: float = 0.0,
        dtype: torch.dtype | None = None,
        split: Split | None = None,
    ) -> Param:
        """Declare a plain tensor, stored in the checkpoint as ``<path>.<field>`` (``<path>`` if ``field`` is empty)."""
        path = join(self.prefix, name)
        source = self.blueprint.share.source(Source(path, field, shape), split, stacked=False)
        made = Param(join(path, field), (source,), dtype or self.dtype, offset=offset, split=split)
        return self._declare(self.blueprint.params, made.path, made)

    def biases(self, matrix: Matrix) -> Param:
        """Declare the biases of a matrix's parts, side by side: [O], or [X, O] for experts."""
        share, split = self.blueprint.share, matrix.split
        sources = (Source(part.path, "bias", matrix.stored_shape(part)[:-1]) for part in matrix.parts)
        param = Param(
            f"{matrix.path}.bias",
            tuple(share.source(source, split, stacked=matrix.experts is not None) for source in sources),
            self.dtype,
            split=None if split == "in" else split,
            zero=split == "in" and not share.first,
        )
        return self._declare(self.blueprint.params, param.path, param)

    def constant(self, key: object, make: Callable[[], Tensor]) -> Constant:
        """Declare a computed tensor; equal keys share it."""
        return self.blueprint.constants.setdefault(key, Constant(str(key), make))

    def cache(self, spec: CacheSpec) -> CacheSlot:
        """Declare this layer's place in the paged cache."""
        slot = CacheSlot(self.prefix, evolve(spec, dtype=self.blueprint.cache_dtype))
        return self._declare(self.blueprint.caches, slot.path, slot)

    def op(self, op: Op, *weights: Any, name: str = "") -> BoundOp:
        """Declare an op over the given weights."""
        made = BoundOp(op, weights, self.blueprint.runtime, path=join(self.prefix, name or op.name))
        self.blueprint.ops.append(made)
        return made

    @staticmethod
    def _declare(table: dict[str, _Made], path: str, made: _Made) -> _Made:
        if path in table:
            raise PlanError(f"the model declares {path!r} twice")
        table[path] = made
        return made

# SPDX-License-Identifier: Apache-2.0
"""Where declared weights are in a checkpoint.

Answers for a module path which stored tensors carry it, under whatever name, and keeps count of what was asked for, so
that left-over tensors can be named. It reads headers only; data moves when a source's ``read`` is called.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from attrs import define, field, frozen
from torch import Tensor

from tramontane.checkpoint import Checkpoint, TensorRef
from tramontane.schemes import Dense, Fields, Scheme

IGNORED = (re.compile(r"\.rotary_emb\.inv_freq$"), re.compile(r"\.masked_bias$"), re.compile(r"\.attn\.bias$"))
"""Buffers that old checkpoints store and nobody reads."""


class PartSource(Protocol):
    """A matrix of the checkpoint, in one scheme."""

    name: str
    shape: tuple[int, ...]
    scheme: Scheme

    def read(self) -> Fields:
        """Canonical fields; may be views of the file."""
        ...


@frozen
class TensorSource:
    """A plain tensor of the checkpoint."""

    ref: TensorRef

    @property
    def name(self) -> str:
        """Its name there."""
        return self.ref.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape there."""
        return tuple(self.ref.shape)

    def read(self) -> Tensor:
        """Its values; may be a view of the file."""
        return self.ref.read()


@frozen
class DenseSource(TensorSource):
    """A floating-point matrix of the checkpoint."""

    @property
    def scheme(self) -> Scheme:
        """Dense, of the stored type."""
        return Dense(self.ref.dtype)

    def read(self) -> Fields:  # type: ignore[override]
        """See :meth:`PartSource.read`."""
        return {"weight": self.ref.read()}


@define(eq=False)
class Sources:
    """Look-up of one checkpoint's tensors by canonical module path."""

    checkpoint: Checkpoint
    tied: Sequence[tuple[str, str]] = ()
    """Pairs of module paths that share one matrix; the checkpoint may store it under either."""
    _used: set[str] = field(factory=set, init=False)

    def part(self, path: str, shape: tuple[int, ...]) -> PartSource | None:
        """The matrix stored for a module path; ``None`` if there is none."""
        ref = self._ref(path, "weight")
        return None if ref is None else DenseSource(ref)

    def tensor(self, path: str, field: str) -> TensorSource | None:
        """The plain tensor stored for a field of a module; ``None`` if there is none."""
        ref = self._ref(path, field)
        return None if ref is None else TensorSource(ref)

    def wanted(self, path: str, field: str = "weight") -> list[str]:
        """Names that were looked for."""
        return [f"{path}.{field}" if field else path]

    def unused(self) -> list[str]:
        """Tensors that nobody asked for."""
        return sorted(
            name for name in self.checkpoint.tensors
            if name not in self._used and not any(pattern.search(name) for pattern in IGNORED)
        )  # fmt: skip

    def _ref(self, path: str, field: str) -> TensorRef | None:
        twins = [path, *(b for a, b in self.tied if a == path), *(a for a, b in self.tied if b == path)]
        found = None
        for module in twins:
            name = f"{module}.{field}" if field else module
            ref = self.checkpoint.tensors.get(name)
            if ref is not None:
                self._used.add(name)
                found = found or ref
        return found

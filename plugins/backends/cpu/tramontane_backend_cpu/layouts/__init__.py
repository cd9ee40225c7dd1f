# SPDX-License-Identifier: Apache-2.0
"""How weights lie in memory for the native kernels.

A layout has two halves: a C++ file in ``native/kernels/layouts`` that multiplies, and a :class:`StoredPart` here that
fills and unpacks. ``CHOICES`` picks one per part, by scheme and use; the first that accepts wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from tramontane.schemes import Dense, Scheme
from tramontane.weights import Matrix
from tramontane_backend_cpu.layouts.blocks import BlockPart
from tramontane_backend_cpu.layouts.codes import CodePart
from tramontane_backend_cpu.layouts.panels import PanelPart
from tramontane_backend_cpu.layouts.stacked import Shelf, StackedStored
from tramontane_backend_cpu.layouts.stored import NativeStored, Room, StoredPart
from tramontane_backend_cpu.library import empty_bytes

__all__ = ["CHOICES", "NativeStored", "StackedStored", "StoredPart", "store"]


class Choice(Protocol):
    """Makes an empty part in memory that ``room`` gives, or ``None`` if it is not for this scheme."""

    def __call__(
        self, scheme: Scheme, outputs: int, inputs: int, dtype: torch.dtype, room: Room
    ) -> StoredPart | None: ...


CHOICES: Sequence[Choice] = (PanelPart.choose, BlockPart.choose, CodePart.choose)


def store(matrix: Matrix, dtype: torch.dtype) -> NativeStored | StackedStored | None:
    """An empty native storage for a matrix of products or look-ups; ``None`` where some part has no native layout."""
    if matrix.experts is not None:
        return _stack(matrix, matrix.experts, dtype)
    dense = any(isinstance(scheme, Dense) for scheme in matrix.schemes)
    if not matrix.uses & {"linear", "rows", "router"} or ("router" in matrix.uses and not dense):
        return None
    if matrix.uses == {"rows"} and dense:
        return None  # only looked up: plain rows serve, and may stay in the mapped file
    parts = [_part(scheme, part.out_features, matrix.in_features, dtype, empty_bytes)
             for scheme, part in zip(matrix.schemes, matrix.parts, strict=True)]  # fmt: skip
    chosen = [part for part in parts if part is not None]
    return NativeStored(matrix.path, dtype, chosen) if len(chosen) == len(parts) else None


def _stack(matrix: Matrix, experts: int, dtype: torch.dtype) -> StackedStored | None:
    """The same for a stack of matrices: those of one part lie in one piece of memory."""
    stacks = []
    for scheme, part in zip(matrix.schemes, matrix.parts, strict=True):
        shelf = Shelf(experts)
        made = [_part(scheme, part.out_features, matrix.in_features, dtype, shelf) for _ in range(experts)]
        stack = [one for one in made if one is not None]
        if len(stack) < experts:
            return None
        stacks.append(stack)
    return StackedStored(matrix.path, dtype, stacks)


def _part(scheme: Scheme, outputs: int, inputs: int, dtype: torch.dtype, room: Room) -> StoredPart | None:
    for choice in CHOICES:
        made = choice(scheme, outputs, inputs, dtype, room)
        if made is not None:
            return made
    return None

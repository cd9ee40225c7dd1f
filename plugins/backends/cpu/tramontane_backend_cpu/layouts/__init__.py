# SPDX-License-Identifier: Apache-2.0
"""How weights lie in memory for the native kernels.

A layout has two halves: a C++ file in ``native/kernels/layouts`` that multiplies, and a :class:`StoredPart` here that
fills and unpacks. ``CHOICES`` picks one per part, by scheme and use; the first that accepts wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tramontane.schemes import Dense, Scheme
from tramontane.weights import Matrix
from tramontane_backend_cpu.layouts.blocks import BlockPart
from tramontane_backend_cpu.layouts.panels import PanelPart
from tramontane_backend_cpu.layouts.stored import NativeStored, StoredPart

__all__ = ["CHOICES", "NativeStored", "StoredPart", "store"]

Choice = Callable[[Scheme, int, int, torch.dtype], StoredPart | None]
"""``choice(scheme, out_features, in_features, activations' dtype)``: an empty part, or ``None`` if it is not for it."""

CHOICES: Sequence[Choice] = (PanelPart.choose, BlockPart.choose)


def store(matrix: Matrix, dtype: torch.dtype) -> NativeStored | None:
    """An empty native storage for a matrix of products or look-ups; ``None`` where some part has no native layout."""
    if matrix.experts is not None or not matrix.uses & {"linear", "rows"}:
        return None
    if "linear" not in matrix.uses and any(isinstance(scheme, Dense) for scheme in matrix.schemes):
        return None  # only looked up: plain rows serve, and may stay in the mapped file
    parts = [_part(scheme, part.out_features, matrix.in_features, dtype)
             for scheme, part in zip(matrix.schemes, matrix.parts, strict=True)]  # fmt: skip
    chosen = [part for part in parts if part is not None]
    return NativeStored(matrix.path, dtype, chosen) if len(chosen) == len(parts) else None


def _part(scheme: Scheme, outputs: int, inputs: int, dtype: torch.dtype) -> StoredPart | None:
    for choice in CHOICES:
        made = choice(scheme, outputs, inputs, dtype)
        if made is not None:
            return made
    return None

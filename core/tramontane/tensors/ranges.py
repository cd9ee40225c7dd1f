# SPDX-License-Identifier: Apache-2.0
"""Lists of ranges on a logical axis.

Sharding, parts fused on disk, replicated KV heads and partial models are all lists of ranges. This file does the
arithmetic; it knows neither tensors nor files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tramontane.errors import PlanError

Range = tuple[int, int]
"""``(start, stop)`` on a logical axis."""
Ranges = tuple[Range, ...]
"""Ranges in the order in which they are read; they may repeat and need not be sorted."""
AxisRanges = Mapping[str, Ranges]
"""Ranges per logical axis; an axis that is not named is wanted whole."""


def whole(size: int) -> Ranges:
    """The one range that covers an axis of ``size`` elements."""
    return ((0, size),)


def length(ranges: Iterable[Range]) -> int:
    """How many elements the ranges hold together."""
    return sum(stop - start for start, stop in ranges)


def merge(ranges: Iterable[Range]) -> Ranges:
    """The same elements in the same order, with neighbours joined and empty ranges dropped."""
    merged: list[Range] = []
    for start, stop in ranges:
        if start == stop:
            continue
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


def compose(outer: Ranges, inner: Ranges) -> Ranges:
    """Ranges ``inner`` of the axis that ``outer`` selects, as ranges of the axis below.

    ``compose(((10, 20), (40, 50)), ((5, 15),)) == ((15, 20), (40, 45))``.

    Raises:
        PlanError: ``inner`` reaches past what ``outer`` holds.
    """
    pieces: list[Range] = []
    for start, stop in inner:
        if not 0 <= start <= stop <= length(outer):
            raise PlanError(f"the range {start}:{stop} lies outside an axis of {length(outer)} elements")
        before = 0
        for low, high in outer:
            left, right = max(start - before, 0), min(stop - before, high - low)
            if left < right:
                pieces.append((low + left, low + right))
            before += high - low
    return merge(pieces)


def indices(ranges: Ranges) -> Tensor:
    """int64 positions that the ranges name, in order."""
    if not ranges:
        return torch.empty(0, dtype=torch.int64)
    return torch.cat([torch.arange(start, stop) for start, stop in ranges])

# SPDX-License-Identifier: Apache-2.0
"""Logical axes of weights, ranges on them, shards, and reading slices of stored tensors.

The axes are ``expert``, ``out`` and ``in``. This package never looks at module names, formats or devices, and it never
repacks.
"""

from __future__ import annotations

from tramontane.tensors.axes import AXES, Axis, TensorDecl
from tramontane.tensors.ranges import AxisRanges, Range, Ranges, compose, indices, length, merge, whole
from tramontane.tensors.reading import TensorRead, plan_read, read, take
from tramontane.tensors.shard import Cut, Shard, Units, axis_ranges

__all__ = [
    "AXES",
    "Axis",
    "AxisRanges",
    "Cut",
    "Range",
    "Ranges",
    "Shard",
    "TensorDecl",
    "TensorRead",
    "Units",
    "axis_ranges",
    "compose",
    "indices",
    "length",
    "merge",
    "plan_read",
    "read",
    "take",
    "whole",
]

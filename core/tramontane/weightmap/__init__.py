# SPDX-License-Identifier: Apache-2.0
"""Weight maps: how a checkpoint's tensors become the model's, declared once and used in both directions.

Owns reversible renaming, splitting, joining, stacking, transposing, reordering and value maps. It speaks of the logical
axes ``expert``, ``out`` and ``in`` only, so that one map serves dense and quantized weights; it knows no model.
"""

from __future__ import annotations

from tramontane.weightmap.experts import renamed_experts, stacked_experts
from tramontane.weightmap.fused import fused_experts, fused_parts
from tramontane.weightmap.maps import WeightMap, choose, tensor_name
from tramontane.weightmap.pairs import pairs_side_by_side
from tramontane.weightmap.reads import Read
from tramontane.weightmap.rules import (
    Convert,
    Join,
    Permute,
    Rename,
    Rule,
    Spell,
    Split,
    Squeeze,
    Stack,
    Transpose,
    Unsqueeze,
    Unstack,
)
from tramontane.weightmap.sources import Leaf, Source
from tramontane.weightmap.values import LOG_OF_NEGATIVE, ValueMap, plus, times

__all__ = [
    "LOG_OF_NEGATIVE",
    "Convert",
    "Join",
    "Leaf",
    "Permute",
    "Read",
    "Rename",
    "Rule",
    "Source",
    "Spell",
    "Split",
    "Squeeze",
    "Stack",
    "Transpose",
    "Unsqueeze",
    "Unstack",
    "ValueMap",
    "WeightMap",
    "choose",
    "fused_experts",
    "fused_parts",
    "pairs_side_by_side",
    "plus",
    "renamed_experts",
    "stacked_experts",
    "tensor_name",
    "times",
]

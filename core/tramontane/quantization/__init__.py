# SPDX-License-Identifier: Apache-2.0
"""Quantizing while loading: the types that can be asked for, which weights get which, and per-layer rules.

It decides on the plan, before anything is allocated; reading, packing and storing one part at a time stays the filler's
business. It never touches a checkpoint that is quantized already.
"""

from __future__ import annotations

from tramontane.quantization.importance import ImportanceFile, Importances, Statistics, Sums, importances_of
from tramontane.quantization.plan import Organization, Request, quantize_plan
from tramontane.quantization.quantizer import Pack, Quantizer, by_rows
from tramontane.quantization.topology import Topology, read_topology

__all__ = [
    "ImportanceFile",
    "Importances",
    "Organization",
    "Pack",
    "Quantizer",
    "Request",
    "Statistics",
    "Sums",
    "Topology",
    "by_rows",
    "importances_of",
    "quantize_plan",
    "read_topology",
]

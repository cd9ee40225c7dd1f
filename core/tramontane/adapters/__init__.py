# SPDX-License-Identifier: Apache-2.0
"""Adapters: low-rank additions to a model's matrices that each request may choose.

``y[t] += sum over a of mix[t, a] * B_a (A_a x[t])``: the model's own weights stay as they are, however they are stored,
and one batch may use many adapters. Owns the records that kinds of adapter produce, the memory they are kept in, and
which token uses which of them. It reads no file format: that is what plugins of the hook ``adapters`` do.
"""

from __future__ import annotations

from tramontane.adapters.adapter import Adapter, LowRank
from tramontane.adapters.bank import AdapterBank, Piece
from tramontane.adapters.fitting import Fitted, Targets, fit
from tramontane.adapters.mix import Adapted, MixBuffer
from tramontane.adapters.table import AdapterTable, LoadedAdapter, Ready, reference_to

__all__ = [
    "Adapted",
    "Adapter",
    "AdapterBank",
    "AdapterTable",
    "Fitted",
    "LoadedAdapter",
    "LowRank",
    "MixBuffer",
    "Piece",
    "Ready",
    "Targets",
    "fit",
    "reference_to",
]

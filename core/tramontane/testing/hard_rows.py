# SPDX-License-Identifier: Apache-2.0
"""Weights on which quantizers go wrong, if they do."""

from __future__ import annotations

import torch
from torch import Tensor


def hard_rows(rows: int, inputs: int) -> Tensor:
    """At least 9 rows of normal values, of zeros, of tiny, equal, one-sided and large ones: float32 [rows, inputs]."""
    values = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(5)) * 0.05
    values[1] = 0
    values[2, :256] = 0
    values[3] *= 1e-8
    values[4] = 1
    values[5], values[6] = values[5].abs(), -values[6].abs()
    values[7] *= 1e3
    values[8, ::2], values[8, 1::2] = 2, -2
    return values

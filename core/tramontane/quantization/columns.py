# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on groups of weights that stand beside each other, so that torch works on whole rows of groups.

Every operation is exact, or rounded as IEEE 754 says, and sums have an order that is stated: whoever else computes the
same, such as native code, gets the same bits. Legend: G groups, N elements of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALVES_TO_EVEN = 1.5 * 2**23
"""Numbers below 2**22 are rounded by adding it and taking it away; torch's own rounding takes several times as long."""


def columns_of(values: Tensor, size: int) -> Tensor:
    """Elements in groups of ``size``, [.., n] -> [N, G]. No zero is negative, so that none is told from another."""
    return values.reshape(-1, size).t().contiguous() + 0.0


def total(values: Tensor) -> Tensor:
    """Sums down the columns, [N, G] -> [1, G]: the lower half is added to the upper until one row is left. Of an odd
    number the middle row waits."""
    while len(values) > 1:
        half, rest = len(values) // 2, len(values) % 2
        added = values[:half] + values[half + rest :]
        values = torch.cat([added, values[half : half + 1]]) if rest else added
    return values


def rounded(values: Tensor, least: int, most: int) -> Tensor:
    """To the nearest whole number, halves to even, within bounds; NaN becomes the least."""
    return values.add(HALVES_TO_EVEN).sub_(HALVES_TO_EVEN).clamp_(least, most).nan_to_num_(least)


def root(values: Tensor) -> Tensor:
    """Square roots, rounded correctly; those that torch has from MKL are not."""
    return values.double().sqrt().float()

# SPDX-License-Identifier: Apache-2.0
"""IQ4_NL and IQ4_XS: scales fitted over the uneven steps of their table.

For codes that are given, the best scale is a quotient of sums; a ladder of ways to choose codes is tried. Legend:
B blocks, S groups of a block, G groups, N elements of a group.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

import torch
from torch import Tensor

from tramontane.quantization.columns import columns_of, root, rounded, total
from tramontane.schemes.ggml.codec import as_bytes, join_nibbles
from tramontane_quant_gguf.codecs.iq4 import STEPS
from tramontane_quant_gguf.quantizers.fits import TINY, most_extreme, quotient, weighted_sums

TRIES = 7
"""Steps of the ladder on each side."""
GROUP = 32
_MIDDLES = [above + below for below, above in pairwise(STEPS)]
"""Twice the numbers half-way between steps: whole ones, so that floors decide."""
_BOUND = 256
_NEAREST = torch.tensor([bisect_right(_MIDDLES, doubled) for doubled in range(-_BOUND, _BOUND)], dtype=torch.uint8)
"""The code of every floor of twice a number; of two steps as near, the larger."""
_VALUES = torch.tensor(STEPS, dtype=torch.float32)[_NEAREST.long()]


def quantize_iq4_nl(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 32] -> uint8 [B, 18]."""
    columns = columns_of(values, GROUP)
    weights = squares = columns * columns
    if importance is not None:
        weights = _weighed(importance.t(), total(squares) / GROUP, squares)
    scale = _scales(columns, weights)
    return torch.cat([as_bytes(scale.t()), join_nibbles(_codes(columns, quotient(1, scale)))], -1)


def quantize_iq4_xs(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 256] -> uint8 [B, 136]."""
    count, columns = len(values), columns_of(values, GROUP)
    weights = squares = columns * columns
    if importance is not None:
        of_block = total(total(squares).reshape(count, -1).t()) / values.shape[-1]
        mean = of_block.t().expand(count, values.shape[-1] // GROUP).reshape(1, -1)
        weights = _weighed(importance.reshape(-1, GROUP).t(), mean, squares)
    scale = _scales(columns, weights).reshape(count, -1).t()
    factor = most_extreme(scale) / -32
    whole = rounded(scale * quotient(1, factor), -32, 31)
    codes = _codes(columns, quotient(1, (factor * whole).t().reshape(1, -1)))
    six = (whole.t() + 32).to(torch.int32)
    high = ((six >> 4) << torch.arange(0, 16, 2, device=values.device)).sum(-1, dtype=torch.int32)
    low = (six & 15).to(torch.uint8).reshape(-1, 4, 2)
    halves = torch.stack([high & 255, high >> 8], -1).to(torch.uint8)
    packed = [halves, low[..., 0] | (low[..., 1] << 4), join_nibbles(codes).reshape(count, -1)]
    return torch.cat([as_bytes(factor.t()), *packed], -1)


def _weighed(importance: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
    return importance * root(2 * mean + squares)


def _scales(values: Tensor, weights: Tensor) -> Tensor:
    """The best scale of each group [1, G]: first with the extreme value at one end of the table, then near the
    other."""
    extreme = most_extreme(values)
    first = float(STEPS[0])
    scale, best = torch.zeros_like(extreme), torch.zeros_like(extreme)
    steps = _VALUES.to(values.device)
    for inverse in (quotient(-first, extreme), *(quotient(first + step, extreme) for step in range(-TRIES, TRIES + 1))):
        cross, square = weighted_sums(weights, values, _looked_up(steps, values, inverse))
        better = (square > 0) & (cross * cross > best * square)
        found = quotient(cross, square)
        scale, best = torch.where(better, found, scale), torch.where(better, found * cross, best)
    return torch.where(extreme.abs() >= TINY, scale, torch.zeros_like(scale))


def _codes(values: Tensor, inverse: Tensor) -> Tensor:
    """Codes of the nearest steps, uint8 [G, N]."""
    return _looked_up(_NEAREST.to(values.device), values, inverse).t()


def _looked_up(table: Tensor, values: Tensor, inverse: Tensor) -> Tensor:
    """What a table has for each value, by twice the value under the scale."""
    doubled = (values * inverse * 2).floor_().nan_to_num_().clamp_(-_BOUND, _BOUND - 1)
    return table.index_select(0, doubled.to(torch.int32).add_(_BOUND).flatten()).reshape(values.shape)

# SPDX-License-Identifier: Apache-2.0
"""IQ4_NL and IQ4_XS: scales fitted over the uneven steps of their table.

For codes that are given, the best scale is a quotient of sums; a ladder of ways to choose codes is tried. Legend:
B blocks, S groups of a block, G groups, N elements of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes.ggml.codec import as_bytes, join_nibbles, most_extreme
from tramontane_quant_gguf.codecs.iq4 import STEPS
from tramontane_quant_gguf.quantizers.fits import TINY, quotient, rounded, weighted_sums

TRIES = 7
"""Steps of the ladder on each side."""
GROUP = 32


def quantize_iq4_nl(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 32] -> uint8 [B, 18]."""
    scale = _scales(values, _weights(values, importance))
    codes = _codes(values, quotient(1, scale))
    return torch.cat([as_bytes(scale), join_nibbles(codes)], -1)


def quantize_iq4_xs(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 256] -> uint8 [B, 136]."""
    grouped = values.reshape(-1, GROUP)
    scale = _scales(grouped, _weights(values, importance).reshape(grouped.shape)).reshape(len(values), -1)
    factor = most_extreme(scale) / -32
    whole = rounded(scale * quotient(1, factor), -32, 31)
    codes = _codes(grouped, quotient(1, (factor * whole).reshape(-1, 1)))
    six = (whole + 32).to(torch.int32)
    high = ((six >> 4) << torch.arange(0, 16, 2, device=values.device)).sum(-1, dtype=torch.int32)
    low = (six & 15).to(torch.uint8).reshape(-1, 4, 2)
    halves = torch.stack([high & 255, high >> 8], -1).to(torch.uint8)
    return torch.cat(
        [as_bytes(factor), halves, low[..., 0] | (low[..., 1] << 4), join_nibbles(codes).reshape(len(values), -1)], -1
    )


def _weights(values: Tensor, importance: Tensor | None) -> Tensor:
    squares = values * values
    return squares if importance is None else importance * (2 * squares.mean(-1, keepdim=True) + squares).sqrt()


def _scales(values: Tensor, weights: Tensor) -> Tensor:
    """The best scale of each group [G, 1]: first with the extreme value at one end of the table, then near the
    other."""
    extreme = most_extreme(values)
    first = float(STEPS[0])
    scale, best = torch.zeros_like(extreme), torch.zeros_like(extreme)
    for inverse in (quotient(-first, extreme), *(quotient(first + step, extreme) for step in range(-TRIES, TRIES + 1))):
        cross, square = weighted_sums(weights, values, _steps(values)[_codes(values, inverse).long()])
        better = (square > 0) & (cross * cross > best * square)
        found = quotient(cross, square)
        scale, best = torch.where(better, found, scale), torch.where(better, found * cross, best)
    return torch.where(extreme.abs() >= TINY, scale, torch.zeros_like(scale))


def _codes(values: Tensor, inverse: Tensor) -> Tensor:
    """uint8 codes of the nearest steps; of two as near, the larger."""
    steps = _steps(values)
    middles = (steps[1:] + steps[:-1]) / 2
    return torch.bucketize((values * inverse).nan_to_num(), middles, right=True).to(torch.uint8)


def _steps(values: Tensor) -> Tensor:
    return torch.tensor(STEPS, dtype=torch.float32, device=values.device)

# SPDX-License-Identifier: Apache-2.0
"""Q2_K to Q6_K from floats. Layouts are stated beside the functions that unpack them, in the core's schemes.

Every block of 256 is cut into groups; each group gets a scale (and a minimum) by a fit; those are stored as small whole
numbers under one float16 factor of the block; then codes are rounded anew under the scales as they are stored. With
importances (mean squared activations of each input) the fits weigh elements by them, and the factor is fitted too.

Legend: B blocks, S groups of a block, N elements of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from tramontane.quantization.columns import columns_of, root, rounded, total
from tramontane.schemes.ggml.codec import as_bytes, join_nibbles
from tramontane_quant_gguf.quantizers.fits import (
    FINE,
    TINY,
    fit_offset,
    fit_positive,
    fit_signed,
    most_extreme,
    quotient,
    refine_signed,
    steps,
)

BLOCK = 256


def _per_block(per_group: Tensor, blocks: int) -> Tensor:
    """A number per group [1, B * S] as columns of blocks: [S, B]."""
    return per_group.reshape(blocks, -1).t().contiguous()


def _sensitive(values: Tensor, importance: Tensor, factor: float, blocks: int) -> Tensor:
    """Weights [N, B * S]: importances, more for larger elements."""
    squares = values * values
    mean = factor * (total(_per_block(total(squares), blocks)) / BLOCK)
    per_group = mean.t().expand(blocks, values.shape[1] // blocks).reshape(1, -1)
    return importance * root(per_group + squares)


def _planes(codes: Tensor, bits: int) -> Tensor:
    """Codes [.., P, k] below ``2**bits`` -> uint8 [.., k], plane j in the bits from ``j * bits`` up."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device).unsqueeze(-1)
    return (codes.to(torch.uint8) << shifts).sum(-2, dtype=torch.uint8)


# --- Q2_K, Q4_K, Q5_K: scales and minima ------------------------------------------------------------------------------


@frozen
class _Offset:
    """How one of these types is fitted."""

    groups: int
    top: int
    scale_top: int
    """Largest stored scale."""
    ladder: Sequence[float]
    by_magnitude: bool
    """Without importances elements weigh by their magnitude (and errors count absolutely), else rather evenly."""
    spread: float
    """With importances: how much the mean square of the block counts."""


Q2 = _Offset(16, 3, 15, steps(-0.5, 0.1, 16), True, 1.0)
Q4 = _Offset(8, 15, 63, steps(-1.0, 0.1, 21), False, 2.0)
Q5 = _Offset(8, 31, 63, steps(-0.5, 0.1, 16), False, 2.0)


@frozen
class _Stored:
    """What a block stores: codes [B, S, N], whole scales and minima [B, S], their factors [B, 1]."""

    codes: Tensor
    scales: Tensor
    lows: Tensor
    factor: Tensor
    low_factor: Tensor


def _fit_offset(values: Tensor, kind: _Offset, importance: Tensor | None) -> _Stored:
    count, size = values.shape[0], BLOCK // kind.groups
    grouped = columns_of(values, size)
    if importance is None:
        spread = 0 if kind.by_magnitude else root(total(grouped * grouped) / size)
        fit = fit_offset(grouped, kind.top, spread + grouped.abs(), kind.ladder, absolute=kind.by_magnitude)
        scales, factor = _whole(fit.scale.reshape(count, -1), kind.scale_top)
        lows, low_factor = _whole(fit.low.reshape(count, -1), kind.scale_top)
    else:
        weights = _sensitive(grouped, columns_of(importance, size), kind.spread, count)
        fit = fit_offset(grouped, kind.top, weights, FINE)
        per_group = _per_block(total(weights), count)
        fits = [fit_positive(_per_block(each, count), kind.scale_top, per_group) for each in (fit.scale, fit.low)]
        (scales, factor), (lows, low_factor) = ((each.codes.t(), each.scale.t()) for each in fits)
    unit, base = (_as_stored(factor) * scales).reshape(1, -1), (_as_stored(low_factor) * lows).reshape(1, -1)
    codes = torch.where(unit != 0, rounded((grouped + base) / unit, 0, kind.top), fit.codes)
    codes = codes.t().reshape(count, kind.groups, size)
    return _Stored(codes, scales.to(torch.uint8), lows.to(torch.uint8), factor, low_factor)


def _whole(values: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Values [B, S] that are not below zero, as whole numbers whose largest is ``top``, and the factor [B, 1]."""
    high = values.amax(-1, keepdim=True).clamp(min=0)
    return rounded(values * quotient(top, high), 0, top), high / top


def _as_stored(factor: Tensor) -> Tensor:
    return factor.to(torch.float16).to(torch.float32)


def _six_bits(stored: _Stored) -> Tensor:
    """Scales and minima of Q4_K and Q5_K in 12 bytes."""
    (low_scales, high_scales), (low_lows, high_lows) = stored.scales.chunk(2, -1), stored.lows.chunk(2, -1)
    first = low_scales | ((high_scales >> 4) << 6)
    second = low_lows | ((high_lows >> 4) << 6)
    return torch.cat([first, second, (high_scales & 15) | ((high_lows & 15) << 4)], -1)


def quantize_q2_k(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 256] -> uint8 [B, 84]."""
    stored = _fit_offset(values, Q2, importance)
    codes = _planes(stored.codes.reshape(-1, 2, 4, 32), 2).flatten(1)
    scales = stored.scales | (stored.lows << 4)
    return torch.cat([scales, codes, as_bytes(stored.factor), as_bytes(stored.low_factor)], -1)


def quantize_q4_k(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 256] -> uint8 [B, 144]."""
    stored = _fit_offset(values, Q4, importance)
    codes = join_nibbles(stored.codes.to(torch.uint8).reshape(-1, 4, 64)).flatten(1)
    return torch.cat([as_bytes(stored.factor), as_bytes(stored.low_factor), _six_bits(stored), codes], -1)


def quantize_q5_k(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 256] -> uint8 [B, 176]."""
    stored = _fit_offset(values, Q5, importance)
    codes = stored.codes.to(torch.uint8).reshape(-1, 8, 32)
    low = join_nibbles((codes & 15).reshape(-1, 4, 64)).flatten(1)
    high = _planes(codes >> 4, 1)
    return torch.cat([as_bytes(stored.factor), as_bytes(stored.low_factor), _six_bits(stored), high, low], -1)


# --- Q3_K, Q6_K: signed scales ----------------------------------------------------------------------------------------


def quantize_q3_k(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 256] -> uint8 [B, 110]."""
    grouped, count = columns_of(values, 16), values.shape[0]
    if importance is None:
        fit = refine_signed(grouped, 4)
        scale = _per_block(fit.scale, count)
        inverse = quotient(-32, most_extreme(scale))
        scales, factor = rounded(scale * inverse, -32, 31).t(), quotient(1, inverse).t()
    else:
        weights = _sensitive(grouped, columns_of(importance, 16), 2.0, count)
        fit = fit_signed(grouped, 4, weights)
        outer = fit_signed(_per_block(fit.scale, count), 32, _per_block(total(weights), count))
        scales, factor = outer.codes.t(), outer.scale.t()
    codes = _recoded(grouped, fit.codes, _as_stored(factor) * scales, 4)
    six, eight = (scales + 32).to(torch.uint8), (codes + 4).to(torch.uint8)
    low = join_nibbles(six & 15)
    high = _planes((six >> 4).reshape(-1, 4, 4), 2)
    two = _planes((eight & 3).reshape(-1, 2, 4, 32), 2).flatten(1)
    third = _planes((eight >> 2).reshape(-1, 8, 32), 1)
    return torch.cat([third, two, low, high, as_bytes(factor)], -1)


def quantize_q6_k(values: Tensor, importance: Tensor | None = None) -> Tensor:
    """float32 [B, 256] -> uint8 [B, 210]."""
    grouped, count = columns_of(values, 16), values.shape[0]
    fit = fit_signed(grouped, 32, grouped * grouped if importance is None else columns_of(importance, 16))
    scale = _per_block(fit.scale, count)
    extreme = most_extreme(scale)
    inverse = quotient(-128, extreme)
    scales, factor = rounded(scale * inverse, -128, 127).t(), quotient(1, inverse).t()
    six = (_recoded(grouped, fit.codes, _as_stored(factor) * scales, 32) + 32).to(torch.uint8)
    low = join_nibbles((six & 15).reshape(-1, 2, 128)).flatten(1)
    high = _planes((six >> 4).reshape(-1, 2, 4, 32), 2).flatten(1)
    blocks = torch.cat([low, high, scales.to(torch.int8).view(torch.uint8), as_bytes(factor)], -1)
    return torch.where(extreme.t().abs() >= TINY, blocks, torch.zeros_like(blocks))


def _recoded(values: Tensor, codes: Tensor, unit: Tensor, top: int) -> Tensor:
    """Codes [N, B * S] rounded anew under the scales [B, S] as they are stored: [B, 256]."""
    per_group = unit.reshape(1, -1)
    found = torch.where(per_group != 0, rounded(values / per_group, -top, top - 1), codes)
    return found.t().reshape(-1, BLOCK)

# SPDX-License-Identifier: Apache-2.0
"""Scales (and minima) under which whole numbers stand best for the values of a group, by weighted squares.

For codes that are given, the best scale is a quotient of sums. So each fit tries a ladder of ways to round, takes the
best scale for each, and keeps the codes with the least error. Ladders are those of ggml's reference quantizers, so that
results agree with them up to the order of sums. Elements of a group lie below each other, and sums have
an order that is stated (:mod:`tramontane.quantization.columns`). Legend: G groups, N elements of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from tramontane.quantization.columns import rounded, total

TINY = 1e-15
"""Groups whose values are all smaller are taken for zero."""


@frozen
class Fit:
    """Codes [N, G] as float32, and per group a scale [1, G] and what is subtracted [1, G]."""

    codes: Tensor
    scale: Tensor
    low: Tensor


def quotient(above: float | Tensor, below: Tensor) -> Tensor:
    """A true quotient, 0 where ``below`` is. Torch makes a number over a tensor a product with the reciprocal, whose
    last bit decides ties."""
    numerator = above if isinstance(above, Tensor) else torch.full_like(below, above)
    return torch.where(below == 0, torch.zeros_like(below), numerator / below)


def steps(first: float, step: float, count: int) -> tuple[float, ...]:
    """``first``, ``first + step`` ... computed in float32, as ggml does."""
    return tuple(float(np.float32(first) + np.float32(step) * np.float32(number)) for number in range(count))


def _more(top: int, step: float) -> float:
    return float(np.float32(step) + np.float32(top))


FINE = steps(-0.9, 0.05, 37)
"""Tries for minima where importances are known."""
TENTHS = tuple(float(np.float32(0.1) * np.float32(number)) for number in range(-9, 10) if number)


def most_extreme(values: Tensor) -> Tensor:
    """The value of largest magnitude of each group, [N, G] -> [1, G]; the first of equals."""
    best, largest = values[:1], values[:1].abs()
    for row, size in zip(values[1:].split(1), values[1:].abs().split(1), strict=True):
        larger = size > largest
        best, largest = torch.where(larger, row, best), torch.where(larger, size, largest)
    return best


def weighted_sums(weights: Tensor, values: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """``sum(w x l)`` and ``sum(w l l)`` per group."""
    weighted = weights * codes
    return total(weighted * values), total(weighted * codes)


def fit_signed(values: Tensor, top: int, weights: Tensor) -> Fit:
    """Codes from ``-top`` to ``top - 1`` around zero: ``x = scale * code``.

    The value of largest magnitude becomes ``-top``, give or take nine tenths of a step.
    """
    extreme = most_extreme(values)
    inverse = quotient(-top, extreme)
    cross, square = weighted_sums(weights, values, rounded(values * inverse, -top, top - 1))
    scale = quotient(cross, square)
    best = scale * cross
    for tenths in TENTHS:
        tried = quotient(-_more(top, tenths), extreme)
        cross, square = weighted_sums(weights, values, rounded(values * tried, -top, top - 1))
        better = (square > 0) & (cross * cross > best * square)
        found = quotient(cross, square)
        inverse, scale = torch.where(better, tried, inverse), torch.where(better, found, scale)
        best = torch.where(better, found * cross, best)
    return _signed(rounded(values * inverse, -top, top - 1), scale, extreme, top)


def _signed(codes: Tensor, scale: Tensor, extreme: Tensor, top: int) -> Fit:
    """A fit around zero; groups of next to nothing have no scale."""
    kept, nothing = extreme.abs() >= TINY, torch.zeros_like(scale)
    return Fit(torch.where(kept, codes, torch.full_like(codes, -top)), torch.where(kept, scale, nothing), nothing)


def refine_signed(values: Tensor, top: int) -> Fit:
    """As :func:`fit_signed`, weighted by the squared values: from one rounding, codes are changed one at a time."""
    extreme = most_extreme(values)
    codes, cross, square = _refined(values, values * values, quotient(-top, extreme), (-top, top - 1))
    return _signed(codes, quotient(cross, square), extreme, top)


def _refined(
    values: Tensor, weights: Tensor, inverse: Tensor, bounds: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes by rounding, then improved until none changes, but five times at most; and their weighted sums."""
    codes = rounded(values * inverse, *bounds)
    cross, square = weighted_sums(weights, values, codes)
    for _ in range(5):
        before = codes
        codes, cross, square = _improve(values, codes, weights, cross, square, bounds)
        if torch.equal(before, codes):
            break
    return codes, cross, square


def _improve(
    values: Tensor, codes: Tensor, weights: Tensor, cross: Tensor, square: Tensor, bounds: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """One round over all elements: each takes the code that is best with the others as they are."""
    rows = list(codes.split(1))
    for place, (x, w, code) in enumerate(zip(values.split(1), weights.split(1), tuple(rows), strict=True)):
        cross_rest, square_rest = cross - w * x * code, square - w * code * code
        tried = rounded(x * square_rest / cross_rest, *bounds)
        new_cross, new_square = cross_rest + w * x * tried, square_rest + w * tried * tried
        better = (cross_rest > 0) & (tried != code) & (new_square > 0)
        better &= new_cross * new_cross * square > cross * cross * new_square
        rows[place] = torch.where(better, tried, code)
        cross, square = torch.where(better, new_cross, cross), torch.where(better, new_square, square)
    return torch.cat(rows), cross, square


def fit_offset(values: Tensor, top: int, weights: Tensor, ladder: Sequence[float], *, absolute: bool = False) -> Fit:
    """Codes from 0 to ``top`` over a minimum that is not above zero: ``x = scale * code - low``.

    Args:
        values, weights: [N, G].
        top: Largest code.
        ladder: How many codes more (or fewer) than ``top`` the range is divided by; one try each.
        absolute: Compare absolute errors instead of squared ones.
    """
    high, low = values.amax(0, keepdim=True), values.amin(0, keepdim=True).clamp(max=0)
    flat = high <= low
    weight, mean = total(weights), total(weights * values)
    inverse, base = quotient(top, high - low), low
    scale = quotient(1, inverse)
    least = _error(values, weights, rounded((values - low) * inverse, 0, top), scale, low, absolute)
    for step in ladder:
        tried = quotient(_more(top, step), high - low)
        codes = rounded((values - low) * tried, 0, top)
        weighted = weights * codes
        level, cross, square = total(weighted), total(weighted * values), total(weighted * codes)
        determinant = weight * square - level * level
        new_scale = (weight * cross - mean * level) / determinant
        new_low = (square * mean - level * cross) / determinant
        above = new_low > 0
        new_scale = torch.where(above, quotient(cross, square), new_scale)
        new_low = torch.where(above, torch.zeros_like(new_low), new_low)
        error = _error(values, weights, codes, new_scale, new_low, absolute)
        better = (determinant > 0) & (error < least) & ~flat
        inverse, base = torch.where(better, tried, inverse), torch.where(better, low, base)
        scale, low = torch.where(better, new_scale, scale), torch.where(better, new_low, low)
        least = torch.where(better, error, least)
    return Fit(rounded((values - base) * inverse, 0, top), scale, 0 - low)


def _error(values: Tensor, weights: Tensor, codes: Tensor, scale: Tensor, low: Tensor, absolute: bool) -> Tensor:
    difference = scale * codes + low - values
    size = difference.abs() if absolute else difference * difference
    return total(weights * size)


def fit_positive(values: Tensor, top: int, weights: Tensor) -> Fit:
    """Codes from 0 to ``top`` for values that are not below zero (the scales of a block): ``x = scale * code``."""
    high = values.amax(0, keepdim=True)
    kept = high >= TINY
    inverse = quotient(top, high)
    least = _rounding_error(values, weights, inverse, top)
    for tenths in TENTHS[5:13]:
        tried = quotient(_more(top, tenths), high)
        error = _rounding_error(values, weights, tried, top)
        inverse, least = torch.where(error < least, tried, inverse), torch.minimum(error, least)
    codes, cross, square = _refined(values, weights, inverse, (0, top))
    nothing = torch.zeros_like(cross)
    return Fit(codes, torch.where(kept, quotient(cross, square), nothing), nothing)


def _rounding_error(values: Tensor, weights: Tensor, inverse: Tensor, top: int) -> Tensor:
    difference = values - quotient(1, inverse) * rounded(values * inverse, 0, top)
    return total(weights * difference * difference)

# SPDX-License-Identifier: Apache-2.0
"""Scales (and minima) under which whole numbers stand best for the values of a group, by weighted squares.

For codes that are given, the best scale is a quotient of sums. So each fit tries a ladder of ways to round, takes the
best scale for each, and keeps the codes with the least error. Ladders are those of ggml's reference quantizers, so that
results agree with them up to the order of sums.

Legend: G groups, N elements of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from tramontane.schemes.ggml.codec import most_extreme

TINY = 1e-15
"""Groups whose values are all smaller are taken for zero."""


@frozen
class Fit:
    """Codes [G, N] as float32, and per group a scale [G, 1] and what is subtracted [G, 1]."""

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


def rounded(values: Tensor, least: int, most: int) -> Tensor:
    """To the nearest whole number, halves to even, within bounds; NaN becomes the least."""
    return values.round().clamp(least, most).nan_to_num(least)


def weighted_sums(weights: Tensor, values: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """``sum(w x l)`` and ``sum(w l l)`` per group."""
    weighted = weights * codes
    return (weighted * values).sum(-1, keepdim=True), (weighted * codes).sum(-1, keepdim=True)


def fit_signed(values: Tensor, top: int, weights: Tensor) -> Fit:
    """Codes from ``-top`` to ``top - 1`` around zero: ``x = scale * code``.

    The value of largest magnitude becomes ``-top``, give or take nine tenths of a step.
    """
    extreme = most_extreme(values)
    kept = extreme.abs() >= TINY
    codes = rounded(values * quotient(-top, extreme), -top, top - 1)
    cross, square = weighted_sums(weights, values, codes)
    scale = quotient(cross, square)
    best = scale * cross
    for tenths in TENTHS:
        tried = rounded(values * quotient(-_more(top, tenths), extreme), -top, top - 1)
        cross, square = weighted_sums(weights, values, tried)
        better = (square > 0) & (cross * cross > best * square)
        found = quotient(cross, square)
        codes, scale = torch.where(better, tried, codes), torch.where(better, found, scale)
        best = torch.where(better, found * cross, best)
    nothing = torch.zeros_like(scale)
    return Fit(torch.where(kept, codes, torch.full_like(codes, -top)), torch.where(kept, scale, nothing), nothing)


def refine_signed(values: Tensor, top: int) -> Fit:
    """As :func:`fit_signed`, weighted by the squared values: from one rounding, codes are changed one at a time."""
    extreme = most_extreme(values)
    kept = extreme.abs() >= TINY
    codes = rounded(values * quotient(-top, extreme), -top, top - 1)
    weights = values * values
    cross, square = weighted_sums(weights, values, codes)
    for _ in range(5):
        before = codes
        codes, cross, square = _improve(values, codes, weights, cross, square, (-top, top - 1))
        if torch.equal(before, codes):
            break
    nothing = torch.zeros_like(cross)
    scale = torch.where(kept, quotient(cross, square), nothing)
    return Fit(torch.where(kept, codes, torch.full_like(codes, -top)), scale, nothing)


def _improve(
    values: Tensor, codes: Tensor, weights: Tensor, cross: Tensor, square: Tensor, bounds: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """One round over all elements: each takes the code that is best with the others as they are."""
    columns = list(codes.split(1, -1))
    for place, code in enumerate(columns):
        x, w = values[:, place : place + 1], weights[:, place : place + 1]
        cross_rest, square_rest = cross - w * x * code, square - w * code * code
        tried = rounded(x * square_rest / cross_rest, *bounds)
        new_cross, new_square = cross_rest + w * x * tried, square_rest + w * tried * tried
        better = (cross_rest > 0) & (tried != code) & (new_square > 0)
        better &= new_cross * new_cross * square > cross * cross * new_square
        columns[place] = torch.where(better, tried, code)
        cross, square = torch.where(better, new_cross, cross), torch.where(better, new_square, square)
    return torch.cat(columns, -1), cross, square


def fit_offset(values: Tensor, top: int, weights: Tensor, ladder: Sequence[float], *, absolute: bool = False) -> Fit:
    """Codes from 0 to ``top`` over a minimum that is not above zero: ``x = scale * code - low``.

    Args:
        values, weights: [G, N].
        top: Largest code.
        ladder: How many codes more (or fewer) than ``top`` the range is divided by; one try each.
        absolute: Compare absolute errors instead of squared ones.
    """
    high, low = values.amax(-1, keepdim=True), values.amin(-1, keepdim=True).clamp(max=0)
    flat = high <= low
    weight, mean = weights.sum(-1, keepdim=True), (weights * values).sum(-1, keepdim=True)
    inverse = quotient(top, high - low)
    scale = quotient(1, inverse)
    codes = rounded((values - low) * inverse, 0, top)
    least = _error(values, weights, codes, scale, low, absolute)
    for step in ladder:
        tried = rounded((values - low) * quotient(_more(top, step), high - low), 0, top)
        cross, square = weighted_sums(weights, values, tried)
        total = (weights * tried).sum(-1, keepdim=True)
        determinant = weight * square - total * total
        new_scale, new_low = (
            (weight * cross - mean * total) / determinant,
            (square * mean - total * cross) / determinant,
        )
        above = new_low > 0
        new_scale = torch.where(above, quotient(cross, square), new_scale)
        new_low = torch.where(above, torch.zeros_like(new_low), new_low)
        error = _error(values, weights, tried, new_scale, new_low, absolute)
        better = (determinant > 0) & (error < least) & ~flat
        codes, least = torch.where(better, tried, codes), torch.where(better, error, least)
        scale, low = torch.where(better, new_scale, scale), torch.where(better, new_low, low)
    return Fit(codes, scale, -low)


def _error(values: Tensor, weights: Tensor, codes: Tensor, scale: Tensor, low: Tensor, absolute: bool) -> Tensor:
    difference = scale * codes + low - values
    size = difference.abs() if absolute else difference * difference
    return (weights * size).sum(-1, keepdim=True)


def fit_positive(values: Tensor, top: int, weights: Tensor) -> Fit:
    """Codes from 0 to ``top`` for values that are not below zero (the scales of a block): ``x = scale * code``."""
    high = values.amax(-1, keepdim=True)
    kept = high >= TINY
    inverse = quotient(top, high)
    least = _rounding_error(values, weights, inverse, top)
    for tenths in TENTHS[5:13]:
        tried = quotient(_more(top, tenths), high)
        error = _rounding_error(values, weights, tried, top)
        inverse, least = torch.where(error < least, tried, inverse), torch.minimum(error, least)
    codes = rounded(values * inverse, 0, top)
    cross, square = weighted_sums(weights, values, codes)
    for _ in range(5):
        before = codes
        codes, cross, square = _improve(values, codes, weights, cross, square, (0, top))
        if torch.equal(before, codes):
            break
    nothing = torch.zeros_like(cross)
    return Fit(codes, torch.where(kept, quotient(cross, square), nothing), nothing)


def _rounding_error(values: Tensor, weights: Tensor, inverse: Tensor, top: int) -> Tensor:
    difference = values - quotient(1, inverse) * rounded(values * inverse, 0, top)
    return (weights * difference * difference).sum(-1, keepdim=True)

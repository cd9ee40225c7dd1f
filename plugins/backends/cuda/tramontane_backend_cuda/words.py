# SPDX-License-Identifier: Apache-2.0
"""Scales of a tile as words, read a tile ahead.

Scales that lie side by side in memory are one load of up to 64 bits for each output, and stay as they are stored until
a piece takes its own: the conversion to float32 shifts for nothing.

Names of tiles: n outputs [N], k the first input of a tile or of a piece.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.decode import load_scales, scales_of, super_factors


@triton.jit
def load_word(at, COUNT: tl.constexpr):
    """COUNT neighbouring numbers at each of the pointers ``at`` as a word of 64 bits at most; one as it is."""
    BITS: tl.constexpr = at.dtype.element_ty.primitive_bitwidth * COUNT
    if COUNT == 1:
        word = tl.load(at)
    elif BITS == 16:
        word = tl.load(at.to(tl.pointer_type(tl.int16), bitcast=True))
    elif BITS == 32:
        word = tl.load(at.to(tl.pointer_type(tl.int32), bitcast=True))
    else:
        word = tl.load(at.to(tl.pointer_type(tl.int64), bitcast=True))
    return word


@triton.jit
def word_part(word, place: tl.constexpr, kind: tl.constexpr, COUNT: tl.constexpr):
    """The number at this place of words, in its own type."""
    BITS: tl.constexpr = kind.primitive_bitwidth
    if COUNT == 1:
        part = word
    elif BITS == 8:
        part = (word >> (place * BITS)).to(tl.int8).to(kind, bitcast=True)
    elif BITS == 16:
        part = (word >> (place * BITS)).to(tl.int16).to(kind, bitcast=True)
    else:
        part = (word >> (place * BITS)).to(tl.int32).to(kind, bitcast=True)
    return part


@triton.jit
def load_words(scale, zero, SCALE: tl.constexpr, ZERO: tl.constexpr, COUNT: tl.constexpr):
    """The words at these pointers to scales, and to zero points, offsets or minima. What a layout does not have is the
    scales once more."""
    raw = load_word(scale, COUNT)
    raw_zero = raw
    if ZERO == "code" or ZERO == "offset" or (ZERO == "low" and SCALE != "nibbles"):
        raw_zero = load_word(zero, COUNT)
    return raw, raw_zero


@triton.jit
def tile_scales(
    scale, zero, factor, low_factor, n, k, groups, supers, SCALE: tl.constexpr, ZERO: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, SUPERS: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """What the tile that begins with input ``k`` needs beside its codes, as it is stored: words of COUNT scales and
    minima (COUNT 0: pieces load their own, ``n`` stands for them), and the factors of its block."""
    above, below = super_factors(factor, low_factor, n, k, n >= 0, supers, ZERO, SUPERS)
    raw, raw_zero = n, n
    if COUNT > 0:
        at = n // ROWS * groups + k // GROUP
        raw, raw_zero = load_words(scale + at, zero + at, SCALE, ZERO, COUNT)
    return raw, raw_zero, above, below


@triton.jit
def piece_scales(
    raw, raw_zero, above, below, scale, zero, n, k, inside, groups, PLACE: tl.constexpr, SCALE: tl.constexpr,
    ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr, SUPERS: tl.constexpr,
    COUNT: tl.constexpr,
):  # fmt: skip
    """Scale and shift [N] of the piece that begins with input ``k``, the group number PLACE of its tile, from what
    :func:`tile_scales` gave."""
    if COUNT > 0:
        some = word_part(raw, PLACE, scale.dtype.element_ty, COUNT)
        some_zero = word_part(raw_zero, PLACE, zero.dtype.element_ty, COUNT)
    else:
        some, some_zero = load_scales(scale, zero, n, k + n * 0, inside, groups, SCALE, ZERO, GROUP, ROWS)
    return scales_of(some, some_zero, above, below, SCALE, ZERO, MIDDLE, SUPERS)

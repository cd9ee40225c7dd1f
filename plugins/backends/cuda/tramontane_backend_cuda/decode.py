# SPDX-License-Identifier: Apache-2.0
"""Device functions: weights from planes, and activation functions.

Names of tiles: n outputs [BN, 1], c chunks [1, BG], the lanes of a chunk a third axis. Every thread holds whole chunks:
what a chunk's codes are multiplied and summed with stays inside the thread, and scales are applied to the sums.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.entries import e4m3_to_float


@triton.jit
def read_chunks(
    codes, high, n, c, chunks, inside, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The bytes (or numbers) of chunks, and the bytes that hold their high bits: [BN, BG, LANES] each."""
    lane = tl.arange(0, LANES)[None, None, :]
    at = (n.to(tl.int64) * chunks + c)[:, :, None]
    raw = tl.load(codes + at * LANES + lane, mask=inside[:, :, None], other=0)
    upper = raw
    if HIGH > 0:
        size: tl.constexpr = LANES // LOW * HIGH
        upper = tl.load(high + at * size + lane % size, mask=inside[:, :, None], other=0)
    return raw, upper


@triton.jit
def code_values(
    raw, upper, table, j: tl.constexpr, CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """What the codes ``j`` of the bytes mean, without scale: float32 [BN, BG, LANES]."""
    if CODES == "dense":
        return raw.to(tl.float32)
    if CODES == "i8":
        return raw.to(tl.int8, bitcast=True).to(tl.float32)
    if CODES == "e4m3":
        return e4m3_to_float(raw)
    if CODES == "e5m2":  # the upper byte of a float16
        return (raw.to(tl.uint16) << 8).to(tl.float16, bitcast=True).to(tl.float32)
    code = raw.to(tl.int32)
    if CODES == "bits":
        code = (code >> (j * LOW)) & ((1 << LOW) - 1)
        if HIGH > 0:
            size: tl.constexpr = LANES // LOW * HIGH
            shift = (tl.arange(0, LANES)[None, None, :] // size * (8 // LOW) + j) * HIGH
            code = code | (((upper.to(tl.int32) >> shift) & ((1 << HIGH) - 1)) << LOW)
    if TABLE == "look":
        return tl.load(table + code)
    if TABLE == "e2m1":  # a float16 whose exponent is 14 too low
        bits = ((code & 8) << 12) | ((code & 7) << 9)
        return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) * 16384.0
    return (code | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0  # 2**23 + code, without a conversion


@triton.jit
def super_factors(factor, low_factor, n, k, inside, supers, ZERO: tl.constexpr, SUPERS: tl.constexpr):
    """What scales and minima of the groups around the inputs ``k`` are multiplied with, as stored; shaped as ``n`` and
    ``k``."""
    above = n * 0 + k * 0 + 1.0
    below = above
    if SUPERS >= 0:
        place = n * supers + k * 0
        if SUPERS > 0:
            place = n * supers + k // SUPERS
        above = tl.load(factor + place, mask=inside, other=0.0)
        if ZERO == "low":
            below = tl.load(low_factor + place, mask=inside, other=0.0)
    return above, below


@triton.jit
def load_scales(
    scale, zero, n, k, inside, groups, SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Scales, and zero points, offsets or minima, as they are stored, of the groups in which the inputs ``k`` lie, for
    the outputs ``n``. What a layout does not have is the scale once more."""
    at = n // ROWS * groups + k * 0
    if GROUP > 0:
        at = n // ROWS * groups + k // GROUP
    raw = tl.load(scale + at, mask=inside, other=0)
    raw_zero = raw
    if ZERO == "code" or ZERO == "offset" or (ZERO == "low" and SCALE != "nibbles"):
        raw_zero = tl.load(zero + at, mask=inside, other=0)
    return raw, raw_zero


@triton.jit
def scales_of(
    raw, raw_zero, above, below, SCALE: tl.constexpr, ZERO: tl.constexpr, MIDDLE: tl.constexpr, SUPERS: tl.constexpr,
):  # fmt: skip
    """Scale and shift of what :func:`load_scales` gave; ``above`` and ``below`` are those of :func:`super_factors`."""
    if SCALE == "e8m0":
        bits = raw.to(tl.int32)
        each = tl.where(bits == 0, 0x400000, bits << 23).to(tl.float32, bitcast=True)
    elif SCALE == "e4m3":
        each = e4m3_to_float(raw)
    elif SCALE == "nibbles":
        each = (raw & 15).to(tl.float32)
    else:
        each = raw.to(tl.float32)
    if SUPERS >= 0:
        each = each * above
    shift = each * -MIDDLE
    if ZERO == "code":
        shift = -each * raw_zero.to(tl.float32)
    elif ZERO == "offset":
        shift = raw_zero.to(tl.float32)
    elif ZERO == "low":
        if SCALE == "nibbles":
            least = (raw >> 4).to(tl.float32)
        else:
            least = raw_zero.to(tl.float32)
        shift = -least * below
    return each, shift


@triton.jit
def group_scales(
    scale, zero, above, below, n, k, inside, groups,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr,
):  # fmt: skip
    """Scale and shift of the groups in which the inputs ``k`` lie, for the outputs ``n``; ``above`` and ``below`` are
    theirs by :func:`super_factors`."""
    raw, raw_zero = load_scales(scale, zero, n, k, inside, groups, SCALE, ZERO, GROUP, ROWS)
    return scales_of(raw, raw_zero, above, below, SCALE, ZERO, MIDDLE, SUPERS)


@triton.jit
def activation(x, ACT: tl.constexpr):
    """An activation function on float32; the names are those of ``FUNCTIONS``."""
    if ACT == "silu":
        return x * tl.sigmoid(x)
    if ACT == "gelu":
        return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))
    if ACT == "gelu_tanh":  # 0.5 (1 + tanh z) = sigmoid(2 z)
        return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    if ACT == "relu":
        return tl.maximum(x, 0.0)
    if ACT == "relu2":
        return tl.maximum(x, 0.0) * tl.maximum(x, 0.0)
    return tl.sigmoid(x)


FUNCTIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "sigmoid": "sigmoid",
}
"""Activation functions by the names that ops use."""

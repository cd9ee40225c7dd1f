# SPDX-License-Identifier: Apache-2.0
"""Device functions: weights from planes, and activation functions.

Names of tiles: n outputs [BN, 1], k inputs [1, BK].
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scaled(
    code, scale, zero, factor, low_factor, n, k, inside, groups, supers,
    RULE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """Weights of codes, float32 [BN, BK]: see ``Form.rule``. ``supers``: factors of a row, one per 256 inputs."""
    row = n * 0
    if ROWS > 0:
        row = n // ROWS
    at = row * groups + k * 0
    if GROUP > 0:
        at = row * groups + k // GROUP
    value = code - MIDDLE
    each = tl.load(scale + at, mask=inside, other=0).to(tl.float32)
    if RULE == "super":
        place = row * supers + k // 256
        each = each * tl.load(factor + place, mask=inside, other=0.0).to(tl.float32)
        value = value * each
        if LOW:
            least = tl.load(zero + at, mask=inside, other=0).to(tl.float32)
            value = value - least * tl.load(low_factor + place, mask=inside, other=0.0).to(tl.float32)
    elif RULE == "zero":
        value = (value - tl.load(zero + at, mask=inside, other=0).to(tl.float32)) * each
    elif RULE == "offset":
        value = value * each + tl.load(zero + at, mask=inside, other=0).to(tl.float32)
    else:
        value = value * each
    return tl.where(inside, value, 0.0)


@triton.jit
def codes_whole(codes, n, k, inputs, inside, CODES: tl.constexpr):
    """Codes of a byte each, or dense weights, as float32 [BN, BK]."""
    raw = tl.load(codes + n.to(tl.int64) * inputs + k, mask=inside, other=0)
    if CODES == "i8":
        return raw.to(tl.int8, bitcast=True).to(tl.float32)
    if CODES == "e5m2":  # the upper byte of a float16
        return (raw.to(tl.uint16) << 8).to(tl.float16, bitcast=True).to(tl.float32)
    if CODES == "e4m3":  # a float16 with the exponent 8 too low
        bits = ((raw.to(tl.uint16) & 128) << 8) | ((raw.to(tl.uint16) & 127) << 7)
        return bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return raw.to(tl.float32)


@triton.jit
def codes_pair(codes, high, n, pair, inputs, inside, CODES: tl.constexpr):
    """The codes of the inputs ``2 * pair`` and ``2 * pair + 1``, as float32 [BN, BK] each."""
    raw = tl.load(codes + n.to(tl.int64) * ((inputs + 1) // 2) + pair, mask=inside, other=0).to(tl.int32)
    first, second = raw & 15, raw >> 4
    if CODES == "u6":
        upper = tl.load(high + n.to(tl.int64) * ((inputs + 3) // 4) + pair // 2, mask=inside, other=0).to(tl.int32)
        upper = upper >> ((pair % 2) * 4)
        first, second = first | ((upper & 3) << 4), second | (((upper >> 2) & 3) << 4)
    return first.to(tl.float32), second.to(tl.float32)


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

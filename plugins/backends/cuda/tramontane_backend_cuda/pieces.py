# SPDX-License-Identifier: Apache-2.0
"""Products on tensor cores whose weights are decoded in registers.

A *piece* is a run of codes of every output of a tile under one scale. Codes go from memory to shared memory by
asynchronous copies, from there to the registers in which the tensor cores want them, and are decoded in those, four at
a time: a code becomes a bfloat16 by putting it under the exponent of 128, and no scale is multiplied before the product
is made. A product therefore costs 2 to 5 ordinary instructions for each weight of a thread, where decoding to float32
costs 15.

Weights are the left side of the product, so that outputs are its rows and tokens its columns, of which tensor cores
take as few as 8. The other way round every warp would read 16 rows of activations again for each 8 outputs, which takes
longer than reading the weights (measured, ``docs/performance/cuda.md``).

Decoding has to be one operation of one tile: Triton then moves the change of layout before it, and bytes change places
instead of numbers.

Legend: M tokens, N outputs of a tile, P codes of a piece.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane_backend_cuda.decode import code_values, group_scales, scales_of, super_factors
from tramontane_backend_cuda.dot import INTERPRETED, dot
from tramontane_backend_cuda.words import load_words, piece_scales, tile_scales

ONES: tl.constexpr = tl.constexpr("mov.b32 $0, 0x3f803f80; mov.b32 $1, 0x3f803f80;")
"""Machine code for four ones."""


@triton.jit
def piece_values(
    raw, table, j: tl.constexpr, kind: tl.constexpr, DECODER: tl.constexpr, CODES: tl.constexpr, TABLE: tl.constexpr,
    LOW: tl.constexpr, LANES: tl.constexpr, CENTER: tl.constexpr,
):  # fmt: skip
    """The codes ``j`` of bytes [N, P] in the type of the activations, less ``CENTER``."""
    if CODES == "dense":
        return raw.to(kind)
    if DECODER != "" and kind == tl.bfloat16 and not INTERPRETED:
        SHIFT: tl.constexpr = j * LOW
        return tl.inline_asm_elementwise(
            DECODER.replace(
                "SHIFT",
                "0"
                if SHIFT == 0
                else "1"
                if SHIFT == 1
                else "2"
                if SHIFT == 2
                else "3"
                if SHIFT == 3
                else "4"
                if SHIFT == 4
                else "5"
                if SHIFT == 5
                else "6"
                if SHIFT == 6
                else "7",
            ).replace("MASK", "0x0f0f0f0f" if LOW == 4 else "0x03030303" if LOW == 2 else "0x01010101"),
            "=&r,=&r,r",
            [raw],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=4,
        )
    return (code_values(raw, raw, table, j, CODES, TABLE, LOW, 0, LANES) - CENTER).to(kind)


@triton.jit
def piece_ones(raw, kind: tl.constexpr, DECODER: tl.constexpr):
    """Ones [N, P] in the registers in which the weights are: as the result of an operation on the codes."""
    if DECODER != "" and kind == tl.bfloat16 and not INTERPRETED:
        return tl.inline_asm_elementwise(ONES, "=r,=r,r", [raw], dtype=tl.bfloat16, is_pure=True, pack=4)
    return tl.full(raw.shape, 1.0, kind)


@triton.jit
def multiply_pieces(
    x, rows, x_inside, codes, scale, zero, factor, low_factor, table, norm, n, n_inside,
    inputs, chunks, groups, supers, first, last,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, LANES: tl.constexpr, SCALE: tl.constexpr,
    ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr, SUPERS: tl.constexpr,
    PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr, NORM: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """``W x^T`` over the chunks ``first <= c < last``: [N, M], and the sums of squares of the rows of x: [M].

    ``rows``: where the rows of x begin [M]; ``n``: rows of the planes [N], all of them there, whatever ``n_inside``
    says. A row is whole tiles of BG chunks."""
    SPLIT: tl.constexpr = 8 // LOW if LOW < 8 else 1
    SHIFTED: tl.constexpr = ZERO != "none" and not (ZERO == "middle" and CENTER == MIDDLE)
    WHOLE: tl.constexpr = GROUP == 0 and SUPERS <= 0
    kind: tl.constexpr = x.dtype.element_ty
    b = tl.arange(0, PIECE)
    inner = b // LANES * (LANES * SPLIT) + b % LANES  # the input that a byte's lowest code belongs to
    at_codes = codes + n[:, None].to(tl.int64) * (chunks * LANES) + b[None, :]
    at_x = x + rows[None, :] + inner[:, None]
    total = tl.zeros((BN, BM), tl.float32)
    sums = tl.zeros((BN, BM), tl.float32)
    squares = tl.zeros((PIECE, BM), tl.float32)
    EACH: tl.constexpr = GROUP if GROUP > 0 else 1
    TILE: tl.constexpr = BG * LANES * SPLIT
    COUNT: tl.constexpr = TILE // EACH if TILE > EACH else 1  # groups of a tile
    of_scale: tl.constexpr = scale.dtype.element_ty.primitive_bitwidth
    of_zero: tl.constexpr = zero.dtype.element_ty.primitive_bitwidth
    FIT: tl.constexpr = COUNT * of_scale <= 64 and COUNT * of_zero <= 64  # in a word
    ALIKE: tl.constexpr = TILE % EACH == 0 or EACH % TILE == 0
    WORD: tl.constexpr = COUNT if SCALE != "none" and GROUP > 0 and FIT and ALIKE else 0
    raw, raw_zero, above, below = tile_scales(
        scale, zero, factor, low_factor, n, first * (LANES * SPLIT), groups, supers,
        SCALE, ZERO, EACH, ROWS, SUPERS, WORD,
    )  # fmt: skip
    for start in range(first, last, BG):
        now, now_zero, now_above, now_below = raw, raw_zero, above, below
        raw, raw_zero, above, below = tile_scales(  # ahead: only what a product consumes is read so without
            scale, zero, factor, low_factor, n, tl.minimum(start + BG, last - BG) * (LANES * SPLIT), groups, supers,
            SCALE, ZERO, EACH, ROWS, SUPERS, WORD,
        )  # fmt: skip
        for piece in tl.static_range(BG * LANES // PIECE):
            byte = start * LANES + piece * PIECE
            raw_codes = tl.load(at_codes + byte)
            if SCALE != "none" and not WHOLE:
                each, shift = piece_scales(
                    now, now_zero, now_above, now_below, scale, zero, n, byte * SPLIT, n_inside, groups,
                    piece * PIECE * SPLIT // EACH, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS, WORD,
                )  # fmt: skip
            part = total
            seen = sums
            if SCALE != "none" and not WHOLE:
                part = tl.zeros((BN, BM), tl.float32)
                seen = tl.zeros((BN, BM), tl.float32)
            for j in tl.static_range(SPLIT):
                k = byte * SPLIT + j * LANES
                some = tl.load(at_x + k, mask=x_inside[None, :], other=0.0)
                if NORM:
                    wide = some.to(tl.float32)
                    squares += wide * wide
                    gain = tl.load(norm + k + inner).to(tl.float32)
                    some = (wide * gain[:, None]).to(kind)
                w = piece_values(raw_codes, table, j, kind, DECODER, CODES, TABLE, LOW, LANES, CENTER)
                part = dot(w, some, part)
                if SHIFTED:  # the tensor cores add up faster than threads do
                    seen = dot(piece_ones(raw_codes, kind, DECODER), some, seen)
            if SCALE == "none" or WHOLE:
                total, sums = part, seen
            else:
                total += part * each[:, None]
                if SHIFTED:
                    total += seen * (shift + CENTER * each)[:, None]
    if SCALE != "none" and WHOLE:
        above, below = super_factors(factor, low_factor, n, 0, n_inside, supers, ZERO, SUPERS)
        each, shift = group_scales(
            scale, zero, above, below, n, 0, n_inside, groups, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS
        )
        total = total * each[:, None]
        if SHIFTED:
            total += sums * (shift + CENTER * each)[:, None]
    return total, tl.sum(squares, axis=0)


@triton.jit
def multiply_spread(
    x, codes, high, scale, zero, factor, low_factor, table, norm, n, chunks, groups, supers, first, last,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, LANES: tl.constexpr,
    SCALE: tl.constexpr, ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr,
    SUPERS: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr, NORM: tl.constexpr, BN: tl.constexpr,
    BG: tl.constexpr,
):  # fmt: skip
    """``W x^T`` of one token, whose groups of inputs are the columns of the product: [N], and the sum of squares of x.

    Tensor cores take eight columns at least. Column ``s`` holds the inputs of the tile's group ``s`` and zeros
    elsewhere, so that one product gives the sums of up to eight groups, and a thread has but the scales of its own rows
    and columns. What no product consumes is read a tile ahead: nothing waits for memory here. Codes in two planes are
    two products."""
    SPLIT: tl.constexpr = 8 // LOW if LOW < 8 else 1
    kind: tl.constexpr = x.dtype.element_ty
    LESS: tl.constexpr = CENTER if kind == tl.bfloat16 else 0
    SHIFTED: tl.constexpr = ZERO != "none" and not (ZERO == "middle" and LESS == MIDDLE)
    CHUNK: tl.constexpr = LANES * SPLIT
    INPUTS: tl.constexpr = BG * CHUNK
    COUNT: tl.constexpr = INPUTS // GROUP if INPUTS > GROUP else 1  # groups of a tile
    UPPER: tl.constexpr = SPLIT * HIGH if HIGH > 0 else 1  # bytes of a chunk's high bits
    b, s, i = tl.arange(0, BG * LANES), tl.arange(0, 8), tl.arange(0, INPUTS)
    h = tl.arange(0, BG * UPPER)
    rows, slot = n[:, None], s[None, :]
    if COUNT < 8:
        slot = tl.minimum(slot, COUNT - 1)
    of_codes = codes + rows.to(tl.int64) * (chunks * LANES) + b[None, :]
    of_high = high + rows.to(tl.int64) * (chunks * UPPER) + h[None, :]
    of_scale, of_zero = scale + (rows // ROWS * groups + slot), zero + (rows // ROWS * groups + slot)
    total = tl.zeros((BN, 8), tl.float32)
    squares = tl.zeros((INPUTS,), tl.float32)
    raw, raw_zero, above, below = spread_scales(
        of_scale, of_zero, factor, low_factor, rows, first, supers, CHUNK, SCALE, ZERO, GROUP, SUPERS, COUNT
    )
    wide = i * 0.0
    if NORM:
        wide = tl.load(x + first * CHUNK + i).to(tl.float32)
    for start in range(first, last, BG):
        each, shift = scales_of(raw, raw_zero, above, below, SCALE, ZERO, MIDDLE, SUPERS)
        after = tl.minimum(start + BG, last - BG)
        raw, raw_zero, above, below = spread_scales(
            of_scale, of_zero, factor, low_factor, rows, after, supers, CHUNK, SCALE, ZERO, GROUP, SUPERS, COUNT
        )
        if NORM:
            squares += wide * wide
            wide = tl.load(x + after * CHUNK + i).to(tl.float32)
        k = start * CHUNK
        seen = tl.zeros((BN, 8), tl.float32)
        part = tl.zeros((BN, 8), tl.float32)
        bytes_of = tl.load(of_codes + start * LANES)
        for j in tl.static_range(SPLIT):
            some = spread_inputs(x, norm, k, b, j * LANES, LANES, CHUNK, GROUP, NORM)
            w = piece_values(bytes_of, table, j, kind, DECODER, CODES, TABLE, LOW, LANES, LESS)
            part = dot(w, some, part)
            if SHIFTED:  # the tensor cores add up faster than threads do
                seen = dot(piece_ones(bytes_of, kind, DECODER), some, seen)
        if HIGH > 0:
            upper = tl.zeros((BN, 8), tl.float32)
            bytes_of = tl.load(of_high + start * UPPER)
            for q in tl.static_range(8 // HIGH):
                some = spread_inputs(x, norm, k, h, q % SPLIT * LANES + q // SPLIT * UPPER, UPPER, CHUNK, GROUP, NORM)
                w = piece_values(bytes_of, table, q, kind, DECODER, CODES, TABLE, HIGH, LANES, LESS)
                upper = dot(w, some, upper)
            part += (upper + LESS * seen) * (1 << LOW)
        total += part * each
        if SHIFTED:
            total += seen * (shift + LESS * each)
    return tl.sum(total, axis=1), tl.sum(squares, axis=0)


@triton.jit
def spread_inputs(
    x, norm, k, byte, lane: tl.constexpr, SIZE: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    """The inputs of the tile that begins with ``k`` whose codes lie in ``byte`` (SIZE of each chunk, the first one that
    of input ``lane``), each in the column of its group: [K, 8]."""
    kind: tl.constexpr = x.dtype.element_ty
    s = tl.arange(0, 8)[None, :]
    if GROUP >= CHUNK:  # both ways the compiler sees runs of inputs that are masked alike
        mine = (byte // (SIZE * GROUP // CHUNK))[:, None] == s
    else:
        mine = (byte // SIZE * (CHUNK // GROUP) + lane // GROUP)[:, None] == s
    place = byte // SIZE * CHUNK + byte % SIZE
    at = k + lane + (place[:, None] + s * 0)
    some = tl.load(x + at, mask=mine, other=0.0)
    if NORM:
        gain = tl.load(norm + at, mask=mine, other=0.0)
        if norm.dtype.element_ty == kind and not INTERPRETED:
            some = some * gain  # rounded once, as below
        else:
            some = (some.to(tl.float32) * gain.to(tl.float32)).to(kind)
    return some


@triton.jit
def spread_scales(
    of_scale, of_zero, factor, low_factor, rows, chunk, supers, INPUTS: tl.constexpr, SCALE: tl.constexpr,
    ZERO: tl.constexpr, GROUP: tl.constexpr, SUPERS: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """What :func:`multiply_spread` needs beside the codes of the tile that begins with ``chunk`` (of INPUTS inputs): as
    stored [N, 8], and factors [N, 1]."""
    k = chunk * INPUTS
    group = tl.multiple_of(k // GROUP, COUNT)
    raw, raw_zero = load_words(of_scale + group, of_zero + group, SCALE, ZERO, 1)
    above, below = super_factors(factor, low_factor, rows, k, rows >= 0, supers, ZERO, SUPERS)
    return raw, raw_zero, above, below


@triton.jit
def expand_pieces(
    row, n, inside, codes, scale, zero, factor, low_factor, table, y, inputs, chunks, groups, supers, times,
    CODES: tl.constexpr, TABLE: tl.constexpr, LOW: tl.constexpr, LANES: tl.constexpr, SCALE: tl.constexpr,
    ZERO: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, MIDDLE: tl.constexpr, SUPERS: tl.constexpr,
    PIECE: tl.constexpr, CENTER: tl.constexpr, DECODER: tl.constexpr, TIMES: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """The weights of the rows ``n`` of the planes as the rows ``row`` of y, for one tile of chunks."""
    SPLIT: tl.constexpr = 8 // LOW if LOW < 8 else 1
    kind: tl.constexpr = y.dtype.element_ty
    b = tl.arange(0, PIECE)
    inner = b // LANES * (LANES * SPLIT) + b % LANES
    place = y + row.to(tl.int64)[:, None] * inputs + inner[None, :]
    for piece in tl.static_range(BG * LANES // PIECE):
        byte = tl.program_id(1) * (BG * LANES) + piece * PIECE
        at = codes + n.to(tl.int64)[:, None] * (chunks * LANES) + (byte + b)[None, :]
        raw = tl.load(at, mask=inside[:, None], other=0)
        k = byte * SPLIT + n * 0
        if SCALE != "none":
            above, below = super_factors(factor, low_factor, n, k, inside, supers, ZERO, SUPERS)
            each, shift = group_scales(
                scale, zero, above, below, n, k, inside, groups, SCALE, ZERO, GROUP, ROWS, MIDDLE, SUPERS
            )
        for j in tl.static_range(SPLIT):
            value = piece_values(raw, table, j, kind, DECODER, CODES, TABLE, LOW, LANES, CENTER).to(tl.float32)
            if SCALE != "none":
                value = (value + CENTER) * each[:, None] + shift[:, None]
            if TIMES:
                value = value.to(kind).to(tl.float32) * times
            tl.store(place + (byte * SPLIT + j * LANES), value.to(kind), mask=inside[:, None])

# SPDX-License-Identifier: Apache-2.0
"""Kernels that draw one token for each row of logits, whatever the row's parameters, without sorting.

Candidates are in descending order of logit, equal ones by ascending id, as :mod:`tramontane.sampler.select` has them.
Everything a draw asks is the same question: *which is the first candidate with which a running sum passes a goal?* Of
ones for top-k, of weights for top-p and for the draw itself. Weights ``exp((x - largest) / temperature)`` are whole
numbers, units of ``1 / unit``, so that a sum is the same in any order: of threads, of programs, of atomic additions.

The answer is found in two steps. Buckets, linear in the logit between the largest and the last whose weight is not
zero, add up what falls into them, and tell in which one the sum passes its goal (``weigh_rows``). Its few candidates
are listed (``open_buckets``), and bisected by their logits as integers, then by their ids. Where the buckets hold more
than the list, the row itself is bisected: slower, and right.

Legend: a *part* is what one program reads of a row, PARTS their number rounded up to a power of two. ``scale`` is
(largest finite logit, temperature, buckets for each unit of logits, unit, last bucket); ``source`` is (logits, list,
how many are in it: 0 if they are too many, elements to go through, first and last open bucket, scale).
"""

from __future__ import annotations

import triton
import triton.language as tl

from tramontane.sampler.state import Path

GREEDY, FULL, TOP_K, TOP_P = (tl.constexpr(one.value) for one in (Path.GREEDY, Path.FULL, Path.TOP_K, Path.TOP_P))
LARGEST = tl.constexpr(3.4028234663852886e38)
COLDEST = tl.constexpr(1e-30)
FAR = tl.constexpr(31.0)
"""Candidates whose weight is below ``exp(-31)`` of the largest share the last bucket. With more than 2^17 tokens there
are none: so small a weight is 0 units."""

FIRST, LAST, BEFORE, GOAL, ROW_NUMBERS = (tl.constexpr(i) for i in range(5))
"""Numbers of a row behind its parts' sums: the buckets to open, the sum before them, what the running sum has to pass.
The buckets follow."""
ARRIVED, LISTED, ROW_WORDS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(3)
"""Words of a row behind its parts' first places: programs that have weighed, and how many candidates were listed, for
each of the two times that buckets are opened. The list follows."""


# --- rows ------------------------------------------------------------------------------------------------------------


@triton.jit
def _memory(floats, words, numbers, row, PARTS: tl.constexpr, BUCKETS: tl.constexpr, LIST: tl.constexpr):
    """Where a row keeps its own."""
    return (
        floats + row * 2 * PARTS,
        words + row * (PARTS + ROW_WORDS + LIST),
        numbers + row * (PARTS + ROW_NUMBERS + BUCKETS),
    )


@triton.jit
def _path(paths, path, row):
    """The path of all rows; 0: of this one."""
    found = path
    if path == 0:
        found = tl.load(paths + row).to(tl.int32)
    return found


@triton.jit
def _peak(floats, parts, PARTS: tl.constexpr):
    """The largest logit of a row, NaN if one is; and whether anything can be drawn."""
    p = tl.arange(0, PARTS)
    most = tl.load(floats + p, mask=p < parts, other=float("-inf"))
    bad = tl.max((most != most).to(tl.int32), axis=0)
    peak = tl.max(tl.where(most == most, most, float("-inf")), axis=0)
    return tl.where(bad > 0, float("nan"), peak), (bad == 0) & (peak > float("-inf"))


@triton.jit
def _scale(floats, temperature, peak, unit, parts, PARTS: tl.constexpr, BUCKETS: tl.constexpr):
    """See the module's legend."""
    p = tl.arange(0, PARTS)
    least = tl.min(tl.load(floats + PARTS + p, mask=p < parts, other=float("inf")), axis=0)
    top, divisor = tl.minimum(peak, LARGEST), tl.maximum(temperature, COLDEST)
    span = tl.minimum(tl.maximum((top - tl.minimum(least, LARGEST)) / divisor, 1e-6), FAR)
    return top, divisor, tl.minimum(BUCKETS / (span * divisor), 1e38), unit, BUCKETS - 1.0


@triton.jit
def _weights(x, scale):
    """0 for what is not a candidate."""
    return (tl.exp((tl.minimum(x, LARGEST) - scale[0]) / scale[1]) * scale[3]).to(tl.int64)


@triton.jit
def _buckets(x, scale):
    """By one subtraction and one product, so that no rounding puts two logits into the wrong order."""
    return tl.minimum((scale[0] - tl.minimum(x, LARGEST)) * scale[2], scale[4]).to(tl.int32)


@triton.jit
def _ordered(x):
    """Whole numbers in the order of floats, both zeros being one."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)


@triton.jit
def _floor(min_p, unit):
    """The least weight that min-p keeps: at least 1."""
    return tl.maximum((min_p.to(tl.float32) * unit).to(tl.int64), 1)


@triton.jit
def _goal_of_share(share, total):
    """What the running sum passes with the last candidate of top-p: the one that reaches the share of the total."""
    limit = share * total.to(tl.float64)
    whole = limit.to(tl.int64)
    goal = tl.where(whole.to(tl.float64) == limit, whole - 1, whole)
    return tl.where(share >= 1.0, total - 1, tl.maximum(tl.minimum(goal, total - 1), 0))


@triton.jit
def _goal_of_number(number, total):
    """What the running sum passes with the candidate that a number in [0, 1) draws."""
    return tl.minimum((number * total.to(tl.float64)).to(tl.int64), total - 1)


# --- passes over parts of rows ---------------------------------------------------------------------------------------


@triton.jit
def look_at_rows(
    logits, floats, words, numbers, stride, vocab, parts,
    CHUNK: tl.constexpr, PARTS: tl.constexpr, BUCKETS: tl.constexpr, LIST: tl.constexpr,
):  # fmt: skip
    """The largest logit of a part, the first place that has it, and the smallest that is not -inf; empty buckets."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    floats, words, numbers = _memory(floats, words, numbers, row, PARTS, BUCKETS, LIST)
    c = tl.arange(0, CHUNK)
    i = part * CHUNK + c
    x = tl.load(logits + row * stride + i, mask=i < vocab, other=float("-inf"))
    bad, most = tl.max((x != x).to(tl.int32), axis=0), tl.max(x, axis=0)
    tl.store(floats + part, tl.where(bad > 0, float("nan"), most))
    tl.store(floats + PARTS + part, tl.min(tl.where(x > float("-inf"), x, float("inf")), axis=0))
    tl.store(words + part, tl.min(tl.where((x == most) & (i < vocab), i, vocab), axis=0))
    for start in range(part * CHUNK, BUCKETS, parts * CHUNK):
        tl.store(numbers + PARTS + ROW_NUMBERS + start + c, tl.zeros((CHUNK,), tl.int64), mask=start + c < BUCKETS)
    if part == 0:
        tl.store(words + PARTS + tl.arange(0, 4), tl.zeros((4,), tl.int32), mask=tl.arange(0, 4) < ROW_WORDS)


@triton.jit
def _find_bucket(numbers, goal, PARTS: tl.constexpr, BUCKETS: tl.constexpr):
    """The bucket with which the running sum passes the goal, and the sum before it."""
    b = tl.arange(0, BUCKETS)
    held = tl.load(numbers + PARTS + ROW_NUMBERS + b, cache_modifier=".cg")
    at = tl.sum((tl.cumsum(held, axis=0) <= goal).to(tl.int32), axis=0)
    return at, tl.sum(tl.where(b < at, held, 0), axis=0)


@triton.jit
def _bound_by_buckets(numbers, own, top_k, top_p, PARTS: tl.constexpr, BUCKETS: tl.constexpr):
    """The buckets to open, so that the last candidate of top-k or top-p is found."""
    total = tl.sum(tl.load(numbers + PARTS + ROW_NUMBERS + tl.arange(0, BUCKETS), cache_modifier=".cg"), axis=0)
    goal = _goal_of_share(top_p, total)
    if own == TOP_K:
        goal = tl.minimum(tl.maximum(top_k, 1), total) - 1
    last, before = _find_bucket(numbers, goal, PARTS, BUCKETS)
    everything = own == TOP_K  # the draw is among few: all are listed
    tl.store(numbers + PARTS + FIRST, tl.where(everything, 0, last).to(tl.int64))
    tl.store(numbers + PARTS + LAST, last.to(tl.int64))
    tl.store(numbers + PARTS + BEFORE, tl.where(everything, 0, before))
    tl.store(numbers + PARTS + GOAL, goal)


@triton.jit
def weigh_rows(
    logits, paths, temperature, top_k, top_p, min_p, floats, words, numbers, stride, vocab, parts, path, unit,
    CHUNK: tl.constexpr, PARTS: tl.constexpr, BUCKETS: tl.constexpr, LIST: tl.constexpr,
):  # fmt: skip
    """Fill the buckets from a part, and add up what min-p keeps of it. The last program of a row finds the bucket in
    which top-k or top-p ends."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    floats, words, numbers = _memory(floats, words, numbers, row, PARTS, BUCKETS, LIST)
    own = _path(paths, path, row)
    peak, drawable = _peak(floats, parts, PARTS)
    if drawable & (own != GREEDY):
        scale = _scale(floats, tl.load(temperature + row), peak, unit, parts, PARTS, BUCKETS)
        i = part * CHUNK + tl.arange(0, CHUNK)
        x = tl.load(logits + row * stride + i, mask=i < vocab, other=float("-inf"))
        weights = _weights(x, scale)
        kept = weights >= _floor(tl.load(min_p + row), unit)
        tl.store(numbers + part, tl.sum(tl.where(kept, weights, 0), axis=0))
        if own != FULL:
            counted = tl.where(own == TOP_K, 1, weights)
            tl.atomic_add(numbers + PARTS + ROW_NUMBERS + _buckets(x, scale), counted, mask=weights > 0, sem="relaxed")
            tl.debug_barrier()  # what all threads added is there before the count says so
            done = tl.atomic_add(words + PARTS + ARRIVED, 1, sem="acq_rel")
            if done == parts - 1:
                _bound_by_buckets(numbers, own, tl.load(top_k + row), tl.load(top_p + row), PARTS, BUCKETS)


@triton.jit
def open_buckets(
    logits, paths, temperature, floats, words, numbers, stride, vocab, parts, path, unit, again,
    CHUNK: tl.constexpr, PARTS: tl.constexpr, BUCKETS: tl.constexpr, LIST: tl.constexpr,
):  # fmt: skip
    """List the candidates of the open buckets that are in a part, in no order. ``again``: 0 and then 1."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    floats, words, numbers = _memory(floats, words, numbers, row, PARTS, BUCKETS, LIST)
    own = _path(paths, path, row)
    peak, drawable = _peak(floats, parts, PARTS)
    if drawable & ((own == TOP_P) | ((own == TOP_K) & (again == 0))):
        scale = _scale(floats, tl.load(temperature + row), peak, unit, parts, PARTS, BUCKETS)
        i = part * CHUNK + tl.arange(0, CHUNK)
        x = tl.load(logits + row * stride + i, mask=i < vocab, other=float("-inf"))
        bucket = _buckets(x, scale)
        open_one = (bucket >= tl.load(numbers + PARTS + FIRST)) & (bucket <= tl.load(numbers + PARTS + LAST))
        wanted = (open_one & (_weights(x, scale) > 0)).to(tl.int32)
        count = tl.sum(wanted, axis=0)
        if count > 0:
            place = tl.atomic_add(words + PARTS + LISTED + again, count, sem="relaxed") + tl.cumsum(wanted, axis=0) - 1
            tl.store(words + PARTS + ROW_WORDS + place, i, mask=(wanted > 0) & (place < LIST))


# --- the candidates of one row ---------------------------------------------------------------------------------------


@triton.jit
def _source(logits, words, numbers, again, vocab, scale, PARTS: tl.constexpr, LIST: tl.constexpr):
    """See the module's legend."""
    count = tl.load(words + PARTS + LISTED + again)
    listed, size = tl.where(count <= LIST, count, 0), tl.where(count <= LIST, count, vocab)
    first, last = tl.load(numbers + PARTS + FIRST).to(tl.int32), tl.load(numbers + PARTS + LAST).to(tl.int32)
    return logits, words + PARTS + ROW_WORDS, listed, size, first, last, scale


@triton.jit
def _tile(start, source, TILE: tl.constexpr):
    """Orders, weights (0: no candidate) and ids of a piece of the source."""
    logits, ids_of, listed, size, first, last, scale = source
    place = start + tl.arange(0, TILE)
    ids = tl.where(listed > 0, tl.load(ids_of + place, mask=place < listed, other=0), place)
    x = tl.load(logits + ids, mask=place < size, other=float("-inf"))
    bucket = _buckets(x, scale)
    weights = tl.where((bucket >= first) & (bucket <= last), _weights(x, scale), 0)
    return _ordered(x), weights, ids


@triton.jit
def _tally(least, floor, order, weights, COUNT: tl.constexpr):
    wanted = (order >= least) & (weights >= floor)
    return tl.sum(wanted.to(tl.int64) if COUNT else tl.where(wanted, weights, 0), axis=0)


@triton.jit
def _measure(least, held, source, COUNT: tl.constexpr, TILE: tl.constexpr):
    """The weight, or the number, of candidates from an order on. ``held``: the first tile, in registers."""
    total = _tally(least, 1, held[0], held[1], COUNT)
    for start in range(TILE, source[3], TILE):
        order, weights, _ = _tile(start, source, TILE)
        total += _tally(least, 1, order, weights, COUNT)
    return total


@triton.jit
def _ends(order, source, IDS: tl.constexpr, TILE: tl.constexpr):
    """The lowest and the highest order of candidates; or id, of those of one order."""
    none = tl.zeros_like(source[3]).to(tl.int64) + (1 << 40)
    low, high = none, -none
    for start in range(0, source[3], TILE):
        orders, weights, ids = _tile(start, source, TILE)
        wanted = (weights > 0) & (orders == order) if IDS else weights > 0
        value = ids.to(tl.int64) if IDS else orders
        low = tl.minimum(low, tl.min(tl.where(wanted, value, 1 << 40), axis=0))
        high = tl.maximum(high, tl.max(tl.where(wanted, value, -(1 << 40)), axis=0))
    return low, high


@triton.jit
def _passed(goal, held, source, COUNT: tl.constexpr, TILE: tl.constexpr):
    """The order with which the running sum passes a goal; weight and number of what comes before it; the weight of
    each candidate of that order, and how many there are."""
    low, high = _ends(0, source, False, TILE)
    while low < high:
        middle = low + (high - low + 1) // 2
        passes = _measure(middle, held, source, COUNT, TILE) > goal
        low, high = tl.where(passes, middle, low), tl.where(passes, high, middle - 1)
    above = _measure(low + 1, held, source, False, TILE)
    above_count = _measure(low + 1, held, source, True, TILE)
    equal_count = tl.maximum(_measure(low, held, source, True, TILE) - above_count, 1)
    each = tl.maximum((_measure(low, held, source, False, TILE) - above) // equal_count, 1)
    return low, above, above_count, each, equal_count


@triton.jit
def bound_rows(
    logits, paths, temperature, top_p, uniform, floats, words, numbers, stride, vocab, parts, path, unit,
    PARTS: tl.constexpr, BUCKETS: tl.constexpr, LIST: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """How much weight top-k, top-p and min-p keep, so which sum the draw has to pass, and in which bucket it does."""
    row = tl.program_id(0).to(tl.int64)
    floats, words, numbers = _memory(floats, words, numbers, row, PARTS, BUCKETS, LIST)
    own = _path(paths, path, row)
    peak, drawable = _peak(floats, parts, PARTS)
    if drawable & ((own == TOP_K) | (own == TOP_P)):
        scale = _scale(floats, tl.load(temperature + row), peak, unit, parts, PARTS, BUCKETS)
        source = _source(logits + row * stride, words, numbers, 0, vocab, scale, PARTS, LIST)
        held = _tile(0, source, TILE)
        before, goal = tl.load(numbers + PARTS + BEFORE), tl.load(numbers + PARTS + GOAL)
        share = tl.load(top_p + row)
        p = tl.arange(0, PARTS)
        kept = tl.sum(tl.load(numbers + p, mask=p < parts, other=0), axis=0)
        if own == TOP_K:
            _, above, above_count, each, _ = _passed(goal, held, source, True, TILE)
            total = above + (goal + 1 - above_count) * each
            kept = tl.minimum(kept, total)
            goal = _goal_of_share(share, total)
        if share < 1.0:
            _, above, _, each, equal_count = _passed(goal - before, held, source, False, TILE)
            more = tl.minimum((goal - before - above) // each + 1, equal_count)
            kept = tl.minimum(kept, before + above + more * each)
        goal = _goal_of_number(tl.load(uniform + row), kept)
        tl.store(numbers + PARTS + GOAL, goal)
        if own == TOP_P:
            last, before = _find_bucket(numbers, goal, PARTS, BUCKETS)
            tl.store(numbers + PARTS + FIRST, last.to(tl.int64))
            tl.store(numbers + PARTS + LAST, last.to(tl.int64))
            tl.store(numbers + PARTS + BEFORE, before)


# --- the draw --------------------------------------------------------------------------------------------------------


@triton.jit
def _count_ids(bound, order, held, source, TILE: tl.constexpr):
    """How many candidates of one order have an id up to a bound."""
    total = tl.sum(((held[0] == order) & (held[1] > 0) & (held[2] <= bound)).to(tl.int64), axis=0)
    for start in range(TILE, source[3], TILE):
        orders, weights, ids = _tile(start, source, TILE)
        total += tl.sum(((orders == order) & (weights > 0) & (ids <= bound)).to(tl.int64), axis=0)
    return total


@triton.jit
def _draw_listed(goal, source, TILE: tl.constexpr):
    """The candidate with which the running weight passes a goal."""
    held = _tile(0, source, TILE)
    order, above, _, each, equal_count = _passed(goal, held, source, False, TILE)
    place = tl.minimum((goal - above) // each, equal_count - 1)  # of those that are equal, by their ids
    least, most = _ends(order, source, True, TILE)
    while least < most:
        middle = (least + most) // 2
        there = _count_ids(middle, order, held, source, TILE) > place
        least, most = tl.where(there, least, middle + 1), tl.where(there, middle, most)
    return least.to(tl.int32)


@triton.jit
def _draw_anywhere(
    number, floor, logits, numbers, vocab, parts, scale, CHUNK: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """The first token, by id, with which the running weight of what min-p keeps passes a share of all of it."""
    p = tl.arange(0, PARTS)
    sums = tl.load(numbers + p, mask=p < parts, other=0)
    goal = _goal_of_number(number, tl.sum(sums, axis=0))
    part = tl.minimum(tl.sum((tl.cumsum(sums, axis=0) <= goal).to(tl.int32), axis=0), parts - 1)
    goal -= tl.sum(tl.where(p < part, sums, 0), axis=0)
    i = part * CHUNK + tl.arange(0, CHUNK)
    weights = _weights(tl.load(logits + i, mask=i < vocab, other=float("-inf")), scale)
    ends = tl.cumsum(tl.where(weights >= floor, weights, 0), axis=0)
    return part * CHUNK + tl.sum((ends <= goal).to(tl.int32), axis=0)


@triton.jit
def take_tokens(
    logits, paths, temperature, min_p, uniform, floats, words, numbers, tokens, peaks, stride, vocab, parts, path,
    unit,
    CHUNK: tl.constexpr, PARTS: tl.constexpr, BUCKETS: tl.constexpr, LIST: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The token of a row, and its largest logit. 0 for a row that nothing can be drawn from."""
    row = tl.program_id(0).to(tl.int64)
    floats, words, numbers = _memory(floats, words, numbers, row, PARTS, BUCKETS, LIST)
    own = _path(paths, path, row)
    peak, drawable = _peak(floats, parts, PARTS)
    token = vocab
    if own == GREEDY:
        p = tl.arange(0, PARTS)
        most = tl.load(floats + p, mask=p < parts, other=float("-inf"))
        token = tl.min(tl.where(most == peak, tl.load(words + p, mask=p < parts, other=0), vocab), axis=0)
    elif drawable:
        scale = _scale(floats, tl.load(temperature + row), peak, unit, parts, PARTS, BUCKETS)
        if own == FULL:
            number, floor = tl.load(uniform + row), _floor(tl.load(min_p + row), unit)
            token = _draw_anywhere(number, floor, logits + row * stride, numbers, vocab, parts, scale, CHUNK, PARTS)
        else:
            again = tl.where(own == TOP_P, 1, 0)
            source = _source(logits + row * stride, words, numbers, again, vocab, scale, PARTS, LIST)
            goal = tl.load(numbers + PARTS + GOAL) - tl.load(numbers + PARTS + BEFORE)
            token = _draw_listed(goal, source, TILE)
    tl.store(tokens + row, tl.where(token < vocab, token, 0).to(tl.int64))
    tl.store(peaks + row, peak)

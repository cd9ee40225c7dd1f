# SPDX-License-Identifier: Apache-2.0
"""The task map: how one step's attention is cut into pieces of equal work, computed on the card.

Rows of a step are as different as one new token with 30,000 keys and 500 new tokens with 500 keys. A *tile* is a few
neighbouring tokens of one row; a *task* is a tile and a range of the keys it sees. Ranges are as long as makes the
number of tasks fill the card, whatever the rows' lengths; nothing about them is known on the host, so that a captured
step stays right for other lengths. The map depends on the step alone and serves every layer of equal window.

Legend: T tokens, R rows, N tasks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx

PROGRAMS = 264
"""Programs worth having at once: two on each of the 132 multiprocessors of a Hopper card."""
MAX_PIECES = 128
"""Ranges that the keys of one tile are cut into at most."""
MIN_KEYS = 64
"""Keys of a range at least: below, a program's start costs more than its keys."""
UNIT = 64
"""Ranges are multiples of this many keys."""
FIELDS = 6
"""Numbers of a task: row (-1: none), first token, first key, last key (excluded), its number in the tile, and how many
the tile has. Behind them a task has counters, which those of a tile's first task serve: how many of its tasks are done,
for each program that a task becomes."""
TASKS, ROWS = 64, 32
"""Tasks of a program, and rows it looks at together."""


@frozen(kw_only=True)
class MapShape:
    """What is decided by the padded extents of a step alone.

    Attributes:
        tile: Tokens of a tile at most.
        budget: Tasks beyond one a tile. 0: no tile is cut.
        window: Keys that a token sees; 0: all.
        whole: Rows that start with this many tokens or more are left out: another kernel does them. 0: none are.
        programs: Programs that each task becomes, each with a counter. Zero before and after an attention.
    """

    tile: int
    budget: int
    window: int
    whole: int = 0
    programs: int = 1

    @property
    def width(self) -> int:
        """Numbers of a row of the map."""
        return FIELDS + self.programs

    def tasks(self, tokens: int, rows: int) -> int:
        """N: room for every step of these extents."""
        return min(tokens, tokens // self.tile + rows) + self.budget

    @property
    def pieces(self) -> int:
        """Ranges of a tile at most."""
        return min(MAX_PIECES, self.budget + 1)


def budget_for(tokens: int, rows: int, programs: int, tile: int) -> int:
    """Tasks beyond one a tile: fill the card, and where rows decode also let long rows be cut as often as there are
    rows. ``programs``: those that each task becomes (key heads, groups of query heads)."""
    tiles = min(tokens, tokens // tile + rows)
    wanted = max(PROGRAMS // programs, tiles if tokens <= 4 * rows else 0)
    return max(0, min(wanted, MAX_PIECES - 1) - (0 if tokens <= 4 * rows else tiles))


@triton.jit
def _row_work(q_start, kv_len, r, rows, TILE: tl.constexpr, WINDOW: tl.constexpr, WHOLE: tl.constexpr):
    """Tiles of rows, and the keys that one tile of each sees at most."""
    first = tl.load(q_start + r, mask=r < rows, other=0)
    count = tl.load(q_start + r + 1, mask=r < rows, other=0) - first
    keys = tl.load(kv_len + r, mask=r < rows, other=0)
    tiles = (count + TILE - 1) // TILE
    if WHOLE > 0:
        left_out = (count >= WHOLE) & (count == keys)
        if WINDOW > 0:
            left_out = left_out & (keys <= WINDOW)
        tiles = tl.where(left_out, 0, tiles)
    seen = keys
    if WINDOW > 0:
        seen = tl.minimum(keys, WINDOW + tl.minimum(count, TILE) - 1)
    return tiles, seen


@triton.jit
def map_tasks(
    q_start, kv_len, tasks, rows, total, budget, pieces, least,
    TILE: tl.constexpr, WINDOW: tl.constexpr, WHOLE: tl.constexpr, UNIT: tl.constexpr, FIELDS: tl.constexpr,
    WIDTH: tl.constexpr, COUNTERS: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """N tasks of the map. Every program adds up all rows: they are few, and it saves a launch."""
    work, longest = 0, 0
    for start in range(0, rows, ROWS):
        r = start + tl.arange(0, ROWS)
        tiles, seen = _row_work(q_start, kv_len, r, rows, TILE, WINDOW, WHOLE)
        work += tl.sum(tiles * seen)
        longest = tl.maximum(longest, tl.max(tl.where(tiles > 0, seen, 0)))
    each = longest + UNIT
    if budget > 0:
        each = tl.maximum(least, tl.maximum((work + budget - 1) // budget, (longest + pieces - 1) // pieces))
    each = (each + UNIT - 1) // UNIT * UNIT
    t = tl.program_id(0) * N + tl.arange(0, N)
    row, before, given = tl.zeros((N,), tl.int32), tl.zeros((N,), tl.int32), 0
    for start in range(0, rows, ROWS):
        r = start + tl.arange(0, ROWS)
        tiles, seen = _row_work(q_start, kv_len, r, rows, TILE, WINDOW, WHOLE)
        count = tiles * ((seen + each - 1) // each)
        end = given + tl.cumsum(count, axis=0)
        passed = (end[None, :] <= t[:, None]) & (r[None, :] < rows)
        row += tl.sum(passed.to(tl.int32), axis=1)
        before += tl.sum(tl.where(passed, count[None, :], 0), axis=1)
        given += tl.sum(count)
    tiles, seen = _row_work(q_start, kv_len, row, rows, TILE, WINDOW, WHOLE)
    count = tl.maximum((seen + each - 1) // each, 1)
    inside = t - before
    last_token = tl.load(q_start + row + 1, mask=row < rows, other=0)
    token = tl.load(q_start + row, mask=row < rows, other=0) + (inside // count) * TILE
    keys = tl.load(kv_len + row, mask=row < rows, other=0)
    low = tl.zeros((N,), tl.int32)
    if WINDOW > 0:
        low = tl.maximum(0, keys - (last_token - token) + 1 - WINDOW)
    high = keys - (last_token - tl.minimum(token + TILE, last_token))
    piece = inside % count
    parts = (high - low + each - 1) // each
    there = (t < given) & (piece < parts)
    at, kept = tasks + t * WIDTH, t < total
    tl.store(at, tl.where(there, row, -1), mask=kept)
    tl.store(at + 1, token, mask=kept)
    tl.store(at + 2, low + piece * each, mask=kept)
    tl.store(at + 3, tl.minimum(low + (piece + 1) * each, high), mask=kept)
    tl.store(at + 4, piece, mask=kept)
    tl.store(at + 5, parts, mask=kept)
    i = FIELDS + tl.arange(0, COUNTERS)[None, :]
    tl.store(at[:, None] + i, i * 0, mask=kept[:, None] & (i < WIDTH))


def make_map(ctx: Ctx, shape: MapShape, out: Tensor | None = None) -> Tensor:
    """The map of a step, int32 [N, width]; ``out`` may have more rows than N."""
    total = shape.tasks(ctx.tokens, ctx.rows)
    made = torch.empty(total, shape.width, dtype=torch.int32, device=ctx.q_start.device) if out is None else out
    map_tasks[(triton.cdiv(total, TASKS),)](
        ctx.q_start, ctx.kv_len_R, made, ctx.rows, total, shape.budget, shape.pieces, MIN_KEYS,
        TILE=shape.tile, WINDOW=shape.window, WHOLE=shape.whole, UNIT=UNIT, FIELDS=FIELDS,
        WIDTH=shape.width, COUNTERS=triton.next_power_of_2(shape.programs), N=TASKS, ROWS=ROWS,
    )  # fmt: skip
    return made

# SPDX-License-Identifier: Apache-2.0
"""Attention over the paged cache: tiles, tasks and launches.

The kernels are in :mod:`.attend` and :mod:`.join`, maps in :mod:`.tasks`.

``attend`` makes its map itself. On a tape a rule (:mod:`.maps`) takes the map out into an op of its own, which layers
of equal window then share: one map a step.

Legend: T tokens, H query heads, G key/value heads, D head dimension, E value dimension, N tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from attrs import define, field, frozen
from torch import Tensor

from tramontane.backends.torch.attention import PagedAttention
from tramontane.batch import Ctx
from tramontane.ops import Attend, AttendLatent, Kernel, Op, op
from tramontane.ops.attention import batch_of
from tramontane.ops.base import Meta
from tramontane.weights import CacheSlot
from tramontane_backend_cuda.attend import attend_task
from tramontane_backend_cuda.entries import PlaneView, unaligned
from tramontane_backend_cuda.join import join_tasks
from tramontane_backend_cuda.tasks import FIELDS, MapShape, budget_for, make_map

MAX_HEADS = 32
"""Query heads of one key head that a program takes together."""
STAGES = 2
"""Steps whose keys and values are on their way at a time."""
JOIN_ELEMENTS = 1024
"""Numbers of a token (query heads of a key head times value features) up to which the last task of a tile joins it,
unless the tile has many tokens. One multiprocessor reads all of a tile then; where there is more to read, a launch of
many programs is sooner done."""
JOIN_STEP = 8
"""Tasks whose sums are read together."""
MANY = 64
"""Rows of the product (tokens times heads) where steps carry prompts."""
WHOLE = 256
"""A prompt of this many tokens or more that starts here goes through ``scaled_dot_product_attention``, if the host
knows the rows. Triton's kernel is right for any; the stock one is faster on long prompts."""


@op("attend_map")
@frozen(kw_only=True)
class AttendMap(Op):
    """The task map of a step for layers with these heads and this window: int32 [T + 128, width], the first N rows
    valid.

    Which tasks a step has is said in :mod:`tramontane_backend_cuda.tasks`.
    """

    heads: int
    kv_heads: int
    window: int | None = None
    plain: bool = True
    """Long prompts may be left to the stock kernel, which knows neither softcaps nor sinks."""

    reads = ("q_start", "kv_len_R", "seq_of_T")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        raise NotImplementedError("the map's size follows from the step; the rule that places it says which")

    def shape(self, ctx: Ctx) -> MapShape:
        """Tiles and budget for the padded extents of a step."""
        tokens, rows = ctx.tokens, ctx.rows
        heads, programs = self.packing
        size = 16 if tokens <= 4 * rows else MANY
        tile = max(size, triton.next_power_of_2(heads)) // heads
        return MapShape(
            tile=tile,
            budget=budget_for(tokens, rows, programs, tile),
            window=self.window or 0,
            whole=WHOLE if self.plain and ctx.host is not None else 0,
            programs=programs,
        )

    @property
    def width(self) -> int:
        """Numbers of a row of the map."""
        return FIELDS + self.packing[1]

    @property
    def packing(self) -> tuple[int, int]:
        """Query heads of a program, and programs of a task."""
        per = self.heads // self.kv_heads
        heads = min(per, MAX_HEADS)
        return heads, self.kv_heads * triton.cdiv(per, heads)


@op("attend_mapped")
@frozen
class AttendMapped(Op):
    """An attention with its map as one more input: (q .., map) -> [T, H * E]. Weights as the attention's."""

    attend: Attend | AttendLatent

    roles = ("cache", "sinks")
    reads = ("groups", "q_start", "kv_len_R", "seq_of_T")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return self.attend.outputs(weights, *inputs[:-1])

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.attend.reference(ctx, weights, *inputs[:-1])


def powers(features: int) -> tuple[int, int]:
    """Features as a power of two and what is left: 576 -> (512, 64), 80 -> (64, 16), 20 -> (20, 0)."""
    first = 1 << (features.bit_length() - 1)
    rest = features - first
    return (features, 0) if rest and first < 32 else (first, rest)


def wide(count: int) -> int:
    """What a matrix product can take: a power of two, at least 16."""
    return max(16, triton.next_power_of_2(count))


def keys_of_a_step(features: int, m: int, kind: str) -> int:
    """Keys that a program multiplies with at a time: as many as its registers allow, seen in the compiled code."""
    if features >= 256:
        return 16 if m >= 64 else 32
    return 32 if kind == "int8" else 64


@define(eq=False)
class TaskAttention:
    """Attention of one layer, given queries in two parts and a map.

    A cache of one plane holds latents: keys whose first part is the value.
    """

    map: AttendMap
    slot: CacheSlot
    features: tuple[int, int]
    values: int
    scale: float
    softcap: float | None = None
    sinks_H: Tensor | None = field(default=None, repr=False)
    _planes: tuple[Tensor, ...] = field(init=False, default=(), repr=False)
    _views: tuple[PlaneView, PlaneView, PlaneView] | None = field(init=False, default=None, repr=False)

    def views(self) -> tuple[PlaneView, PlaneView, PlaneView]:
        """Keys in two parts, and values."""
        if self._views is None or self._planes is not self.slot.planes:
            keys = PlaneView.of(self.slot.planes[0])
            first, rest = self.features
            parts = keys.part(0, first), keys.part(first, first + rest)
            values = parts[0] if len(self.slot.planes) == 1 else PlaneView.of(self.slot.planes[1])
            self._planes, self._views = self.slot.planes, (*parts, values)
        return self._views

    def __call__(self, ctx: Ctx, shape: MapShape, tasks: Tensor, q: Tensor, q_rest: Tensor, out_THE: Tensor) -> None:
        """Attend q [T, H, A] with q_rest [T, H, B] into [T, H, E]."""
        heads, programs = self.map.packing
        per, rows = self.map.heads // self.map.kv_heads, shape.tile * heads
        count, m, be = shape.tasks(ctx.tokens, ctx.rows), wide(rows), wide(self.values)
        cut, together = shape.budget > 0, triton.next_power_of_2(heads)
        sums = q.new_empty(count * programs * m * be if cut else 1, dtype=torch.float32)
        tops = q.new_empty(count * programs * m * 2 if cut else 1, dtype=torch.float32)
        sinks = q if self.sinks_H is None else self.sinks_H
        join = together if rows < MANY and together * be <= JOIN_ELEMENTS else 0
        self._tasks(ctx, shape, tasks, q, q_rest, out_THE, sums, tops, sinks, (count, m, be, join))
        if cut and not join:
            join_tasks[(count, programs, rows)](
                tasks, ctx.q_start, sinks, out_THE, sums, tops, per, programs // self.map.kv_heads, programs,
                *out_THE.stride()[:2], E=self.values, BE=be, HEADS=heads, SINKS=self.sinks_H is not None,
                WIDTH=shape.width, M=m, STEP=16, num_warps=4 if be > 64 else 2,
            )  # fmt: skip

    def _tasks(
        self, ctx: Ctx, shape: MapShape, tasks: Tensor, q: Tensor, q_rest: Tensor, out_THE: Tensor, sums: Tensor,
        tops: Tensor, sinks: Tensor, launch: tuple[int, int, int, int],
    ) -> None:  # fmt: skip
        (heads, programs), (count, m, be, join), (a, b) = self.map.packing, launch, self.features
        keys, keys_rest, values = self.views()
        group = ctx.groups[self.slot.group]
        big = wide(a) >= 256
        attend_task[(count, programs)](
            q, q_rest, keys.data, keys_rest.data, values.data, keys.scale, values.scale, group.table_RB, tasks,
            ctx.q_start, ctx.kv_len_R, sinks, out_THE, sums, tops, self.scale, self.softcap or 1.0, shape.window,
            self.slot.block_tokens, group.table_RB.shape[1], self.map.heads // self.map.kv_heads,
            programs // self.map.kv_heads, *q.stride()[:2], *q_rest.stride()[:2], *keys.strides, *values.strides,
            group.table_RB.stride(0), *out_THE.stride()[:2],
            A=a, B=b, E=self.values, BA=wide(a), BB=wide(b), BE=be, TILE=shape.tile, HEADS=heads, KIND=keys.kind,
            SHARED=len(self.slot.planes) == 1, WINDOW=shape.window > 0, CAP=self.softcap is not None,
            SINKS=self.sinks_H is not None, CUT=shape.budget > 0, JOIN=join, STEP=JOIN_STEP, FIELDS=FIELDS,
            WIDTH=shape.width, M=m, N=keys_of_a_step(wide(a), m, keys.kind),
            num_warps=8 if big and m >= 32 else 4, num_stages=STAGES,
        )  # fmt: skip


@define(eq=False)
class _Attention:
    """The kernel of one layer, with a map or without."""

    op: Attend
    tasks: TaskAttention
    stock: PagedAttention | None
    """For long prompts; ``None`` where it would be slow."""

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        batch, q, op = batch_of(ctx), inputs[0], self.op
        out_THE = outputs[0].view(-1, op.heads, op.value_dim)
        if not q.shape[0]:
            return
        if q.stride(-1) != 1:
            q = q.contiguous()
        shape = self.tasks.map.shape(batch)
        tasks = make_map(batch, shape) if len(inputs) == 1 else inputs[1]
        first = self.tasks.features[0]
        self.tasks(batch, shape, tasks, q[..., :first], q[..., first:], out_THE)
        if shape.whole and self.stock is not None and batch.host is not None:
            self.stock.rows(batch, batch.host, self._whole_rows(batch, shape), q, out_THE)

    def _whole_rows(self, ctx: Ctx, shape: MapShape) -> list[int]:
        """Rows that the map leaves out."""
        if ctx.host is None:
            return []
        starts, lengths = ctx.host.q_start, ctx.host.kv_len
        return [
            row
            for row, keys in enumerate(lengths)
            if starts[row + 1] - starts[row] == keys >= shape.whole and (not shape.window or keys <= shape.window)
        ]


def map_of(op: Attend) -> AttendMap:
    """The map that a layer needs."""
    plain = op.softcap is None and not op.sinks
    return AttendMap(heads=op.heads, kv_heads=op.kv_heads, window=op.window, plain=plain)


def attend(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Paged attention, that makes its own map or is given one."""
    if not isinstance(op, Attend):
        return f"made for attend, not {op.name}"
    slot, sinks_H, mapper = weights[0], weights[1].tensor if op.sinks else None, map_of(op)
    tasks = TaskAttention(mapper, slot, powers(op.head_dim), op.value_dim, op.scale, op.softcap, sinks_H)
    return unaligned(slot) or _Attention(op, tasks, PagedAttention(op, slot, None) if mapper.plain else None)


def attend_map(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """The map, as one small launch."""
    if not isinstance(op, AttendMap):
        return f"made for attend_map, not {op.name}"

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        batch = batch_of(ctx)
        make_map(batch, op.shape(batch), outputs[0])

    return run

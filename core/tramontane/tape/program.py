# SPDX-License-Identifier: Apache-2.0
"""Replaying a tape in Python: the plain interpreter, and the reference for native lowerings.

For each (T, L) seen, the tape is bound once: arena places become tensors, views are taken, and what is left is a list
of (kernel, inputs, outputs) to run. Fields of the batch that sit at fixed addresses are bound with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor
from torch.utils import _pytree as pytree

from tramontane.batch import Ctx
from tramontane.ops import Kernel
from tramontane.tape.arena import ArenaPlan, plan_arena
from tramontane.tape.ir import Kind, OpNode, Ref, Size, Tape, TorchNode, resolve
from tramontane.tape.record import fields_of

MAX_BOUND = 64
"""Bound sizes kept; each costs a few kilobytes."""

_Step = Callable[[Ctx], None]


@define(eq=False)
class _Bound:
    """A tape with storage for one size of step."""

    env: list[Any]
    """A tensor for every value that is bound, or loaded from the batch in each step."""
    steps: list[_Step | tuple[Kernel, Sequence[Tensor], Sequence[Tensor]]]
    results: tuple[int, ...]


@define(eq=False)
class Program:
    """A tape with an arena, ready to run on any batch up to the planned size."""

    tape: Tape
    device: torch.device
    max_tokens: int
    max_outputs: int
    arena_plan: ArenaPlan = field(init=False)
    _arena: Tensor | None = field(init=False, default=None, repr=False)
    _bound: OrderedDict[tuple[int, ...], _Bound] = field(init=False, factory=OrderedDict, repr=False)

    def __attrs_post_init__(self) -> None:
        self.arena_plan = plan_arena(self.tape, self.max_tokens, self.max_outputs)

    def run(self, ctx: Ctx) -> tuple[Tensor, ...]:
        """Run one step. The results are views of the arena: use them before the next run."""
        key = (ctx.tokens, ctx.outputs, ctx.ids_T.data_ptr(), ctx.positions_KT.data_ptr(), ctx.out_rows_L.data_ptr())
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bind(ctx)
            self._bound[key] = bound
            if len(self._bound) > MAX_BOUND:
                self._bound.popitem(last=False)
        for step in bound.steps:
            if isinstance(step, tuple):
                kernel, inputs, outputs = step
                kernel(ctx, inputs, outputs)
            else:
                step(ctx)
        return tuple(bound.env[value] for value in bound.results)

    def _bind(self, ctx: Ctx) -> _Bound:
        if self._arena is None:
            self._arena = torch.empty(self.arena_plan.nbytes, dtype=torch.uint8, device=self.device)
        return _Binder(self.tape, self.arena_plan, self._arena, ctx).bind()


_FIXED_FIELDS = ("ids_T", "positions_KT", "out_rows_L")
"""Fields bound by address; ``Program.run`` keys its bindings on them. Others are looked up in each step."""


class _Binder:
    """Turns a tape into steps for one (T, L)."""

    def __init__(self, tape: Tape, plan: ArenaPlan, arena: Tensor, ctx: Ctx) -> None:
        self.tape = tape
        self.tokens, self.outputs = ctx.tokens, ctx.outputs
        self.env: list[Any] = [None] * len(tape.values)
        self.steps: list[Any] = []
        fields = fields_of(ctx)
        for index, value in enumerate(tape.values):
            if value.kind is Kind.CONSTANT:
                self.env[index] = value.tensor
            elif value.kind is Kind.ARENA and index in plan.offsets:
                shape = resolve(value.shape, self.tokens, self.outputs)
                self.env[index] = _carve(arena, plan.offsets[index], shape, value.dtype)
            elif value.kind is Kind.FIELD and value.name in _FIXED_FIELDS:
                self.env[index] = fields[value.name]

    def bind(self) -> _Bound:
        late = [i for i, v in enumerate(self.tape.values) if v.kind is Kind.FIELD and v.name not in _FIXED_FIELDS]
        if any(self._used(i) for i in late):
            self.steps.append(self._load_fields({i: self.tape.values[i].name for i in late}))
        for node in self.tape.nodes:
            if isinstance(node, OpNode):
                self._bind_op(node)
            else:
                self._bind_torch(node)
        return _Bound(self.env, self.steps, self.tape.results)

    def _used(self, value: int) -> bool:
        return any(value in node.inputs for node in self.tape.nodes)

    def _load_fields(self, names: dict[int, str]) -> _Step:
        def load(ctx: Ctx) -> None:
            fields = fields_of(ctx)
            for index, name in names.items():
                self.env[index] = fields.get(name)

        return load

    def _bind_op(self, node: OpNode) -> None:
        env = self.env
        kernel: Kernel = node.call.kernel or node.call.run
        inputs, outputs = [env[v] for v in node.inputs], [env[v] for v in node.outputs]
        if all(t is not None for t in (*inputs, *outputs)):
            self.steps.append((kernel, inputs, outputs))
            return

        def late(ctx: Ctx) -> None:
            kernel(ctx, [env[v] for v in node.inputs], [env[v] for v in node.outputs])

        self.steps.append(late)

    def _bind_torch(self, node: TorchNode) -> None:
        env = self.env
        args, kwargs = pytree.tree_map(
            lambda x: x.at(self.tokens, self.outputs) if isinstance(x, Size) else x,
            (node.args, node.kwargs),
            is_leaf=lambda x: isinstance(x, Size | Ref),
        )

        def call(ctx: Ctx | None) -> None:
            live = pytree.tree_map(
                lambda x: env[x.value] if isinstance(x, Ref) else x,
                (args, kwargs),
                is_leaf=lambda x: isinstance(x, Ref),
            )
            made = [x for x in pytree.tree_leaves(node.func(*live[0], **live[1])) if isinstance(x, Tensor)]
            for value, tensor in zip(node.outputs, made, strict=True):
                env[value] = tensor

        if node.is_view and all(env[v] is not None for v in node.inputs):
            call(None)  # storage is fixed, so the view is taken once
        else:
            self.steps.append(call)


def _carve(arena: Tensor, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    count = 1
    for dim in shape:
        count *= dim
    return arena[offset : offset + count * dtype.itemsize].view(dtype).view(shape)

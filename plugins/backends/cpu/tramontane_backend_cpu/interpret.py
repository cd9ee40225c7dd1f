# SPDX-License-Identifier: Apache-2.0
"""Running single nodes of a tape in Python, over the arena that native stretches use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import define, field
from torch import Tensor
from torch.utils import _pytree as pytree

from tramontane.batch import Ctx
from tramontane.errors import PlanError
from tramontane.tape.arena import ArenaPlan
from tramontane.tape.ir import Kind, Node, OpNode, Ref, Size, Tape, TorchNode, resolve
from tramontane.tape.record import fields_of


@define(eq=False)
class Interpreter:
    """What is needed to run nodes of one tape."""

    tape: Tape
    plan: ArenaPlan
    makers: Mapping[int, TorchNode] = field(init=False, repr=False)
    """View -> the call that takes it."""

    def __attrs_post_init__(self) -> None:
        self.makers = {
            value: node
            for node in self.tape.nodes
            if isinstance(node, TorchNode) and node.is_view
            for value in node.outputs
        }

    def begin(self, ctx: Ctx, arena: Tensor) -> Environment:
        """The values of one step."""
        return Environment(self, ctx, arena)


@define(eq=False)
class Environment:
    """The tensors of one step, made when they are asked for."""

    interpreter: Interpreter
    ctx: Ctx
    arena: Tensor
    _tensors: dict[int, Tensor] = field(factory=dict, init=False, repr=False)
    _fields: dict[str, Tensor] | None = field(default=None, init=False, repr=False)

    def run(self, node: Node) -> None:
        """Run one op or torch call."""
        if isinstance(node, OpNode):
            inputs, outputs = ([self.tensor(value) for value in side] for side in (node.inputs, node.outputs))
            node.call.run(self.ctx, inputs, outputs)
        else:
            self._call(node)

    def tensor(self, value: int) -> Tensor:
        """The tensor of a value."""
        found = self._tensors.get(value)
        return self._make(value) if found is None else found

    def _make(self, index: int) -> Tensor:
        value, plan = self.interpreter.tape.values[index], self.interpreter.plan
        if value.kind is Kind.VIEW and index in self.interpreter.makers:
            self._call(self.interpreter.makers[index])
            return self._tensors[index]
        made: Tensor | None = None
        if value.kind is Kind.CONSTANT:
            made = value.tensor
        elif value.kind is Kind.FIELD:
            self._fields = fields_of(self.ctx) if self._fields is None else self._fields
            made = self._fields.get(value.name)
        elif value.kind is Kind.ARENA:
            made = carve(index, self.interpreter.tape, plan, self.arena, self.ctx.tokens, self.ctx.outputs)
        if made is None:
            raise PlanError(f"value {index} ({value.kind} {value.name}) is read before it exists")
        self._tensors[index] = made
        return made

    def _call(self, node: TorchNode) -> None:
        def concrete(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return self.tensor(leaf.value)
            return leaf.at(self.ctx.tokens, self.ctx.outputs) if isinstance(leaf, Size) else leaf

        args, kwargs = pytree.tree_map(concrete, (node.args, node.kwargs), is_leaf=lambda x: isinstance(x, Ref | Size))
        made = [x for x in pytree.tree_leaves(node.func(*args, **kwargs)) if isinstance(x, Tensor)]
        self._tensors.update(zip(node.outputs, made, strict=True))


def carve(value: int, tape: Tape, plan: ArenaPlan, arena: Tensor, tokens: int, outputs: int) -> Tensor:
    """The tensor of an arena value for a step of T tokens and L logit rows."""
    made, offset = tape.values[value], plan.offsets[value]
    shape = resolve(made.shape, tokens, outputs)
    return arena[offset : offset + math.prod(shape) * made.dtype.itemsize].view(made.dtype).view(shape)

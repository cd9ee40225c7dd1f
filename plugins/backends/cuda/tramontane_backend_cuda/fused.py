# SPDX-License-Identifier: Apache-2.0
"""Ops that only this backend's rules put on a tape, and the rules: a norm before a product, a residual after it.

Each reference is the sequence of ops itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import AddRmsNorm, Linear, LinearGated, Op, RmsNorm, op
from tramontane.ops.base import Meta
from tramontane.tape.ir import OpNode, Tape
from tramontane.tape.rules import Fuse


@op("linear_add")
@frozen
class LinearAdd(Op):
    """``linear(x) + residual``: (x [T, I], residual [T, O]) -> [T, O]. Weights as the linear's."""

    linear: Linear

    roles = ("weight", "bias")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return self.linear.outputs(weights, inputs[0])

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        (y,) = self.linear.reference(ctx, weights, inputs[0])
        return (y + inputs[1],)


@op("norm_linear")
@frozen
class NormLinear(Op):
    """``linear(rms_norm(x))``, the linear perhaps gated. Weights: the norm's, then the linear's."""

    norm: RmsNorm
    linear: Linear | LinearGated

    roles = ("norm", "weight", "bias")

    def outputs(self, weights: Sequence[Any], *inputs: Tensor) -> tuple[Meta, ...]:
        return self.linear.outputs(weights[1:], *inputs)

    def reference(self, ctx: Ctx | None, weights: Sequence[Any], *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.linear.reference(ctx, weights[1:], *self.norm.reference(ctx, weights[:1], *inputs))


def fuse_residual(tape: Tape, fuse: Fuse) -> bool:
    """linear -> add_rms_norm becomes linear_add -> rms_norm: the sum is made where the product is."""
    for index, node in enumerate(tape.nodes):
        if not isinstance(node, OpNode) or not isinstance(node.call.op, AddRmsNorm):
            continue
        product = _sole_maker(tape, node.inputs[0], node)
        if product is None or not isinstance(product.call.op, Linear) or product.call.op.out_dtype is not None:
            continue
        op = node.call.op
        added = fuse(LinearAdd(product.call.op), product.call.weights, product.call)
        normed = fuse(RmsNorm(op.eps, late_cast=op.late_cast), node.call.weights, node.call)
        if added is not None and normed is not None:
            total = node.outputs[1:]
            tape.nodes[index : index + 1] = [
                OpNode(added, (product.inputs[0], node.inputs[1]), total),
                OpNode(normed, total, node.outputs[:1]),
            ]
            tape.nodes.remove(product)
            return True
    return False


def fuse_norm(tape: Tape, fuse: Fuse) -> bool:
    """rms_norm -> linear (or linear_gated) becomes one op where nobody else reads the norm."""
    for index, node in enumerate(tape.nodes):
        if not isinstance(node, OpNode) or not isinstance(node.call.op, Linear | LinearGated):
            continue
        norm = _sole_maker(tape, node.inputs[0], node)
        if norm is None or not isinstance(norm.call.op, RmsNorm) or not norm.call.op.scaled:
            continue
        op = NormLinear(norm.call.op, node.call.op)
        fused = fuse(op, (*norm.call.weights, *node.call.weights), node.call)
        if fused is not None:
            tape.nodes[index] = OpNode(fused, norm.inputs, node.outputs)
            tape.nodes.remove(norm)
            return True
    return False


def _sole_maker(tape: Tape, value: int, reader: OpNode) -> OpNode | None:
    """The op that makes a value which only ``reader`` reads, and which may as well be made just before it: no torch
    code of the model runs in between that could write what the op reads."""
    readers = sum(value in node.inputs for node in tape.nodes)
    maker = next((node for node in tape.nodes if value in node.outputs), None)
    if readers != 1 or value in tape.results or not isinstance(maker, OpNode):
        return None
    between = tape.nodes[tape.nodes.index(maker) : tape.nodes.index(reader)]
    return maker if all(isinstance(node, OpNode) or node.is_view for node in between) else None

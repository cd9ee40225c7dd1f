# SPDX-License-Identifier: Apache-2.0
"""From two recordings of different sizes to one tape with symbolic sizes.

Whatever number is equal in both recordings is a constant of the model; whatever follows T or L becomes a
:class:`~tramontane.tape.ir.Size`. Anything else means that the model's code looks at the batch in a way that a tape
cannot follow, and the capture is refused with the place named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen
from torch.utils import _pytree as pytree

from tramontane.errors import CaptureRefused
from tramontane.tape.ir import Dim, Kind, Node, OpNode, Size, Tape, TorchNode, Value


@frozen
class Extent:
    """The sizes of one recorded batch. Use primes, so that no product is taken for another."""

    tokens: int
    outputs: int


def unify(first: Tape, second: Tape, a: Extent, b: Extent) -> Tape:
    """One tape that gives ``first`` at extent ``a`` and ``second`` at extent ``b``."""
    if len(first.nodes) != len(second.nodes) or len(first.values) != len(second.values):
        raise CaptureRefused("the model runs different code for different batch sizes")
    values = [_value(x, y, a, b) for x, y in zip(first.values, second.values, strict=True)]
    nodes = [_node(x, y, a, b) for x, y in zip(first.nodes, second.nodes, strict=True)]
    return Tape(values, nodes, first.results)


def _value(x: Value, y: Value, a: Extent, b: Extent) -> Value:
    if x.kind is not y.kind or x.dtype is not y.dtype or x.name != y.name or x.root != y.root:
        raise CaptureRefused("the model runs different code for different batch sizes")
    if x.kind is Kind.FIELD:
        return x  # read from each step's batch; its shape is the batch's business
    if x.kind is Kind.CONSTANT and (x.tensor is None or y.tensor is None or x.tensor is not y.tensor):
        raise CaptureRefused("the model makes a tensor out of the recorder's sight, from numpy or a Python list say")
    return evolve(x, shape=tuple(_dim(p, q, a, b, "a shape") for p, q in zip(x.shape, y.shape, strict=True)))


def _node(x: Node, y: Node, a: Extent, b: Extent) -> Node:
    if isinstance(x, OpNode) and isinstance(y, OpNode) and x.call is y.call and x.inputs == y.inputs:
        return x
    if isinstance(x, TorchNode) and isinstance(y, TorchNode) and x.func is y.func and x.inputs == y.inputs:
        left, form = pytree.tree_flatten((x.args, x.kwargs))
        right, other = pytree.tree_flatten((y.args, y.kwargs))
        if form == other:
            leaves = [_leaf(p, q, a, b, str(x.func)) for p, q in zip(left, right, strict=True)]
            args, kwargs = pytree.tree_unflatten(leaves, form)
            return evolve(x, args=args, kwargs=kwargs)
    raise CaptureRefused("the model runs different code for different batch sizes")


def _leaf(x: Any, y: Any, a: Extent, b: Extent, where: str) -> Any:
    if isinstance(x, int) and isinstance(y, int) and not isinstance(x, bool):
        return _dim(x, y, a, b, where)
    if x != y:
        raise CaptureRefused(f"an argument of {where} changes with the batch: {x!r} and {y!r}")
    return x


def _dim(x: Dim, y: Dim, a: Extent, b: Extent, where: str) -> Dim:
    if not isinstance(x, int) or not isinstance(y, int):
        raise CaptureRefused("a recording that is already symbolic cannot be unified again")
    if x == y:
        return x
    for make in (_multiple("tokens", a.tokens, b.tokens), _multiple("outputs", a.outputs, b.outputs)):
        if (size := make(x, y)) is not None:
            return size
    if x - a.tokens == y - b.tokens:
        return Size(tokens=1, constant=x - a.tokens)
    if x - a.outputs == y - b.outputs:
        return Size(outputs=1, constant=x - a.outputs)
    raise CaptureRefused(f"a number in {where} follows neither tokens nor logit rows: {x} and {y}")


def _multiple(name: str, at_a: int, at_b: int) -> Callable[[int, int], Size | None]:
    def make(x: int, y: int) -> Size | None:
        whole = x % at_a == 0 and y % at_b == 0 and x // at_a == y // at_b
        return Size(**{name: x // at_a}) if whole else None

    return make

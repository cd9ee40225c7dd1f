# SPDX-License-Identifier: Apache-2.0
"""Puts the meter into a parsed template.

Filters, tests, calls and arithmetic can be intercepted by the environment; loops, literals, ``~``, slices and
comparisons cannot. So the syntax tree is changed: each of them passes through a filter whose name no template can
write. What a template means stays the same.
"""

from __future__ import annotations

from typing import Any, TypeVar

from jinja2 import nodes
from jinja2.runtime import Undefined, str_join

from tramontane.chat.guards import joined
from tramontane.chat.meter import current

N = TypeVar("N", bound=nodes.Node)

_BODIES = ("body", "else_")


def rewrite(tree: nodes.Template) -> nodes.Template:
    """The tree with the meter in it. Changed in place."""
    _children(tree)
    return tree


def meter_filters() -> dict[str, Any]:
    """The filters that :func:`rewrite` uses."""
    return {
        "meter:round": _round,
        "meter:built": _built,
        "meter:joined": _joined,
        "meter:sliced": _sliced,
        "meter:compared": _compared,
    }


def _children(node: nodes.Node) -> None:
    """Rewrite everything below a node, innermost first."""
    for field in node.fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            changed = [_changed(item) if isinstance(item, nodes.Node) else item for item in value]
            if field in _BODIES and (changed or field == "body"):
                changed = _counted(node, changed)
            setattr(node, field, changed)
        elif isinstance(value, nodes.Node):
            setattr(node, field, _changed(value))


def _changed(node: nodes.Node) -> nodes.Node:
    """What a node becomes."""
    _children(node)
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
        stores = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if stores or _constant(node) else _filter(node, "meter:built")
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in ("varargs", "kwargs"):
        return _filter(node, "meter:built")
    if isinstance(node, nodes.Concat):
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "meter:joined")
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        return _filter(node.node, "meter:sliced", [bound or nodes.Const(None) for bound in bounds])
    if isinstance(node, nodes.Compare):
        node.expr = _compared_side(node.expr)
        for operand in node.ops:
            operand.expr = _compared_side(operand.expr)
    return node


def _counted(owner: nodes.Node, body: list[Any]) -> list[Any]:
    """A body that counts its rounds and the literal text of each."""
    literal = sum(
        len(part.data)
        for statement in body
        if isinstance(statement, nodes.Output)
        for part in statement.nodes
        if isinstance(part, nodes.TemplateData)
    )
    repeats = isinstance(owner, nodes.For | nodes.Macro | nodes.CallBlock)
    lineno = owner.lineno
    if not (literal or repeats):
        return body
    return [nodes.ExprStmt(_filter(nodes.Const(literal, lineno=lineno), "meter:round"), lineno=lineno), *body]


def _compared_side(side: nodes.Expr) -> nodes.Expr:
    return side if isinstance(side, nodes.Const) else _filter(side, "meter:compared")


def _constant(node: nodes.Node) -> bool:
    return all(isinstance(child, nodes.Const | nodes.Pair) and _constant(child) for child in node.iter_child_nodes())


def _filter(node: nodes.Node, name: str, arguments: list[Any] | None = None) -> nodes.Filter:
    return nodes.Filter(node, name, arguments or [], [], None, None, lineno=node.lineno)


def _round(literal: int) -> None:
    current.get().text(literal)


def _built(value: Any) -> Any:
    """A list, tuple or mapping that the template wrote."""
    meter = current.get()
    meter.count(len(value))
    meter.weigh(value)
    return value


def _joined(parts: list[Any]) -> str:
    """``a ~ b``."""
    return str_join(joined(parts))


def _sliced(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """``value[start:stop:step]``."""
    meter = current.get()
    if isinstance(value, str):
        meter.text(len(value))
    elif isinstance(value, list | tuple):
        meter.count(len(value))
    else:
        meter.step()
    return value[start:stop:step]


def _compared(value: Any) -> Any:
    if not isinstance(value, Undefined):
        current.get().step(current.get().weigh(value))
    return value

# SPDX-License-Identifier: Apache-2.0
"""The tape: one step of a model as data.

A tape lists what ran between token ids and hidden states: ops of the table with their weights, and (for models with
torch code of their own) torch calls. Sizes are symbolic in the step's token count T and logit-row count L, so one tape
serves every batch. It holds no storage; :mod:`tramontane.tape.arena` gives it some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.ops import BoundOp


@frozen
class Size:
    """A number that depends on the batch: ``tokens * T + outputs * L + constant``."""

    tokens: int = 0
    outputs: int = 0
    constant: int = 0

    def at(self, tokens: int, outputs: int) -> int:
        """The number for a step of T tokens and L logit rows."""
        return self.tokens * tokens + self.outputs * outputs + self.constant


Dim = int | Size


def resolve(dims: Sequence[Dim], tokens: int, outputs: int) -> tuple[int, ...]:
    """A shape for a step of T tokens and L logit rows."""
    return tuple(dim if isinstance(dim, int) else dim.at(tokens, outputs) for dim in dims)


class Kind(StrEnum):
    """Where a value lives."""

    ARENA = "arena"
    """Output of an op, in the arena."""
    FIELD = "field"
    """A field of the batch."""
    CONSTANT = "constant"
    """A tensor that exists beside the tape: a weight, a table."""
    VIEW = "view"
    """Shares the storage of another value."""
    FOREIGN = "foreign"
    """Result of torch code that allocates for itself, anew in each step."""


@define(eq=False)
class Value:
    """One tensor on the tape."""

    kind: Kind
    shape: tuple[Dim, ...]
    dtype: torch.dtype
    root: int | None = None
    """For views: the value whose storage it shares."""
    name: str = ""
    """For fields of the batch: which one, ``ids_T`` or ``groups.0.slot_T``."""
    tensor: Tensor | None = field(default=None, repr=False)
    """For constants."""


@frozen
class Ref:
    """A value's place in the argument list of a torch call."""

    value: int


@define(eq=False)
class OpNode:
    """A bound op applied to values."""

    call: BoundOp
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@define(eq=False)
class TorchNode:
    """A torch call of the model's own code; tensors are :class:`Ref`, batch-dependent numbers are :class:`Size`."""

    func: Callable[..., Any]
    args: Any
    kwargs: dict[str, Any]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    """Values read, in any position."""
    is_view: bool
    """It neither allocates nor writes, so it costs nothing once storage is fixed."""


Node = OpNode | TorchNode


@define(eq=False)
class Tape:
    """Values, nodes in order of execution, and which values are the result."""

    values: list[Value]
    nodes: list[Node]
    results: tuple[int, ...]

    def base(self, value: int) -> int:
        """The value that owns the storage of ``value``."""
        root = self.values[value].root
        return value if root is None else self.base(root)

    def segments(self) -> list[str]:
        """Torch calls that cut the tape into segments, by name, in order."""
        return [str(n.func) for n in self.nodes if isinstance(n, TorchNode) and not n.is_view]

    def describe(self) -> str:
        """One line per node, for people."""
        lines = []
        for node in self.nodes:
            name = node.call.op.name if isinstance(node, OpNode) else str(node.func)
            where = node.call.path if isinstance(node, OpNode) else ("view" if node.is_view else "segment cut")
            inputs, outputs = (" ".join(f"%{v}" for v in side) for side in (node.inputs, node.outputs))
            lines.append(f"{outputs or '-'} = {name}({inputs})  # {where}")
        return "\n".join(lines)

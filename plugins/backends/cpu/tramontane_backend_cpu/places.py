# SPDX-License-Identifier: Apache-2.0
"""Where each value of a tape lies, for batches of any size.

Views are worked out by taking them on the meta device at two sizes of step: what comes out with one offset and one set
of strides is a place; a view whose offset follows the batch is none, and whoever reads it runs in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor
from torch.utils import _pytree as pytree

from tramontane.tape.arena import ArenaPlan
from tramontane.tape.ir import Kind, Ref, Size, Tape, TorchNode, resolve
from tramontane.tape.symbols import Extent
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.operands import FIELDS, Operand, make

_EXTENTS = (Extent(tokens=11, outputs=5), Extent(tokens=23, outputs=7))


@frozen
class _View:
    """Elements from the start of the base, and between elements of each dimension."""

    offset: int
    strides: tuple[int, ...]


@define(eq=False)
class Places:
    """Operands for the values of one tape."""

    tape: Tape
    plan: ArenaPlan
    _views: Mapping[int, _View] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        first, second = (_views_at(self.tape, extent) for extent in _EXTENTS)
        self._views = {value: view for value, view in first.items() if second.get(value) == view}

    def operand(self, value: int) -> Operand | None:
        """Where a value lies; ``None`` where that follows the batch, or torch code allocates it anew each step."""
        view, base = self._views.get(value), self.tape.base(value)
        made, owner = self.tape.values[value], self.tape.values[base]
        if owner.kind is Kind.FIELD and value == base and made.name in FIELDS:
            rows = Size() if made.name == "positions_KT" else Size(tokens=1)
            return Operand(torch.int64, rows, (1,), 8, FIELDS[made.name])
        if view is None:
            return None
        offset = view.offset * made.dtype.itemsize
        if owner.kind is Kind.CONSTANT and owner.tensor is not None:
            return make(made.shape, view.strides, made.dtype, abi.Place.POINTER, owner.tensor.data_ptr() + offset)
        if owner.kind is Kind.ARENA and base in self.plan.offsets:
            return make(made.shape, view.strides, made.dtype, abi.Place.ARENA, self.plan.offsets[base] + offset)
        return None


def _views_at(tape: Tape, extent: Extent) -> dict[int, _View]:
    """Every value of fixed storage at one size of step."""
    env: dict[int, Tensor] = {}
    for index, value in enumerate(tape.values):
        if value.kind is Kind.ARENA:
            shape = resolve(value.shape, extent.tokens, extent.outputs)
            env[index] = torch.empty(shape, dtype=value.dtype, device="meta")
        elif value.kind is Kind.CONSTANT and value.tensor is not None:
            env[index] = value.tensor
    bases = {index: int(tensor.storage_offset()) for index, tensor in env.items()}
    for node in tape.nodes:
        if isinstance(node, TorchNode) and node.is_view and all(v in env for v in node.inputs):
            env.update(zip(node.outputs, _take(node, env, extent), strict=True))
    return {
        value: _View(int(tensor.storage_offset()) - bases[tape.base(value)], tensor.stride())
        for value, tensor in env.items()
    }


def _take(node: TorchNode, env: Mapping[int, Tensor], extent: Extent) -> list[Tensor]:
    def concrete(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return env[leaf.value]
        return leaf.at(extent.tokens, extent.outputs) if isinstance(leaf, Size) else leaf

    args, kwargs = pytree.tree_map(concrete, (node.args, node.kwargs), is_leaf=lambda x: isinstance(x, Ref | Size))
    return [x for x in pytree.tree_leaves(node.func(*args, **kwargs)) if isinstance(x, Tensor)]

# SPDX-License-Identifier: Apache-2.0
"""A native kernel bound to one op: callable by itself, and lowered into a program as the same node."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from torch import Tensor

from tramontane.backends.torch.backend import KERNELS as TORCH_KERNELS
from tramontane.batch import Ctx
from tramontane.ops import Kernel, Op, reference_kernel
from tramontane.weights import CacheSlot
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.library import Pool, library
from tramontane_backend_cpu.operands import Operand, of_tensor
from tramontane_backend_cpu.steps import Steps

_log = logging.getLogger(__name__)
_said: set[str] = set()

Fit = Callable[[Sequence[Operand]], str | None]
"""Inputs and outputs -> why the kernel cannot take them, or ``None``. Fills in those parameters that only operands tell
(how many heads there are, say); they are the same in every call of one bound op."""


@define(eq=False)
class Engine:
    """What all native kernels of a backend share."""

    pool: Pool
    steps: Steps = field(factory=Steps)


@define(eq=False)
class _Last:
    """The node of the last call: the next is mostly over tensors of the same shapes."""

    shapes: list[Any]
    planes: object
    node: abi.Node
    values: list[abi.Value]
    """The node's, to set their addresses."""
    reference: Any
    """To the node, as an argument."""


@define(eq=False)
class NativeKernel:
    """Implements :data:`tramontane.ops.Kernel`."""

    op: Op
    weights: Sequence[Any]
    engine: Engine
    name: str
    """Of :data:`abi.KERNELS`."""
    params: abi.Struct | None
    fit: Fit
    keep: Sequence[Any] = ()
    """What ``params`` points into."""
    heads_apart: bool = False
    """It can read heads that do not lie side by side."""
    _number: int = field(init=False)
    _fallback: Kernel | None = field(default=None, init=False)
    _last: _Last | None = field(default=None, init=False)
    _run: Callable[..., int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._number = abi.KERNELS.index(self.name)
        self._run = library().tm_node_run

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Run by itself."""
        tensors = (*inputs, *outputs)
        shapes = [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors]
        last = self._last
        if last is None or last.shapes != shapes or last.planes is not self._planes():
            node = self.node([of_tensor(tensor) for tensor in tensors])
            if isinstance(node, str):
                self._fall_back(node)(ctx, inputs, outputs)
                return
            values = [node.values[index] for index in range(len(tensors))]
            last = self._last = _Last(shapes, self._planes(), node, values, ctypes.byref(node))
        for value, tensor in zip(last.values, tensors, strict=True):
            value.pointer = tensor.data_ptr()
        step = self.engine.steps.of(ctx)
        raise_for(self._run(last.reference, self.engine.pool.handle, ctypes.byref(step)), self.op.name)

    def _planes(self) -> object:
        """What the cache consists of now; it may be allocated anew."""
        first = self.weights[0] if self.weights else None
        return (first.states or first.planes) if isinstance(first, CacheSlot) else None

    def node(self, operands: Sequence[Operand | None]) -> abi.Node | str:
        """The native node over these inputs and outputs, or why there is none."""
        found = [operand for operand in operands if operand is not None]
        if len(found) < len(operands):
            return "an input is no sequence of rows, or of another type"
        if not self.heads_apart and any(operand.apart for operand in found):
            return "heads that do not lie side by side"
        reason = self.fit(found)
        if reason is not None:
            return reason
        params = None if self.params is None else ctypes.addressof(self.params)
        node = abi.Node(params, self._number, len(found))
        for index, operand in enumerate(found):
            node.values[index] = operand.value()
        return node

    def _fall_back(self, reason: str) -> Kernel:
        """The stock kernel, or the reference: what the native one cannot take still runs."""
        if self._fallback is None:
            if self.op.name not in _said:
                _said.add(self.op.name)
                _log.warning("%s: stock torch runs what the native kernel cannot take: %s", self.op.name, reason)
            stock = TORCH_KERNELS.get(self.op.name)
            made = "none" if stock is None else stock(self.op, self.weights)
            self._fallback = reference_kernel(self.op, self.weights) if isinstance(made, str) else made
        return self._fallback


def raise_for(status: int, where: str) -> None:
    """Turn a status of the native side into an exception.

    Raises:
        IndexError: A token id or row number lies outside its table.
        MemoryError: There was no memory to work in.
    """
    if status == abi.Status.OK:
        return
    if status == abi.Status.NO_MEMORY:
        raise MemoryError(f"no memory to work in ({where})")
    raise IndexError(f"a token id or a row number lies outside its table ({where})")
